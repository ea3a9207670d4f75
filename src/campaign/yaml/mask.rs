//! A text with its secrets painted over, to be shown.

use super::nearest::nearest;
use super::place::Source;
use super::tree::{Data, Document, Node};

/// The text of `source`, byte for byte as long, with every value at or below
/// one of `keys`, or a misspelt one, painted over with `*`, unless it is a reference (`${…}`). Of a
/// text that cannot be read nothing is left, since a secret could be anywhere.
pub fn masked(source: &Source, keys: &[&str]) -> String {
    let Ok(document) = Document::read(source) else {
        return String::new();
    };
    let mut bytes = source.text.as_bytes().to_vec();
    paint(document.root(), keys, false, &mut bytes);
    String::from_utf8(bytes).unwrap_or_default()
}

fn paint(node: &Node, keys: &[&str], is_secret: bool, bytes: &mut [u8]) {
    match &node.data {
        Data::Section(entries) => {
            for entry in entries {
                // A key that was meant to be one of them holds what they hold.
                let is_meant = nearest(&entry.key, keys.iter().copied()).is_some();
                let below = is_secret || is_meant;
                paint(&entry.value, keys, below, bytes);
            }
        }
        Data::List(items) => {
            for item in items {
                paint(item, keys, is_secret, bytes);
            }
        }
        Data::Text(text) if text.starts_with("${") && text.ends_with('}') => {}
        Data::Null => {}
        _ if is_secret => {
            for byte in &mut bytes[node.at.clone()] {
                if !matches!(byte, b'\n' | b'\r') {
                    *byte = b'*';
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_below_a_secret_key_are_painted_over_and_references_are_not() {
        let text = "a: ä\nauth: { bearrer: \"tök\", list: [ 1, \"${env:X}\" ] }\n";
        let source = Source { name: "f", text };
        let expect = "a: ä\nauth: { bearrer: ******, list: [ *, \"${env:X}\" ] }\n";
        assert_eq!(masked(&source, &["auth"]), expect);
    }

    #[test]
    fn of_a_text_that_cannot_be_read_nothing_is_shown() {
        let text = "auth: { bearer: tok";
        assert_eq!(masked(&Source { name: "f", text }, &["auth"]), "");
    }
}
