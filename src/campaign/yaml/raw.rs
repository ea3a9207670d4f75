//! The values of a document, as the YAML reader understands them, in the order
//! of the file and with repeated keys kept.

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use std::cell::Cell;
use std::fmt;

/// A value without its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Raw>),
    Section(Vec<(Raw, Raw)>),
    /// Something that YAML has and our files have no use for; what it is.
    Strange(&'static str),
}

/// How much a document may hold once its aliases are written out, in bytes: a
/// short file can otherwise stand for gigabytes.
const MAX_EXPANDED_BYTES: usize = 16 * 1024 * 1024;

/// What is said of a document that holds more.
pub(super) const TOO_MUCH: &str = "the file holds too many values, or its aliases (`*name`) stand for too many; write out what is \
     meant, or divide it among several files";

/// What one value costs beside its text.
const VALUE_BYTES: usize = 64;

/// Reads the one document of `text`.
pub(super) fn read(text: &str) -> Result<Raw, serde_yaml::Error> {
    let left = Cell::new(MAX_EXPANDED_BYTES);
    let document = serde_yaml::Deserializer::from_str(text);
    RawSeed { left: &left }.deserialize(document)
}

#[derive(Clone, Copy)]
struct RawSeed<'a> {
    left: &'a Cell<usize>,
}

impl RawSeed<'_> {
    fn spend<E: Error>(self, text: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(VALUE_BYTES + text);
        self.left.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or_else(|| E::custom(TOO_MUCH))
    }
}

impl<'de> DeserializeSeed<'de> for RawSeed<'_> {
    type Value = Raw;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RawSeed<'_> {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        self.spend(0)?;
        Ok(Raw::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Raw, E> {
        self.spend(0)?;
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Raw, E> {
        self.spend(0)?;
        Ok(Raw::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Raw, E> {
        self.spend(0)?;
        Ok(Raw::Number(value.into()))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Strange("a number beyond 64 bits"))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Strange("a number beyond 64 bits"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
        self.spend(0)?;
        Ok(Number::from_f64(value).map_or(Raw::Strange("an infinite number"), Raw::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Raw, E> {
        self.spend(value.len())?;
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        self.spend(0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        self.spend(0)?;
        let mut section = Vec::new();
        while let Some(key) = entries.next_key_seed(self)? {
            section.push((key, entries.next_value_seed(self)?));
        }
        Ok(Raw::Section(section))
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, tagged: A) -> Result<Raw, A::Error> {
        use serde::de::VariantAccess;
        let (_, value): (Raw, _) = tagged.variant_seed(self)?;
        value.newtype_variant_seed(self)?;
        Ok(Raw::Strange("a value with a tag (`!…`)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_kept_for_its_problem() {
        let Raw::Section(entries) = read("a: 1\na: 2\n").unwrap() else {
            panic!("not a section");
        };
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn aliases_cannot_stand_for_more_than_the_limit() {
        let mut text = format!("a: &a {}\nb:\n", "x".repeat(1024 * 1024));
        text.push_str(&"  - *a\n".repeat(100));
        let refused = read(&text).unwrap_err().to_string();
        assert!(refused.contains(TOO_MUCH), "{refused}");
    }

    #[test]
    fn a_tag_is_recognised() {
        assert!(matches!(read("!secret x").unwrap(), Raw::Strange(_)));
    }
}
