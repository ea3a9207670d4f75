//! Values that only show their shape.

use super::page::{Kind, Page};
use super::value::write_string;
use std::sync::Arc;

/// `text` with every letter and digit an `x`.
fn mask(text: &str) -> String {
    let mask = |c: char| if c.is_alphanumeric() { 'x' } else { c };
    text.chars().map(mask).collect()
}

/// The same members with every letter and digit an `x`: lengths, blanks and
/// punctuation stay, and what is null.
pub(super) fn masked(page: &Page) -> Page {
    let mut shown = Page::new(Arc::clone(page.columns()));
    for index in 0..page.len() {
        for (kind, text) in page.row(index).cells() {
            match kind {
                Kind::Null => shown.push(Kind::Null, ""),
                _ => shown.push(Kind::Text, &mask(text)),
            }
        }
    }
    shown
}

/// Masks the JSON value that begins at `from`, as [`masked`] does a cell.
pub(super) fn mask_value(out: &mut Vec<u8>, from: usize) {
    let json = String::from_utf8_lossy(&out[from..]).into_owned();
    if json == "null" {
        return;
    }
    let text = serde_json::from_str::<String>(&json).unwrap_or(json);
    out.truncate(from);
    write_string(out, &mask(&text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_value_keeps_its_shape_and_nothing_else() {
        assert_eq!(mask("Ada.Löv+3@example.com"), "xxx.xxx+x@xxxxxxx.xxx");
        let mut page = Page::new(Arc::from(["a".to_owned(), "b".to_owned()]));
        page.push(Kind::Null, "");
        page.push(Kind::Json, r#"{"k":[1]}"#);
        let shown = masked(&page);
        let cells: Vec<_> = shown.row(0).cells().collect();
        assert_eq!(cells, [(Kind::Null, ""), (Kind::Text, r#"{"x":[x]}"#)]);
    }

    #[test]
    fn a_masked_json_value_is_a_text_unless_it_is_null() {
        for (json, expect) in [
            ("null", "null"),
            ("-1.50", r#""-x.xx""#),
            (r#""a\"b""#, r#""x\"x""#),
            ("[1,true]", r#""[x,xxxx]""#),
        ] {
            let mut out = b"{".to_vec();
            out.extend_from_slice(json.as_bytes());
            mask_value(&mut out, 1);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{{{expect}"));
        }
    }
}
