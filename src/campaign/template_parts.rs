//! The templates in a text, one by one: the engine stops at the first mistake,
//! and a person wants to see all.

use crate::delivery::template::{Parsed, Unreadable, is_template, trial};
use minijinja::Environment;

/// What stands before the first template, the template, and what follows.
pub(super) fn next_template(sql: &str) -> Option<(&str, &str, &str)> {
    let (start, end) = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")]
        .into_iter()
        .filter_map(|(open, close)| Some((sql.find(open)?, close)))
        .min()?;
    let mut quote = None;
    for (at, character) in sql[start..].char_indices().skip(2) {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') if end != "#}" => quote = Some(character),
            (None, _) if sql[start + at..].starts_with(end) => {
                let stop = start + at + end.len();
                return Some((&sql[..start], &sql[start..stop], &sql[stop..]));
            }
            _ => {}
        }
    }
    None
}

/// Each `{{ … }}` of `text`, and one that is not closed, with the byte at which
/// it stands.
pub(super) fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, template, after)) = next_template(rest) {
        if template.starts_with("{{") {
            parts.push((text.len() - rest.len() + before.len(), template));
        }
        rest = after;
    }
    if is_template(rest) {
        parts.push((text.len() - rest.len(), rest));
    }
    parts
}

/// Why `text` cannot be read: each of its templates that cannot be, else
/// `whole`, which is said of all together.
pub(super) fn unreadable_parts(
    env: &Environment,
    text: &str,
    whole: Unreadable,
) -> Vec<Unreadable> {
    of_parts(text, whole, |part| Parsed::text_of(env, part).err())
}

/// What in `text` works for no value of `columns`: each of its templates that
/// does not, else what is said of all together.
pub(super) fn failing_parts(
    env: &Environment,
    text: &str,
    whole: &Parsed,
    columns: &[String],
) -> Vec<Unreadable> {
    let Err(whole) = trial(whole, columns) else {
        return Vec::new();
    };
    // What stands between two blocks can name what the first of them defines.
    if text.contains("{%") {
        return vec![whole];
    }
    of_parts(text, whole, |part| {
        let part = Parsed::text_of(env, part).ok()?;
        trial(&part, columns).err()
    })
}

fn of_parts(
    text: &str,
    whole: Unreadable,
    wrong: impl Fn(&str) -> Option<Unreadable>,
) -> Vec<Unreadable> {
    let found = parts(text).into_iter().filter_map(|(at, part)| {
        let wrong = wrong(part)?;
        Some(Unreadable {
            at: at + wrong.at,
            ..wrong
        })
    });
    let found: Vec<_> = found.collect();
    match found.is_empty() {
        true => vec![whole],
        false => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_template_stands_at_its_place_and_an_open_one_too() {
        let text = "é{{ a }}{% if b %}{{ '}}' }}{# c #} {{ d";
        let expect = ["{{ a }}", "{{ '}}' }}", " {{ d"];
        let found = parts(text);
        assert_eq!(
            found.iter().map(|(_, part)| *part).collect::<Vec<_>>(),
            expect
        );
        for (at, part) in found {
            assert!(text[at..].starts_with(part));
        }
    }
}
