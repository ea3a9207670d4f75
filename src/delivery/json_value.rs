//! A JSON cell as templates see it: a text that is opened one level at a time,
//! and only where a template looks, so that it may lie as deep as it likes and
//! no digit of it is lost.

use super::template::Exact;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A binary number holds every decimal of so many digits.
const EXACT_DIGITS: usize = 15;

/// A JSON list or object.
pub(super) struct Json {
    /// As it came.
    pub(super) text: String,
    inside: OnceLock<Inside>,
}

/// One level of it.
enum Inside {
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// What the JSON text stands for. Lists and objects keep their text, and
/// numbers their digits: one that a binary number would round is [`Exact`].
pub(super) fn json_value(json: &str) -> Value {
    let json = json.trim();
    match json.as_bytes().first() {
        Some(b'{' | b'[') => Value::from_object(Json {
            text: json.to_owned(),
            inside: OnceLock::new(),
        }),
        Some(b'"') => serde_json::from_str::<String>(json).map_or(Value::UNDEFINED, Value::from),
        Some(b't') => Value::from(true),
        Some(b'f') => Value::from(false),
        Some(b'n') => Value::from(()),
        Some(_) => number(json),
        None => Value::UNDEFINED,
    }
}

fn number(literal: &str) -> Value {
    if let Ok(whole) = literal.parse::<i64>() {
        return Value::from(whole);
    }
    let mantissa = literal.split(['e', 'E']).next().unwrap_or(literal);
    let digits = mantissa.trim_start_matches(['-', '0', '.']);
    let digits = match digits.contains('.') || mantissa.contains('.') {
        true => digits.trim_end_matches('0'),
        false => digits,
    };
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    match literal.parse::<f64>() {
        Ok(nearest) if count <= EXACT_DIGITS && (count == 0 || nearest.is_normal()) => {
            Value::from(nearest)
        }
        _ => Value::from_object(Exact(literal.to_owned())),
    }
}

impl Json {
    fn inside(&self) -> &Inside {
        self.inside.get_or_init(|| {
            // Whatever lies deeper is skipped, not followed.
            if self.text.starts_with('[') {
                let items = serde_json::from_str::<Vec<&RawValue>>(&self.text).unwrap_or_default();
                return Inside::List(items.iter().map(|raw| json_value(raw.get())).collect());
            }
            let pairs = serde_json::from_str::<Pairs>(&self.text).unwrap_or(Pairs(Vec::new()));
            Inside::Map(pairs.0)
        })
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Json").finish_non_exhaustive()
    }
}

impl Object for Json {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.text.starts_with('[') {
            true => ObjectRepr::Seq,
            false => ObjectRepr::Map,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match self.inside() {
            Inside::List(items) => items.get(key.as_usize()?).cloned(),
            // Of two of one name the last counts, as it does for most readers.
            Inside::Map(pairs) => {
                let key = key.as_str()?;
                let found = pairs.iter().rev().find(|(name, _)| name == key);
                found.map(|(_, value)| value.clone())
            }
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.inside() {
            Inside::List(items) => Enumerator::Seq(items.len()),
            Inside::Map(pairs) => {
                let names = pairs.iter().map(|(name, _)| Value::from(name.as_str()));
                Enumerator::Values(names.collect())
            }
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An object's members in their order.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, raw)) = map.next_entry::<String, &RawValue>()? {
                    pairs.push((name, json_value(raw.get())));
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::template_value::write_engine_value;
    use minijinja::value::ValueKind;
    use proptest::prelude::{prop_assert_eq, proptest};

    #[test]
    fn a_number_is_a_number_unless_that_would_round_it() {
        for plain in [
            "0",
            "-7",
            "12.5",
            "0.10",
            "1e300",
            "9223372036854775807",
            "-0.0",
        ] {
            assert_eq!(json_value(plain).kind(), ValueKind::Number, "{plain}");
        }
        for exact in [
            "9223372036854775808",
            "0.1234567890123456",
            "1e400",
            "1e-400",
            "12345678901234567.5",
        ] {
            let value = json_value(exact);
            assert!(value.downcast_object_ref::<Exact>().is_some(), "{exact}");
            assert_eq!(value.to_string(), exact);
        }
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts() {
        let value = json_value(r#"{"a":1,"a":{"b":[2,3]}}"#);
        let inner = value.get_attr("a").unwrap().get_attr("b").unwrap();
        assert_eq!(inner.get_item(&Value::from(1)).unwrap(), Value::from(3));
        assert_eq!(inner.len(), Some(2));
        assert!(value.get_attr("c").unwrap().is_undefined());
    }

    #[test]
    fn a_text_may_lie_as_deep_as_it_likes() {
        let deep = format!("{}7{}", "[".repeat(100_000), "]".repeat(100_000));
        let mut value = json_value(&deep);
        for _ in 0..50 {
            value = value.get_item(&Value::from(0)).unwrap();
        }
        assert_eq!(value.to_string(), deep[50..deep.len() - 50]);
    }

    proptest! {
        #[test]
        fn whatever_number_is_taken_out_is_the_same_number(literal in "-?(0|[1-9][0-9]{0,24})([.][0-9]{1,24})?") {
            let taken = json_value(&format!(r#"[{{"n": {literal}}}]"#));
            let taken = taken.get_item(&Value::from(0)).unwrap().get_attr("n").unwrap();
            let mut written = Vec::new();
            write_engine_value(&mut written, &taken).unwrap();
            let written = String::from_utf8(written).unwrap();
            prop_assert_eq!(plain(written.trim_matches('"')), plain(&literal));
        }
    }

    /// Without an exponent, and without the zeros that say nothing.
    fn plain(number: &str) -> String {
        let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
        let (sign, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => ("-", rest),
            None => ("", mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent: i64 = exponent.parse().unwrap();
        let point = i64::try_from(whole.len()).unwrap() + exponent;
        let digits = format!("{whole}{fraction}");
        let zeros = digits.len() - digits.trim_start_matches('0').len();
        let point = point - i64::try_from(zeros).unwrap();
        match digits.trim_matches('0') {
            "" => "0".to_owned(),
            digits => format!("{sign}{digits}@{point}"),
        }
    }
}
