//! What the operator has laid down for a destination: how long to go on, and
//! what to do when it is not known whether a batch arrived.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is done with a batch that may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAmbiguous {
    /// Sent again under the same id, inside the dedupe window.
    Resend,
    /// Left for a person.
    Park,
}

/// How deliveries to a destination are retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// The first delay.
    pub retry_initial: Duration,
    /// The longest delay.
    pub retry_max: Duration,
    /// How long after its first attempt a batch is given up.
    pub give_up_after: Duration,
    /// How long the destination promises to remember an id; none promised.
    pub dedupe_window: Option<Duration>,
    /// What is done with a batch that may have arrived.
    pub on_ambiguous: OnAmbiguous,
    /// Statuses by which this destination says that it did nothing, besides
    /// 429.
    pub not_processed: Vec<u16>,
}
