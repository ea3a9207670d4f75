//! What the ledger keeps, and what changes it. Never a member.

use super::state::{BatchState, RunState};
use crate::audience::Funnel;
use crate::history::{BatchOutcome, BatchStatus, RefusedMember, Tally};
use crate::id::{BatchPath, CampaignName, ConnectorName, MessageId, RunId, Trigger};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Who keeps this ledger: drawn when the ledger is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Installation {
    /// The owner written into `open_runs`.
    pub id: Uuid,
    /// The key of the body hashes, so that they say nothing about bodies.
    pub body_key: [u8; 32],
}

impl fmt::Debug for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installation")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// How far a campaign's schedule has been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The hash of the schedule it belongs to.
    pub schedule_hash: String,
    /// Every fire time up to and including this instant has been taken.
    pub seen_until: Timestamp,
    /// That schedule, read by `schedule` alone: what it leaves behind when it
    /// is edited while nothing runs. None where an earlier version wrote it.
    pub schedule: Option<String>,
    /// Whether the campaign was disabled: time spent so is not missed.
    pub is_disabled: bool,
}

/// A run about to be written into the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// Its id.
    pub run: RunId,
    /// Its campaign.
    pub campaign: CampaignName,
    /// Its connector.
    pub connector: ConnectorName,
    /// The nominal instant it is for.
    pub fire_time: Timestamp,
    /// Why it exists.
    pub trigger: Trigger,
    /// The hash of its specification.
    pub campaign_version: String,
    /// Its specification: canonical JSON, read by `campaign` alone. Shared by
    /// the runs of a claim, which may be thousands.
    pub spec: Arc<str>,
    /// `Queued`, `Missed` or `Skipped`.
    pub state: RunState,
    /// Why it was never started, where it was not.
    pub error: Option<String>,
}

/// Fire times taken from a schedule, with the cursor that says so: one
/// transaction, so that each is taken exactly once.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose schedule.
    pub campaign: CampaignName,
    /// The cursor the fire times were computed from.
    pub before: Option<Cursor>,
    /// The cursor from now on.
    pub after: Cursor,
    /// A run for each fire time, in order.
    pub runs: Vec<NewRun>,
    /// The wall clock.
    pub at: Timestamp,
}

/// A run, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub run: RunId,
    /// Its campaign.
    pub campaign: CampaignName,
    /// Its connector.
    pub connector: ConnectorName,
    /// The nominal instant it is for.
    pub fire_time: Timestamp,
    /// Why it exists.
    pub trigger: Trigger,
    /// The hash of its specification.
    pub campaign_version: String,
    /// Its specification: canonical JSON, read by `campaign` alone. It is not
    /// told to who only looks at the run.
    #[serde(skip)]
    pub spec: String,
    /// Where it is.
    pub state: RunState,
    /// The term of the lease taken last; 0 before the first.
    pub term: i32,
    /// When it was written into the ledger.
    pub claimed_at: Timestamp,
    /// When it left `Queued`.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How long it worked before it sent anything, from staging on: without
    /// what it waited for turns at the warehouse, and between two tries. None
    /// where it has not come so far.
    #[serde(default)]
    pub asked: Option<Duration>,
    /// What admission counted.
    pub funnel: Option<Funnel>,
    /// What the last settle counted.
    pub tally: Option<Tally>,
    /// Why it failed or is held, scrubbed of data.
    pub error: Option<String>,
}

/// A run that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRun {
    /// The run, which is held.
    pub record: RunRecord,
    /// Whether any of it was sent. Then it stands in the way of its campaign's
    /// next run as an open one does; else it counts for nothing.
    pub has_sent: bool,
}

/// A move of a run from one state to the next, with what became known.
#[derive(Debug, Clone)]
pub struct RunChange {
    /// The run.
    pub run: RunId,
    /// The lease's term, which the run must be under: [`RunRecord::term`].
    pub term: i32,
    /// The state it must be in.
    pub from: RunState,
    /// The state it is in afterwards; may be the same.
    pub to: RunState,
    /// The wall clock. Becomes `started_at` when `from` is `Queued`, and
    /// `finished_at` when `to` is not open.
    pub at: Timestamp,
    /// Kept as it is where none.
    pub asked: Option<Duration>,
    /// Kept as it is where none.
    pub funnel: Option<Funnel>,
    /// Kept as it is where none.
    pub tally: Option<Tally>,
    /// Kept as it is where none; there is none any more where it is empty.
    pub error: Option<String>,
}

/// The intent to send a batch, durable before the request leaves.
#[derive(Debug, Clone)]
pub struct AttemptBegun {
    /// The run.
    pub run: RunId,
    /// The lease's term, which the run must be under: [`RunRecord::term`].
    pub term: i32,
    /// The batch.
    pub path: BatchPath,
    /// See [`MessageId::of`].
    pub generation: u32,
    /// Which attempt this is, from 1. The first must find no row, a later one
    /// the attempt before it, `Waiting` or `Ambiguous`.
    pub attempt: u32,
    /// Members in the batch.
    pub members: u32,
    /// HMAC-SHA-256 of the body under the installation's key. A later attempt
    /// must bring the same.
    pub body_hash: [u8; 32],
    /// The first and the last place of a part of a batch.
    pub places: Option<(u64, u64)>,
    /// The wall clock.
    pub at: Timestamp,
}

/// A move of a batch.
#[derive(Debug, Clone)]
pub struct BatchChange {
    /// The run.
    pub run: RunId,
    /// The lease's term, which the run must be under: [`RunRecord::term`].
    pub term: i32,
    /// The batch.
    pub path: BatchPath,
    /// The attempt it must be at.
    pub attempt: u32,
    /// The state it must be in.
    pub from: BatchState,
    /// The state it is in afterwards.
    pub to: BatchState,
    /// How it ended, where `to` has ended.
    pub status: Option<BatchStatus>,
    /// The status code, if one was read.
    pub http_status: Option<u16>,
    /// The wall clock.
    pub at: Timestamp,
    /// When it is sent again, where `to` is `Waiting` or `Ambiguous`.
    pub next_at: Option<Timestamp>,
    /// Time since its first attempt that it rested for us; never less than
    /// before.
    pub excused: Duration,
    /// Why, in our words; never the receiver's.
    pub error: Option<String>,
    /// The places of the members that its receiver refused one by one.
    pub refused: Vec<u64>,
}

/// A batch, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// The batch.
    pub path: BatchPath,
    /// See [`MessageId::of`].
    pub generation: u32,
    /// Where it is.
    pub state: BatchState,
    /// How it ended, if it has.
    pub status: Option<BatchStatus>,
    /// Attempts begun.
    pub attempts: u32,
    /// Members in it.
    pub members: u32,
    /// The keyed hash of its body.
    pub body_hash: [u8; 32],
    /// When its first request was begun.
    pub first_sending_at: Timestamp,
    /// When it is sent again.
    pub next_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub ended_at: Option<Timestamp>,
    /// Time since its first attempt that it rested for us.
    pub excused: Duration,
    /// Whether any attempt of it may have arrived; never cleared.
    pub was_ambiguous: bool,
    /// The last status code.
    pub http_status: Option<u16>,
    /// Why it was not accepted, in our words.
    pub error: Option<String>,
    /// Whether the warehouse has its outcome.
    pub settled: bool,
    /// The first and the last place of a part of a batch.
    pub places: Option<(u64, u64)>,
    /// The places of the members that its receiver refused one by one.
    pub refused: Vec<u64>,
}

impl BatchRecord {
    /// The newest instant the ledger has of it.
    pub(super) fn newest(&self) -> Timestamp {
        self.ended_at
            .map_or(self.first_sending_at, |at| at.max(self.first_sending_at))
    }

    /// Adds its members to a tally of what has ended.
    pub(super) fn count(&self, tally: &mut Tally) {
        let Some(status) = self.status else {
            return;
        };
        let refused = self.refused.len() as u64;
        let members = u64::from(self.members);
        tally.add(BatchStatus::Rejected, refused.min(members));
        tally.add(status, members.saturating_sub(refused));
    }

    /// Its row for the warehouse, if it has ended.
    pub fn outcome(&self, run: &RunId) -> Option<BatchOutcome> {
        Some(BatchOutcome {
            path: self.path.clone(),
            message_id: MessageId::of(run, &self.path, self.generation),
            status: self.status?,
            members: self.members,
            attempts: self.attempts,
            http_status: self.http_status,
            first_attempt_at: Some(self.first_sending_at),
            settled_at: self.ended_at?,
            error: self.error.clone(),
            places: self.places,
            refused: self
                .refused
                .iter()
                .map(|&place| RefusedMember {
                    place,
                    reason: None,
                })
                .collect(),
        })
    }
}

/// What a person asks of a run that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reopening {
    /// What is not delivered is sent.
    Resume,
    /// A run that never got as far as numbering its members is begun again.
    BeginAgain,
    /// The same with a run whose audience was not what its campaign expects:
    /// the person has seen it, and it is not held for that again.
    BeginApproved,
    /// A parked batch is decided.
    Resolve(Resolution),
}

/// What a person knows of a parked batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// The batch, as [`BatchPath`] writes it.
    #[serde(with = "as_text")]
    pub path: BatchPath,
    /// Whether its receiver has it. What it has not is failed, and sent under
    /// another message id when the run is resumed.
    pub delivered: bool,
}

mod as_text {
    use super::BatchPath;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(path: &BatchPath, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(path)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BatchPath, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// An ended run that is opened again.
#[derive(Debug, Clone)]
pub struct Reopen {
    /// The run.
    pub run: RunId,
    /// Its campaign.
    pub campaign: CampaignName,
    /// The state it must be in.
    pub from: RunState,
    /// The open state it is in afterwards.
    pub to: RunState,
    /// What for: kept until [`crate::run::Ledger::apply_reopening`].
    pub reopening: Reopening,
    /// What is said of it from then on in place of why it ended.
    pub error: Option<String>,
    /// The wall clock.
    pub at: Timestamp,
}

/// A run taken over from a daemon that was lost, of which only the warehouse
/// knows. It has ended, and is written down so that a person can decide.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// The run; `Incomplete`, or `Failed` where nothing was sent.
    pub run: NewRun,
    /// When it was begun, as far as that is known.
    pub started_at: Timestamp,
    /// The wall clock.
    pub at: Timestamp,
    /// What admission counted.
    pub funnel: Funnel,
    /// Where its members are, once its batches are parked.
    pub tally: Tally,
    /// The batches of which it is not known what was sent.
    pub parked: Vec<BatchOutcome>,
}
