//! The forms a body can have, and what goes beside it.

use super::value::write_string;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// How a destination wants its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON value: the envelope with its members.
    #[default]
    Json,
    /// One member a line; the envelope is in headers.
    Ndjson,
    /// One member's fields, as a browser sends a form.
    Form,
}

impl Format {
    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }

    /// Whether it is [`Format::Json`].
    pub fn is_json(&self) -> bool {
        *self == Self::Json
    }
}

/// JSON text with nothing but visible ASCII in it, and still the same value.
pub fn ascii_json(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            ascii.push(character);
            continue;
        }
        // Outside of strings JSON is ASCII, and ours has no line breaks.
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(ascii, "\\u{unit:04x}").expect("a string takes every character");
        }
    }
    ascii
}

/// `text` as a header: visible ASCII as it is, anything else and `%` as the
/// `%XX` of its bytes.
pub(super) fn ascii_text(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => ascii.push_str("%25"),
            b'!'..=b'~' => ascii.push(char::from(byte)),
            _ => write!(ascii, "%{byte:02X}").expect("a string takes every character"),
        }
    }
    ascii
}

/// One member's fields as a form: strings as they are, `null` as nothing,
/// other values as their JSON text.
#[derive(Default)]
pub(super) struct Form(String);

impl Form {
    /// Appends the field `name` with the value that `json` is.
    pub(super) fn push(&mut self, name: &str, json: &[u8]) {
        let text = match json {
            b"null" => String::new(),
            [b'"', ..] => serde_json::from_slice(json).expect("we wrote this string"),
            other => String::from_utf8_lossy(other).into_owned(),
        };
        url::form_urlencoded::Serializer::for_suffix(&mut self.0, 0).append_pair(name, &text);
    }

    pub(super) fn into_bytes(self) -> bytes::Bytes {
        self.0.into_bytes().into()
    }
}

/// `name` as a JSON key, `"name":`.
pub(super) fn key(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 3);
    write_string(&mut key, name);
    key.push(b':');
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn a_form_holds_its_fields_in_order() {
        let mut form = Form::default();
        form.push("id", br#""p 1&2""#);
        form.push("n\u{e4}me", "\"Zo\u{eb}\"".as_bytes());
        form.push("total", b"12.50");
        form.push("gone", b"null");
        form.push("tags", br#"["a",1]"#);
        let text = form.into_bytes();
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "id=p+1%262&n%C3%A4me=Zo%C3%AB&total=12.50&gone=&tags=%5B%22a%22%2C1%5D"
        );
    }

    proptest! {
        #[test]
        fn every_string_is_the_same_in_ascii_json(text in any::<String>()) {
            let ascii = ascii_json(&serde_json::to_string(&text).unwrap());
            prop_assert!(ascii.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert_eq!(serde_json::from_str::<String>(&ascii).unwrap(), text);
        }

        #[test]
        fn every_header_text_is_visible_ascii(text in any::<String>()) {
            prop_assert!(ascii_text(&text).bytes().all(|b| b.is_ascii_graphic()));
        }

        #[test]
        fn every_form_field_reads_back(name in any::<String>(), text in any::<String>()) {
            let mut form = Form::default();
            form.push(&name, serde_json::to_string(&text).unwrap().as_bytes());
            let body = form.into_bytes();
            let read: Vec<_> = url::form_urlencoded::parse(&body).into_owned().collect();
            prop_assert_eq!(read, vec![(name, text)]);
        }
    }
}
