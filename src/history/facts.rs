//! What is known of a run when its rows are written.

use crate::audience::AudienceSpec;
use crate::audience::Cut;
use crate::audience::Funnel;
use crate::audience::Policy;
use crate::id::{BatchPath, CampaignName, DestinationName, MessageId, RunId, Trigger};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Everything of a run that reaches a statement and does not change while it
/// is open. Made from its run specification and nothing else, so that an
/// edited campaign file cannot change a run under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// The run.
    pub run: RunId,
    /// Its campaign.
    pub campaign: CampaignName,
    /// The hash of its run specification.
    pub campaign_version: String,
    /// The nominal instant it is for.
    pub fire_time: Timestamp,
    /// Why it exists.
    pub trigger: Trigger,
    /// When it was begun.
    pub started_at: Timestamp,
    /// Who is asked for.
    pub audience: AudienceSpec,
    /// Members per batch; at least 1.
    pub batch_size: u32,
    /// Where it is sent.
    pub destination: DestinationName,
    /// How a person is reached, as recorded.
    pub channel: String,
    /// JSON text stored with each row of contact history; at most 4 KiB.
    pub attributes: Option<String>,
    /// The installation that carries the run.
    pub owner: Uuid,
    /// The lease term under which it does.
    pub term: i32,
    /// The relations, with the key column, whose members are not contacted.
    pub suppress: Vec<String>,
    /// Who else is not.
    pub policy: Policy,
    /// How many members are sent before anybody else; 0 where none are.
    pub canary: u32,
}

impl RunFacts {
    /// How its members are cut into batches.
    pub fn cut(&self) -> Cut {
        Cut::new(self.batch_size, self.canary)
    }
}

/// How a settled batch ended, as history records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// The destination answered with a 2xx.
    Delivered,
    /// The destination refused it.
    Rejected,
    /// Given up after definite noes.
    Failed,
    /// May have arrived; counts as a contact.
    Unknown,
    /// Not sent, because the run was cancelled or expired.
    Cancelled,
}

impl BatchStatus {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether frequency caps count it: what arrived, or may have.
    pub fn counts_as_contact(self) -> bool {
        matches!(self, Self::Delivered | Self::Unknown)
    }
}

impl std::str::FromStr for BatchStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [
            Self::Delivered,
            Self::Rejected,
            Self::Failed,
            Self::Unknown,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| format!("`{text}` is not a batch status"))
    }
}

/// One ended batch, on its way into `deliveries` and `contact_history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Which batch.
    pub path: BatchPath,
    /// The id it was sent under.
    pub message_id: MessageId,
    /// How it ended.
    pub status: BatchStatus,
    /// Members in it.
    pub members: u32,
    /// Requests made.
    pub attempts: u32,
    /// The last status code, if any was read.
    pub http_status: Option<u16>,
    /// When its first request was begun; none if it never was.
    pub first_attempt_at: Option<Timestamp>,
    /// When it ended.
    pub settled_at: Timestamp,
    /// Why it was not delivered, in our words, at most 512 bytes.
    pub error: Option<String>,
    /// The first and the last place in the run's table, both inclusive, of a
    /// part of a batch; none for a whole one.
    pub places: Option<(u64, u64)>,
    /// The members of an accepted batch that its receiver refused one by one.
    pub refused: Vec<RefusedMember>,
}

/// A member that the receiver of its batch did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedMember {
    /// The place in the run's table.
    pub place: u64,
    /// The receiver's words, as long as they are remembered.
    pub reason: Option<String>,
}

/// A run's row in `runs`, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// Under way.
    Open,
    /// Every planned member is delivered or rejected.
    Finished,
    /// Some planned members were not delivered.
    Incomplete,
    /// Ended without sending, by an error.
    Failed,
    /// Stopped, waiting for a person.
    Held,
    /// A fire time that passed while nothing was running.
    Missed,
    /// A fire time that the campaign's rules left out.
    Skipped,
    /// Stopped for good by a person.
    Cancelled,
}

impl RunStatus {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Finished => "finished",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Missed => "missed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Ended batches of one run, to be written in one transaction.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The run.
    pub facts: Arc<RunFacts>,
    /// Its funnel, as admission counted it.
    pub funnel: Funnel,
    /// What `runs` says of it from now on.
    pub status: RunStatus,
    /// Why it is held, where it is.
    pub error: Option<String>,
    /// The batches; those that `deliveries` has already are passed over.
    pub outcomes: Arc<[BatchOutcome]>,
    /// Whether members who have a row in history are passed over: those of a
    /// batch of which only a part is known.
    pub fills_gaps: bool,
    /// Whether the run's `deliveries` are counted, which are as many as its
    /// batches, and not only the outcomes added to what its row says.
    pub counts_anew: bool,
}

/// The end of a run: its last row in `runs`, its tables dropped.
#[derive(Debug, Clone)]
pub struct Closing {
    /// The run.
    pub facts: Arc<RunFacts>,
    /// Its funnel; all zero where it failed before admission.
    pub funnel: Funnel,
    /// How it ended.
    pub status: RunStatus,
    /// When.
    pub finished_at: Timestamp,
    /// Why it failed, if it did, scrubbed of data.
    pub error: Option<String>,
    /// Why what was not sent is cancelled, if it is: rows for each member of
    /// it.
    pub cancels_rest: Option<String>,
    /// Whether its run table stays, for a later resume or resolve.
    pub keep_run_table: bool,
    /// Whether each withheld member has a row in history, and not only a count
    /// in `runs`.
    pub withheld_rows: bool,
}

/// Where a run's planned members are. The rule that holds at every commit:
/// the fields add up to the funnel's `planned`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Accepted by the destination.
    pub delivered: u64,
    /// Refused by it.
    pub rejected: u64,
    /// Given up.
    pub failed: u64,
    /// May have arrived.
    pub unknown: u64,
    /// Not sent on purpose.
    pub cancelled: u64,
    /// Not ended yet.
    pub still_open: u64,
}

impl Tally {
    /// Adds `members` that ended with `status`.
    pub fn add(&mut self, status: BatchStatus, members: u64) {
        match status {
            BatchStatus::Delivered => self.delivered += members,
            BatchStatus::Rejected => self.rejected += members,
            BatchStatus::Failed => self.failed += members,
            BatchStatus::Unknown => self.unknown += members,
            BatchStatus::Cancelled => self.cancelled += members,
        }
    }

    /// All members it counts.
    pub fn total(&self) -> u64 {
        self.undelivered() + self.delivered
    }

    /// Members that were planned and not delivered.
    pub fn undelivered(&self) -> u64 {
        self.rejected + self.failed + self.unknown + self.cancelled + self.still_open
    }
}

/// A fire time that no run was started for: its row in `runs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnstartedRun {
    /// The id the run would have had.
    pub run: RunId,
    /// Its campaign.
    pub campaign: CampaignName,
    /// The hash of the specification it would have had.
    pub campaign_version: String,
    /// The fire time.
    pub fire_time: Timestamp,
    /// [`RunStatus::Missed`] or [`RunStatus::Skipped`].
    pub status: RunStatus,
    /// Why, in our words.
    pub reason: String,
}
