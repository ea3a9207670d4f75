//! The members that a receiver refused one by one, in an answer that accepts
//! the rest of their batch.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The longest reason kept, in bytes: the width of its column in history.
const MAX_REASON_BYTES: usize = 512;

/// One member the receiver did not take.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The member's key, as text.
    pub key: String,
    /// Why, in the receiver's words: at most 512 bytes, without control
    /// characters; empty where it gave none.
    pub reason: String,
}

/// Never says who, nor the receiver's words, which may say it too.
impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection").finish_non_exhaustive()
    }
}

/// What an answer says of members refused one by one.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Rejections {
    /// Nothing: it was not asked for, or the answer has no list.
    #[default]
    None,
    /// These, in the answer's order. Keys that were not in the batch and keys
    /// that come twice are still among them.
    List(Vec<Rejection>),
    /// There is something, and it cannot be understood: why, in our words.
    Unreadable(String),
}

impl fmt::Debug for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::List(members) => write!(f, "List({} members)", members.len()),
            Self::Unreadable(why) => f.debug_tuple("Unreadable").field(why).finish(),
        }
    }
}

impl Rejections {
    /// Reads the list at the JSON pointer `at` (RFC 6901) of a 2xx answer's
    /// body: `[{"key": …, "reason": …}]` or `[key]`, keys being strings or
    /// numbers. An empty body, and one with nothing or `null` there, refuse
    /// nobody. Never fails and never quotes the body.
    pub fn parse(body: &[u8], at: &str) -> Self {
        if body.trim_ascii().is_empty() {
            return Self::None;
        }
        let Ok(answer) = serde_json::from_slice::<Value>(body) else {
            return Self::Unreadable("the answer is not JSON".to_owned());
        };
        let items = match answer.pointer(at) {
            None | Some(Value::Null) => return Self::None,
            Some(Value::Array(items)) => items,
            Some(_) => return Self::Unreadable(format!("what is at `{at}` is not a list")),
        };
        let members: Option<Vec<_>> = items.iter().map(rejection).collect();
        match members {
            None => Self::Unreadable(format!(
                "the list at `{at}` has an item that is neither a key nor an object with `key`"
            )),
            Some(members) if members.is_empty() => Self::None,
            Some(members) => Self::List(members),
        }
    }
}

/// The rows of `keys` that `list` names, each once, in order, with the reason
/// given first; and how many of its keys are nobody's. Keys are compared
/// without trailing blanks, as the warehouse compares them.
pub fn matching_rows<'a>(
    list: &'a [Rejection],
    keys: &[String],
) -> (BTreeMap<usize, &'a str>, usize) {
    let trimmed = |key: &'a str| key.trim_end_matches(' ');
    let rows: HashMap<&str, usize> = keys
        .iter()
        .enumerate()
        .map(|(row, key)| (key.trim_end_matches(' '), row))
        .collect();
    let mut found = BTreeMap::new();
    let mut strangers = 0;
    for rejection in list {
        match rows.get(trimmed(&rejection.key)) {
            Some(&row) => {
                found.entry(row).or_insert(rejection.reason.as_str());
            }
            None => strangers += 1,
        }
    }
    (found, strangers)
}

fn rejection(item: &Value) -> Option<Rejection> {
    let Value::Object(fields) = item else {
        return Some(Rejection {
            key: key(item)?,
            reason: String::new(),
        });
    };
    let reason = match fields.get("reason") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => cut(text),
        Some(other) => cut(&other.to_string()),
    };
    Some(Rejection {
        key: key(fields.get("key")?)?,
        reason,
    })
}

fn key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// `reason` as it is stored: on one line, and not longer than its column.
fn cut(reason: &str) -> String {
    let mut kept = String::with_capacity(reason.len().min(MAX_REASON_BYTES));
    for char in reason.chars().filter(|char| !char.is_control()) {
        if kept.len() + char.len_utf8() > MAX_REASON_BYTES {
            break;
        }
        kept.push(char);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    #[track_caller]
    fn check(body: &str, expect: &[(&str, &str)]) {
        let expect = expect.iter().map(|(key, reason)| Rejection {
            key: (*key).to_owned(),
            reason: (*reason).to_owned(),
        });
        let found = Rejections::parse(body.as_bytes(), "/data/rejected");
        assert!(found == Rejections::List(expect.collect()), "{body}");
    }

    #[track_caller]
    fn unreadable(body: &str, says: &str) {
        match Rejections::parse(body.as_bytes(), "/data/rejected") {
            Rejections::Unreadable(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_list_of_objects_or_of_bare_keys_is_read() {
        check(
            r#"{"data":{"rejected":[{"key":"a","reason":"no such user"},{"key":7,"more":1}]}}"#,
            &[("a", "no such user"), ("7", "")],
        );
        check(
            r#"{"data":{"rejected":["a",7,-1,2.5,"a"]}}"#,
            &[("a", ""), ("7", ""), ("-1", ""), ("2.5", ""), ("a", "")],
        );
        check(
            r#"{"data":{"rejected":[{"key":"a","reason":{"code":3}},{"key":"b","reason":null}]}}"#,
            &[("a", r#"{"code":3}"#), ("b", "")],
        );
    }

    #[test]
    fn an_answer_without_a_list_refuses_nobody() {
        for body in [
            "",
            " \r\n",
            "{}",
            "[]",
            "null",
            r#"{"data":{"rejected":null}}"#,
            r#"{"data":{"rejected":[]}}"#,
        ] {
            let found = Rejections::parse(body.as_bytes(), "/data/rejected");
            assert_eq!(found, Rejections::None, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_said_without_quoting_it() {
        unreadable("<html>secret</html>", "not JSON");
        unreadable(r#"{"data":{"rejected":["a""#, "not JSON");
        unreadable("\u{feff}{}", "not JSON");
        unreadable(r#"{"data":{"rejected":"a"}}"#, "not a list");
        unreadable(r#"{"data":{"rejected":{"a":"b"}}}"#, "not a list");
        unreadable(r#"{"data":{"rejected":["a",[1]]}}"#, "neither a key");
        unreadable(r#"{"data":{"rejected":[{"id":"a"}]}}"#, "neither a key");
        unreadable(r#"{"data":{"rejected":[true]}}"#, "neither a key");
    }

    #[test]
    fn a_reason_is_one_line_of_at_most_512_bytes() {
        let long = format!("a\r\n\tb\u{0}\u{85}{}", "é".repeat(300));
        let body = serde_json::json!([{ "key": "k", "reason": long }]).to_string();
        let Rejections::List(members) = Rejections::parse(body.as_bytes(), "") else {
            panic!("not a list");
        };
        assert_eq!(members[0].reason, format!("ab{}", "é".repeat(255)));
    }

    #[test]
    fn debug_names_no_member() {
        let found = Rejections::parse(br#"[{"key":"ada","reason":"ada is gone"}]"#, "");
        assert_eq!(format!("{found:?}"), "List(1 members)");
        let Rejections::List(members) = found else {
            panic!("not a list");
        };
        assert_eq!(format!("{:?}", members[0]), "Rejection { .. }");
    }

    proptest! {
        #[test]
        fn no_body_and_no_pointer_brings_it_down(body: Vec<u8>, at: String) {
            let _ = Rejections::parse(&body, &at);
        }

        #[test]
        fn no_reason_is_longer_than_its_column(reason: String) {
            let kept = cut(&reason.repeat(20));
            prop_assert!(kept.len() <= MAX_REASON_BYTES);
            prop_assert!(!kept.contains(char::is_control));
        }
    }
}
