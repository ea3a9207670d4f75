//! A campaign: a checked value, and the names it may be checked against.

use crate::audience::{AudienceSpec, Dialect, Expect, FreshWhen, Policy};
use crate::delivery::{Format, Payload};
use crate::id::{CampaignName, ConnectorName, DestinationName};
use crate::schedule::Schedule;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

/// A standing order: this audience, at these times, to this destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    /// Its identity, unique in the folder.
    pub name: CampaignName,
    /// What it is for, in its owner's words.
    pub description: Option<String>,
    /// Who to ask about it.
    pub owner: Option<String>,
    /// Whether its schedule fires.
    pub enabled: bool,
    /// The warehouse it asks.
    pub connector: ConnectorName,
    /// 0 to 100; higher is admitted first.
    pub priority: u8,
    /// When it fires.
    pub schedule: Schedule,
    /// Whom it asks for.
    pub audience: AudienceSpec,
    /// Where members go.
    pub activation: Activation,
    /// `contact_history.attributes`: stored with each row, at most 4 KiB.
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// `policy.suppress`: relations with the key column, whose members are
    /// not contacted.
    pub suppress: Vec<String>,
    /// The rest of `policy`.
    pub policy: Policy,
    /// `vars`: what `var` gives in its templates.
    pub vars: serde_json::Map<String, serde_json::Value>,
    /// How large its audience should be.
    pub expect: Expect,
    /// How recent its data must be.
    pub fresh_when: Option<FreshWhen>,
}

/// Where a campaign's members go, and how many at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The destination.
    pub destination: DestinationName,
    /// Members in a batch, at most.
    pub batch_size: NonZeroU32,
    /// Its own templates; empty for the usual body.
    pub payload: Payload,
    /// JSON pointer (RFC 6901) in a 2xx answer to members refused one by one.
    pub rejected_at: Option<String>,
    /// How long after the fire time what is unsent stays unsent, in
    /// milliseconds.
    pub expires_after_ms: Option<u64>,
}

/// The names a campaign file may use: what the operator has defined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The connectors.
    pub connectors: BTreeSet<ConnectorName>,
    /// How each connector's database reads SQL; as Redshift does, which is the
    /// strictest, where one is not listed.
    pub dialects: BTreeMap<ConnectorName, Dialect>,
    /// The destinations.
    pub destinations: BTreeSet<DestinationName>,
    /// The form of the destinations' bodies; JSON where one is not listed.
    pub formats: BTreeMap<DestinationName, Format>,
    /// The connectors whose history is another one's, each with the relation
    /// that shows them the contacts there, if there is one.
    pub histories: BTreeMap<ConnectorName, Option<String>>,
}

impl Known {
    /// How the database behind `connector` reads SQL.
    pub fn dialect_of(&self, connector: Option<&ConnectorName>) -> Dialect {
        let known = connector.and_then(|name| self.dialects.get(name));
        known.copied().unwrap_or(Dialect::Redshift)
    }
}
