//! The states of a run and of a batch, and what moves them.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Where a run is. Stored under these names: never rename one.
///
/// Each state is entered by a durable write in the ledger before the work it
/// names begins, and that work can be begun again: a crash in a state is
/// answered by doing the state's work once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Claimed, waiting for a run permit. Left by the host that claimed it.
    /// Nothing is in the warehouse yet.
    Queued,
    /// Waiting until the campaign's data is fresh, without a permit. Left by
    /// the freshness query's answer.
    WaitingFresh,
    /// Registering in `open_runs` and freezing the audience. A crash leaves a
    /// complete stage table or none.
    Staging,
    /// Deciding under `cap_lock` who is contacted, and laying out the run
    /// table. A crash leaves each table complete or absent.
    Admitting,
    /// Comparing the funnel with what the campaign expects.
    Guarding,
    /// Sending batches, settling every minute. A crash leaves batches
    /// `sending`, which are ambiguous.
    Sending,
    /// Every batch has ended; the last outcomes go to the warehouse.
    Settling,
    /// Final row, tables dropped, out of `open_runs`.
    Closing,
    /// Ended: every planned member is delivered or rejected.
    Finished,
    /// Ended: some planned members were not delivered.
    Incomplete,
    /// Ended by an error before anything was sent.
    Failed,
    /// Stopped, waiting for a person.
    Held,
    /// Ended by a person, or because its time was over before it had begun.
    Cancelled,
    /// Never started: the fire time passed while nothing was running.
    Missed,
    /// Never started: the campaign's rules left the fire time out.
    Skipped,
}

impl RunState {
    const ALL: [Self; 15] = [
        Self::Queued,
        Self::WaitingFresh,
        Self::Staging,
        Self::Admitting,
        Self::Guarding,
        Self::Sending,
        Self::Settling,
        Self::Closing,
        Self::Finished,
        Self::Incomplete,
        Self::Failed,
        Self::Held,
        Self::Cancelled,
        Self::Missed,
        Self::Skipped,
    ];

    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::WaitingFresh => "waiting_fresh",
            Self::Staging => "staging",
            Self::Admitting => "admitting",
            Self::Guarding => "guarding",
            Self::Sending => "sending",
            Self::Settling => "settling",
            Self::Closing => "closing",
            Self::Finished => "finished",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Cancelled => "cancelled",
            Self::Missed => "missed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether a host still has work to do for it.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Self::Queued
                | Self::WaitingFresh
                | Self::Staging
                | Self::Admitting
                | Self::Guarding
                | Self::Sending
                | Self::Settling
                | Self::Closing
        )
    }

    /// The state after `event`.
    pub fn after(self, event: RunEvent) -> Result<Self, IllegalTransition> {
        use RunEvent as E;
        match (self, event) {
            (Self::Queued, E::Admitted) => Ok(Self::Staging),
            (Self::Queued, E::MustBeFresh) => Ok(Self::WaitingFresh),
            (Self::WaitingFresh, E::Fresh) => Ok(Self::Staging),
            (Self::Queued | Self::WaitingFresh, E::Expired) => Ok(Self::Cancelled),
            (Self::WaitingFresh, E::Broken) => Ok(Self::Failed),
            (Self::Staging, E::Frozen) => Ok(Self::Admitting),
            (Self::Queued | Self::Staging, E::TakenElsewhere) => Ok(Self::Skipped),
            (Self::Sending | Self::Settling | Self::Closing, E::TakenElsewhere) => {
                Ok(Self::Incomplete)
            }
            (Self::Admitting, E::LaidOut) => Ok(Self::Guarding),
            (Self::Guarding, E::WithinExpected) => Ok(Self::Sending),
            (Self::Guarding, E::OutsideExpected) => Ok(Self::Held),
            (Self::Sending, E::LastBatchEnded) => Ok(Self::Settling),
            (Self::Sending, E::Stopped) => Ok(Self::Held),
            (
                Self::Queued
                | Self::WaitingFresh
                | Self::Staging
                | Self::Admitting
                | Self::Guarding,
                E::CancelAsked,
            ) => Ok(Self::Cancelled),
            (Self::Sending, E::CancelAsked) => Ok(Self::Settling),
            (Self::Held, E::CancelAsked | E::Resumed) => Ok(Self::Sending),
            (Self::Incomplete | Self::Cancelled, E::Resumed) => Ok(Self::Sending),
            (Self::Incomplete | Self::Cancelled, E::Resolved) => Ok(Self::Settling),
            (
                Self::Failed | Self::Cancelled | Self::Held | Self::Missed | Self::Skipped,
                E::BegunAgain,
            ) => Ok(Self::Queued),
            (Self::Sending | Self::Settling, E::CannotReopen) => Ok(Self::Incomplete),
            (Self::Queued, E::CannotReopen) => Ok(Self::Failed),
            (Self::Closing, E::ClosedCancelled) => Ok(Self::Cancelled),
            (Self::Settling, E::HistoryWritten) => Ok(Self::Closing),
            (Self::Closing, E::ClosedWhole) => Ok(Self::Finished),
            (Self::Closing, E::ClosedWithGaps) => Ok(Self::Incomplete),
            (Self::Queued | Self::Staging | Self::Admitting | Self::Guarding, E::Broken) => {
                Ok(Self::Failed)
            }
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }
}

impl FromStr for RunState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a run state"))
    }
}

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// It got its run permit.
    Admitted,
    /// The same, and its data must be recent.
    MustBeFresh,
    /// Its data is.
    Fresh,
    /// Its audience is frozen in the warehouse.
    Frozen,
    /// The warehouse says that somebody else carries it, or did.
    TakenElsewhere,
    /// Its planned members are numbered and laid out.
    LaidOut,
    /// Its funnel is what the campaign expects.
    WithinExpected,
    /// Its funnel is not.
    OutsideExpected,
    /// Each batch has ended.
    LastBatchEnded,
    /// The destination does not take what is sent; a person must look.
    Stopped,
    /// A person has cancelled it. A held run is taken up once more, to write
    /// down what was not sent.
    CancelAsked,
    /// Its time was over before it had begun.
    Expired,
    /// A person lets a held run go on from what is not yet delivered, or one
    /// that has ended.
    Resumed,
    /// A person has decided a parked batch of a run that has ended.
    Resolved,
    /// A person has a run begun again that ended before its members were
    /// numbered.
    BegunAgain,
    /// The warehouse does not have any more what it takes to open an ended
    /// run again.
    CannotReopen,
    /// Every outcome is in contact history.
    HistoryWritten,
    /// Closed, with every planned member delivered or rejected.
    ClosedWhole,
    /// Closed, with members that were not delivered.
    ClosedWithGaps,
    /// Closed, with what was not sent cancelled by a person.
    ClosedCancelled,
    /// An error that trying again cannot mend, before anything was sent.
    Broken,
}

/// An event that the run's state does not know: a bug, not a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {state:?} cannot take {event:?}")]
pub struct IllegalTransition {
    /// The state it was in.
    pub state: RunState,
    /// What happened.
    pub event: RunEvent,
}

/// Where a batch is. No row in the ledger: not attempted. Stored under these
/// names: never rename one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchState {
    /// Bytes may have left. Left by an outcome; after a crash it is ambiguous.
    Sending,
    /// A definite no; sent again at a time.
    Waiting,
    /// Refused and cut in two; its parts carry on.
    Split,
    /// A 2xx status line was read. Left by settle.
    Accepted,
    /// Refused for good, or given up on definite noes. Left by settle.
    Refused,
    /// May have arrived; sent again inside the dedupe window, else parked.
    Ambiguous,
    /// A person decides; in history as unknown.
    Parked,
}

impl BatchState {
    const ALL: [Self; 7] = [
        Self::Sending,
        Self::Waiting,
        Self::Split,
        Self::Accepted,
        Self::Refused,
        Self::Ambiguous,
        Self::Parked,
    ];

    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Split => "split",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Ambiguous => "ambiguous",
            Self::Parked => "parked",
        }
    }

    /// Whether it is ready to be settled.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Accepted | Self::Refused | Self::Parked)
    }
}

impl FromStr for BatchState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a batch state"))
    }
}
