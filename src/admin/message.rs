//! What is said over the control socket: one JSON line each way.

use crate::id::{ConnectorName, RunId};
use crate::run::{Progress, Resolution, RunRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is asked of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// Begins a pause: durable, and no new request leaves.
    Pause {
        /// `all`, `campaign:<name>` or `destination:<name>`.
        scope: String,
    },
    /// Takes a restored warehouse as it is.
    AcceptConnector {
        /// The connector.
        connector: ConnectorName,
    },
    /// Begins a manual run.
    Run {
        /// The campaign, as it was typed.
        campaign: String,
        /// The time its id names; now if none.
        fire_time: Option<Timestamp>,
    },
    /// Looks how a run stands.
    Look {
        /// The run.
        run: RunId,
    },
    /// Lets a held run go on.
    Resume {
        /// The run.
        run: RunId,
    },
    /// Decides a parked batch.
    Resolve {
        /// The run.
        run: RunId,
        /// The batch, and what is known of it.
        resolution: Resolution,
    },
    /// Ends a run early.
    Cancel {
        /// The run.
        run: RunId,
    },
    /// Lifts a pause.
    Unpause {
        /// As it was paused.
        scope: String,
    },
    /// Notes that members are erased, or what came of it.
    NoteErasure {
        /// Where, how many and when.
        erasing: Erasing,
        /// What came of it, if that is known.
        outcome: Option<String>,
    },
}

/// Members being erased. Their keys are said to no one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasing {
    /// The connector.
    pub connector: ConnectorName,
    /// How many keys were listed.
    pub keys: u64,
    /// When it was asked.
    pub at: Timestamp,
}

/// A run as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// As the ledger has it, its specification left out.
    pub record: RunRecord,
    /// As who carries it counts; none while it waits for its turn, or rests.
    pub progress: Option<Progress>,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done, and this is what is to be told.
    Done(String),
    /// A run as it stands.
    Seen(Box<Seen>),
    /// A file with problems is in the way.
    Problems(String),
    /// Nothing would be delivered now.
    Undelivered(String),
    /// What was asked makes no sense here.
    Refused(String),
    /// It could not be done.
    Failed(String),
}
