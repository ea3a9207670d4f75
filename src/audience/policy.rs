//! Who of an audience is not contacted, and why.

use super::caps::FrequencyCap;
use super::holdout::Holdout;
use super::limit::OrderBy;
use serde::{Deserialize, Serialize};

/// The part of a campaign's `policy` that is frozen in the run specification
/// beside `suppress`. A member falls out for the first reason that holds, in
/// this order: `suppressed`, `held_out`, `capped`, `cooling_down`,
/// `over_limit`. The first two are decided when the audience is frozen, the
/// others when it is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Nobody is contacted more often than any of these allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frequency_cap: Vec<FrequencyCap>,
    /// For how long, in seconds, this campaign leaves alone whom it has
    /// contacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_secs: Option<u64>,
    /// Who is left out to measure the effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
    /// The most members a run contacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Who comes first: within the limit, and among the rows of one key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_by: Vec<OrderBy>,
}

/// A policy that lets everybody pass.
pub(super) static NONE: Policy = Policy {
    frequency_cap: Vec::new(),
    cooldown_secs: None,
    holdout: None,
    limit: None,
    order_by: Vec::new(),
};

impl Policy {
    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == NONE
    }

    /// Whether earlier contacts decide who is contacted.
    pub fn counts_contacts(&self) -> bool {
        !self.frequency_cap.is_empty() || self.cooldown_secs.is_some()
    }

    /// Whether it may leave out some of `members` when they are admitted.
    pub fn decides_on(&self, members: u64) -> bool {
        self.counts_contacts() || self.limit.is_some_and(|limit| members > limit)
    }

    /// Whether the stage keeps the order that the limit is taken in.
    pub(super) fn keeps_order(&self) -> bool {
        self.limit.is_some() && !self.order_by.is_empty()
    }
}
