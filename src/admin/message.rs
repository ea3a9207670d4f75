//! What is said over the control socket: one JSON line each way.

use crate::id::{ConnectorName, RunId};
use crate::run::{Progress, Resolution, RunRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::num::NonZeroU32;

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
        /// How many members are sent first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        canary: Option<NonZeroU32>,
    },
    /// Carries a fire time that was missed or skipped, under its own id.
    RunMissed {
        /// The campaign, as it was typed.
        campaign: String,
        /// The fire time.
        fire_time: Timestamp,
    },
    /// What a run would do now.
    Plan {
        /// The campaign, as it was typed.
        campaign: String,
        /// What of it.
        wish: PlanWish,
    },
    /// The audience count, now.
    Count {
        /// The campaign, as it was typed.
        campaign: String,
    },
    /// Looks how a run stands.
    Look {
        /// The run.
        run: RunId,
    },
    /// How the campaign files are, as they were last read.
    Files,
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

/// What of a plan is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWish {
    /// The first payload's values as they are, not masked.
    pub show_values: bool,
    /// The statement.
    pub sql: bool,
    /// How the warehouse goes about it.
    pub explain: bool,
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
    /// What was asked for, as the command prints it as JSON. May hold members'
    /// values where a person asked for them: never to be logged.
    Told(Value),
    /// A file with problems is in the way.
    Problems(String),
    /// Nothing would be delivered now.
    Undelivered(String),
    /// What was asked makes no sense here.
    Refused(String),
    /// It could not be done.
    Failed(String),
    /// No daemon is here, only a run in the foreground, which has no say in
    /// this: who asked goes on as if nobody had answered.
    NobodyThere,
}
