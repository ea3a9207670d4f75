//! What a run is frozen to: everything of its campaign and of the operator's
//! settings that reaches SQL or bytes.

use super::file::Campaign;
use crate::audience::{AudienceSpec, Expect, FreshWhen, Policy};
use crate::delivery::{Format, Payload, Shape};
use crate::id::{CampaignName, ConnectorName, DestinationName};
use crate::schedule::SendWindow;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;

/// What of a destination's settings reaches bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationTerms {
    /// How a person is reached; a label.
    pub channel: String,
    /// The longest body it takes, in bytes.
    pub max_body: u64,
    /// The form of its bodies.
    pub format: Format,
}

/// The specification of a run; holds no secret. Stored before anything else is
/// done, and all that the run reads from then on.
///
/// The order of the fields is the order of the stored text, and so part of
/// every `campaign_version`: new fields go to the end, with a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// The campaign.
    pub campaign: CampaignName,
    /// The warehouse.
    pub connector: ConnectorName,
    /// 0 to 100; higher is admitted first.
    pub priority: u8,
    /// Whom it asks for.
    pub audience: AudienceSpec,
    /// Members in a batch, at most.
    pub batch_size: NonZeroU32,
    /// Where batches go.
    pub destination: DestinationName,
    /// How a person is reached; a label.
    pub channel: String,
    /// The longest body, in bytes.
    pub max_body: u64,
    /// Stored with each row of contact history, and sent.
    pub attributes: Map<String, Value>,
    /// The relations whose members are not contacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppress: Vec<String>,
    /// Who else is not.
    #[serde(default, skip_serializing_if = "Policy::is_empty")]
    pub policy: Policy,
    /// The campaign's own payload, templates as it wrote them.
    #[serde(default, skip_serializing_if = "Payload::is_empty")]
    pub payload: Payload,
    /// What `var` gives in templates.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub vars: Map<String, Value>,
    /// The form of its bodies.
    #[serde(default, skip_serializing_if = "Format::is_json")]
    pub format: Format,
    /// JSON pointer (RFC 6901) in a 2xx answer to members refused one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_at: Option<String>,
    /// What is not sent this many milliseconds after the fire time is not sent
    /// at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after_ms: Option<u64>,
    /// How large its audience should be.
    #[serde(default, skip_serializing_if = "Expect::is_empty")]
    pub expect: Expect,
    /// How recent its data must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_when: Option<FreshWhen>,
    /// The hours in which its requests begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_window: Option<SendWindow>,
    /// How many members are sent first, before a person is asked whether to go
    /// on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<NonZeroU32>,
}

/// A stored specification that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the stored run specification cannot be read: {reason}")]
pub struct UnreadableSpec {
    reason: String,
}

impl RunSpec {
    /// The specification of a run of `campaign` that begins now.
    pub fn of(campaign: &Campaign, terms: &DestinationTerms) -> Self {
        Self {
            campaign: campaign.name.clone(),
            connector: campaign.connector.clone(),
            priority: campaign.priority,
            audience: campaign.audience.clone(),
            batch_size: campaign.activation.batch_size,
            destination: campaign.activation.destination.clone(),
            channel: terms.channel.clone(),
            max_body: terms.max_body,
            attributes: sorted(&campaign.attributes),
            suppress: campaign.suppress.clone(),
            policy: campaign.policy.clone(),
            payload: campaign.activation.payload.clone(),
            vars: sorted(&campaign.vars),
            format: terms.format,
            rejected_at: campaign.activation.rejected_at.clone(),
            expires_after_ms: campaign.activation.expires_after_ms,
            expect: campaign.expect.clone(),
            fresh_when: campaign.fresh_when.clone(),
            send_window: campaign.schedule.terms().send_window.clone(),
            canary: None,
        }
    }

    /// From when on nothing more of a run for `fire_time` is sent, if it says
    /// so.
    pub fn expires_at(&self, fire_time: Timestamp) -> Option<Timestamp> {
        let after = i64::try_from(self.expires_after_ms?).ok()?;
        fire_time
            .checked_add(SignedDuration::from_millis(after))
            .ok()
    }

    /// What of it changes the usual body.
    pub fn shape(&self) -> Shape {
        Shape {
            payload: self.payload.clone(),
            format: self.format,
            vars: self.vars.clone(),
        }
    }

    /// Canonical JSON: the fields in their order, the keys of attributes
    /// sorted, no whitespace.
    pub fn to_json(&self) -> String {
        let canonical = Self {
            attributes: sorted(&self.attributes),
            ..self.clone()
        };
        serde_json::to_string(&canonical).expect("text keys and plain values always serialise")
    }

    /// Reads what [`RunSpec::to_json`] wrote.
    pub fn from_json(json: &str) -> Result<Self, UnreadableSpec> {
        serde_json::from_str(json).map_err(|error| UnreadableSpec {
            // The text of the error can quote the specification.
            reason: format!(
                "{:?} at line {}, column {}",
                error.classify(),
                error.line(),
                error.column()
            ),
        })
    }

    /// What each row of contact history says of it: canonical JSON text, or
    /// nothing where there are no attributes.
    pub fn attributes_text(&self) -> Option<String> {
        let attributes = sorted(&self.attributes);
        (!attributes.is_empty()).then(|| Value::Object(attributes).to_string())
    }

    /// The `campaign_version`: 64 hexadecimal digits of the SHA-256 of the
    /// canonical JSON.
    pub fn version(&self) -> String {
        Self::version_of(&self.to_json())
    }

    /// The `campaign_version` of what [`RunSpec::to_json`] wrote.
    pub fn version_of(json: &str) -> String {
        hex::encode(Sha256::digest(json.as_bytes()))
    }
}

/// The same map, its keys sorted at every level.
fn sorted(map: &Map<String, Value>) -> Map<String, Value> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    let entries = entries
        .into_iter()
        .map(|(key, value)| (key.clone(), sorted_value(value)));
    entries.collect()
}

fn sorted_value(value: &Value) -> Value {
    match value {
        Value::Object(inner) => Value::Object(sorted(inner)),
        Value::Array(items) => items.iter().map(sorted_value).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(in crate::campaign) fn spec() -> RunSpec {
        let Value::Object(attributes) = json!({"z": 1, "a": {"y": 0.1, "b": null}, "ü": "\"q\""})
        else {
            unreachable!()
        };
        RunSpec {
            campaign: "winback".parse().unwrap(),
            connector: "warehouse".parse().unwrap(),
            priority: 50,
            audience: AudienceSpec {
                key: "profile_id".to_owned(),
                sql: "select profile_id\nfrom lapsed".to_owned(),
            },
            batch_size: NonZeroU32::new(500).unwrap(),
            destination: "email-esp".parse().unwrap(),
            channel: "email".to_owned(),
            max_body: 1_048_576,
            attributes,
            suppress: Vec::new(),
            policy: Policy::default(),
            payload: Payload::default(),
            vars: Map::new(),
            format: Format::Json,
            rejected_at: None,
            expires_after_ms: None,
            expect: Expect::default(),
            fresh_when: None,
            send_window: None,
            canary: None,
        }
    }

    #[test]
    fn a_specification_reads_back_as_it_was_written() {
        let json = spec().to_json();
        assert_eq!(RunSpec::from_json(&json).unwrap().to_json(), json);
        assert_eq!(
            RunSpec::from_json(&json).unwrap().version(),
            spec().version()
        );
    }

    #[test]
    fn its_text_and_version_never_change_between_releases() {
        let expect = concat!(
            r#"{"campaign":"winback","connector":"warehouse","priority":50,"#,
            r#""audience":{"key":"profile_id","sql":"select profile_id\nfrom lapsed"},"#,
            r#""batch_size":500,"destination":"email-esp","channel":"email","max_body":1048576,"#,
            r#""attributes":{"a":{"b":null,"y":0.1},"z":1,"ü":"\"q\""}}"#,
        );
        assert_eq!(spec().to_json(), expect);
        assert_eq!(
            spec().version(),
            "7dd50a7497632dc165273ef10933c03bc3425f06b3771a357b8a815992b13ab1"
        );
    }

    #[test]
    fn a_policy_is_part_of_the_text_and_reads_back() {
        let mut under = spec();
        under.policy.limit = Some(10);
        under.policy.cooldown_secs = Some(60);
        let json = under.to_json();
        assert!(json.ends_with(r#","policy":{"cooldown_secs":60,"limit":10}}"#));
        assert_eq!(RunSpec::from_json(&json).unwrap(), under);
        assert_ne!(under.version(), spec().version());
    }

    #[test]
    fn a_send_window_is_frozen_with_the_run() {
        let mut by_day = spec();
        by_day.send_window = SendWindow::parse("08:00", "20:00", "UTC").ok();
        let json = by_day.to_json();
        assert!(json.ends_with(r#""timezone":"UTC"}}"#), "{json}");
        assert_eq!(RunSpec::from_json(&json).unwrap(), by_day);
    }

    #[test]
    fn every_float_survives_the_ledger() {
        proptest::proptest!(|(float in proptest::num::f64::NORMAL)| {
            let mut before = spec();
            before.attributes.insert("x".to_owned(), json!(float));
            let after = RunSpec::from_json(&before.to_json()).unwrap();
            proptest::prop_assert_eq!(after.to_json(), before.to_json());
        });
    }

    #[test]
    fn a_text_that_is_no_specification_is_refused_without_being_quoted() {
        for bad in [
            "",
            "{}",
            r#"{"campaign":"sekret!"}"#,
            &spec().to_json().replace("priority", "prio"),
        ] {
            let error = RunSpec::from_json(bad).unwrap_err().to_string();
            assert!(!error.contains("sekret"), "{error}");
        }
    }
}
