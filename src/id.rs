//! The newtypes that name things: campaigns, connectors, runs, batches.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The longest campaign, connector or destination name, in bytes: the width of
/// the `campaign` column of `contact_history`.
pub const MAX_NAME_BYTES: usize = 128;

/// A name that is not kebab-case, or too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a name; use lower-case letters, digits and single hyphens, starting with a letter, at most {MAX_NAME_BYTES} bytes"
)]
pub struct BadName {
    name: String,
}

fn parse_name(text: &str) -> Result<String, BadName> {
    let words_are_sound = text.split('-').all(|word| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    });
    let starts_with_letter = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if words_are_sound && starts_with_letter && text.len() <= MAX_NAME_BYTES {
        Ok(text.to_owned())
    } else {
        let name = text.chars().take(MAX_NAME_BYTES).collect();
        Err(BadName { name })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as written in files, columns and log fields.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                parse_name(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// What identifies a campaign; kebab-case, unique in the folder.
    CampaignName
}
name_type! {
    /// A warehouse the operator has defined.
    ConnectorName
}
name_type! {
    /// A channel's endpoint the operator has defined.
    DestinationName
}

/// Why a run exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// By a fire time of its campaign's schedule.
    Scheduled,
    /// By `campaignd run`.
    Manual,
}

impl Trigger {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Manual => "manual",
        }
    }
}

impl FromStr for Trigger {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        match text {
            "scheduled" => Ok(Self::Scheduled),
            "manual" => Ok(Self::Manual),
            _ => Err(BadId::new("trigger", text)),
        }
    }
}

/// An id that was not written by us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct BadId {
    what: &'static str,
    text: String,
}

impl BadId {
    fn new(what: &'static str, text: &str) -> Self {
        Self {
            what,
            text: text.chars().take(200).collect(),
        }
    }
}

/// Names a run: `<campaign>@<fire time, UTC, YYYYMMDDTHHMMSSZ>`, and
/// `-manual-<n>` behind it for a manual one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The id of the run a schedule asked for at `fire_time`.
    pub fn scheduled(campaign: &CampaignName, fire_time: Timestamp) -> Self {
        let at = fire_time.to_zoned(TimeZone::UTC);
        Self(format!("{campaign}@{}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The id of the `n`th manual run of `campaign` at `fire_time`, from 1.
    pub fn manual(campaign: &CampaignName, fire_time: Timestamp, n: u32) -> Self {
        let Self(scheduled) = Self::scheduled(campaign, fire_time);
        Self(format!("{scheduled}-manual-{n}"))
    }

    /// The id as stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId::new("run id", text);
        let (campaign, rest) = text.split_once('@').ok_or_else(bad)?;
        campaign.parse::<CampaignName>().map_err(|_| bad())?;
        let (instant, suffix) = rest.split_at_checked(16).ok_or_else(bad)?;
        jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", instant).map_err(|_| bad())?;
        let number = suffix.strip_prefix("-manual-");
        let is_manual = number.is_some_and(|n| n.parse::<u32>().is_ok());
        if suffix.is_empty() || is_manual {
            Ok(Self(text.to_owned()))
        } else {
            Err(bad())
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a batch within its run: `3`, or `3.01` for a part of a split one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchPath {
    /// The batch, from 1, in the order of the members.
    pub batch: u32,
    /// Which part of it: empty for the whole, else a digit `0` or `1` a split.
    pub part: String,
}

impl BatchPath {
    /// The whole of batch number `batch`.
    pub fn whole(batch: u32) -> Self {
        Self {
            batch,
            part: String::new(),
        }
    }
}

impl fmt::Display for BatchPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.batch)?;
        if !self.part.is_empty() {
            write!(f, ".{}", self.part)?;
        }
        Ok(())
    }
}

impl FromStr for BatchPath {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId::new("batch", text);
        let (batch, part) = text.split_once('.').unwrap_or((text, ""));
        let batch = batch.parse().map_err(|_| bad())?;
        if part.len() <= 64 && part.bytes().all(|b| b == b'0' || b == b'1') {
            Ok(Self {
                batch,
                part: part.to_owned(),
            })
        } else {
            Err(bad())
        }
    }
}

/// The namespace of our version-5 ids; drawn once, never to be changed, since
/// receivers remember the ids made from it.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c1f_0c1e_58a4_4b4e_9d3c_7f0a_2e6b_91d5);

/// Names one delivery to its destination, the same in every attempt and after
/// every crash: `webhook-id` and `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(Uuid);

impl MessageId {
    /// The id of a batch. `generation` is 0, and one more each time a person
    /// has said that a parked batch was not delivered.
    pub fn of(run: &RunId, path: &BatchPath, generation: u32) -> Self {
        let name = format!("{run}\n{path}\n{generation}");
        Self(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kebab_case() {
        for good in ["a", "winback-lapsed-buyers", "q4-2026"] {
            assert!(good.parse::<CampaignName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a--b", "4a", "ä", "a b", "a.b"] {
            assert!(bad.parse::<CampaignName>().is_err(), "{bad}");
        }
        assert!("a".repeat(129).parse::<CampaignName>().is_err());
    }

    #[test]
    fn a_run_id_reads_back() {
        let campaign: CampaignName = "winback".parse().unwrap();
        let at: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let scheduled = RunId::scheduled(&campaign, at);
        assert_eq!(scheduled.as_str(), "winback@20261122T140000Z");
        let manual = RunId::manual(&campaign, at, 2);
        assert_eq!(manual.as_str(), "winback@20261122T140000Z-manual-2");
        for id in [scheduled, manual] {
            assert_eq!(id.as_str().parse::<RunId>().unwrap(), id);
        }
        for bad in ["winback", "winback@", "w@20261122T140000Z-x", "w@2026"] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_message_id_is_the_same_each_time_and_differs_by_part_and_generation() {
        let run: RunId = "winback@20261122T140000Z".parse().unwrap();
        let path: BatchPath = "3.01".parse().unwrap();
        let id = MessageId::of(&run, &path, 0);
        assert_eq!(id, MessageId::of(&run, &path, 0));
        assert_ne!(id, MessageId::of(&run, &path, 1));
        assert_ne!(id, MessageId::of(&run, &BatchPath::whole(3), 0));
    }
}
