//! What the engine needs from the world, as traits.

use super::actions::{Action, Forget};
use super::lease::Lease;
use super::pauses::{PauseChange, PauseScope, Paused};
use super::records::{
    Adopted, AttemptBegun, BatchChange, BatchRecord, Claim, Cursor, HeldRun, Installation, NewRun,
    Reopen, Reopening, Resolution, RunChange, RunRecord,
};
use crate::audience::{Dialect, FreshWhen, Funnel};
use crate::delivery::{Outcome, Page};
use crate::history::{
    BatchStatus, Closing, Remains, Retention, RunFacts, Settlement, SilentRun, Tally, Tidied,
    UnstartedRun, Withheld,
};
use crate::id::{BatchPath, CampaignName, ConnectorName, MessageId, RunId};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What can be done about a warehouse error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarehouseErrorClass {
    /// The connection was lost: what became of the statement is not known.
    /// Every step can be repeated, so: again.
    Lost,
    /// Two transactions met: the whole transaction again.
    Conflict,
    /// The warehouse is out of connections, memory or slots: again, slowly.
    Busy,
    /// The statement ran too long or was cancelled from outside: once more.
    Cancelled,
    /// Login, rights, TLS, tables that are not there: a person must act.
    Configuration,
    /// The statement is wrong or met data it cannot take: never again.
    Statement,
}

/// A warehouse error, scrubbed of data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WarehouseError {
    /// What can be done.
    pub class: WarehouseErrorClass,
    /// The warehouse's own code, if it gave one: SQLSTATE, or SQLite's.
    pub code: Option<String>,
    /// What happened, and the one thing to do where it is a person's move.
    pub message: String,
    /// Line and column in the campaign's own SQL, both from 1, where known.
    pub place: Option<(usize, usize)>,
}

/// The code of an error that says that the run is not ours, or not any more.
pub const NOT_OURS: &str = "not ours";

/// The code of an error that says that an ended run cannot be opened again.
pub const GONE: &str = "gone";

/// What an ended run cannot be opened again for.
pub fn gone(message: impl Into<String>) -> WarehouseError {
    WarehouseError {
        class: WarehouseErrorClass::Statement,
        code: Some(GONE.to_owned()),
        message: message.into(),
        place: None,
    }
}

impl WarehouseError {
    /// Whether it says that an ended run cannot be opened again.
    pub fn is_gone(&self) -> bool {
        self.code.as_deref() == Some(GONE)
    }

    /// Whether it says that somebody else has the run.
    pub fn is_not_ours(&self) -> bool {
        self.code.as_deref() == Some(NOT_OURS)
    }

    /// Whether asking again later can help.
    pub fn is_transient(&self) -> bool {
        use WarehouseErrorClass as C;
        match self.class {
            C::Lost | C::Conflict | C::Busy | C::Cancelled => true,
            C::Configuration | C::Statement => false,
        }
    }
}

/// What registering found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// The run is ours: registered now, or by us before.
    Ours,
    /// Somebody else carries it, or it has ended: nothing to do here.
    Taken {
        /// Who or how, for the log.
        by: String,
    },
}

/// The warehouse: audiences come out, contact history goes in.
///
/// Every step may be repeated after an error or a crash: it looks at what the
/// tables say and does what is missing.
#[async_trait]
pub trait Warehouse: Send + Sync {
    /// The SQL it speaks.
    fn dialect(&self) -> Dialect;

    /// Whether it answers, the login holds and our tables are there.
    async fn ping(&self) -> Result<(), WarehouseError>;

    /// How recent the run's data is; none where there is none.
    async fn newest_data(
        &self,
        _run: &RunFacts,
        _fresh_when: &FreshWhen,
    ) -> Result<Option<Timestamp>, WarehouseError> {
        Ok(None)
    }

    /// Writes the run into `open_runs`, which makes it ours.
    async fn register(&self, run: &RunFacts) -> Result<Registration, WarehouseError>;

    /// Freezes the audience into the stage table.
    async fn freeze(&self, run: &RunFacts) -> Result<(), WarehouseError>;

    /// Decides who is contacted, and numbers them from 1.
    async fn admit(&self, run: &RunFacts) -> Result<Funnel, WarehouseError>;

    /// Writes the run table and drops the stage.
    async fn lay_out(&self, run: &RunFacts) -> Result<(), WarehouseError>;

    /// The planned members at `places`, from and to, both inclusive, in order:
    /// as many of them as come to `most_bytes`, but one at least.
    async fn page(
        &self,
        run: &RunFacts,
        places: (u64, u64),
        most_bytes: usize,
    ) -> Result<Page, WarehouseError>;

    /// Writes ended batches into history: all of `settlements`, each of
    /// another run, in one transaction. Returns each run's tally afterwards, in their order.
    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Tally>, WarehouseError>;

    /// Writes the run's last row, takes it out of `open_runs`, drops its tables.
    async fn close(&self, closing: &Closing) -> Result<Tally, WarehouseError>;

    /// Writes rows for fire times that no run was started for.
    async fn record_unstarted(&self, runs: &[UnstartedRun]) -> Result<(), WarehouseError>;

    /// Withholds the members who are suppressed by now, of the batches from
    /// `from` on, save those `except`.
    async fn withhold(
        &self,
        _run: &RunFacts,
        _from: u32,
        _except: &[u32],
    ) -> Result<(), WarehouseError> {
        Ok(())
    }

    /// Makes a run that has ended an open one of ours again, and what it did
    /// not deliver still open where `resends`. [`GONE`] if its table is not
    /// there any more, or history has more of it than `known`, what the
    /// ledger has settled of it. Returns the tally afterwards.
    async fn reopen(
        &self,
        _run: &RunFacts,
        _funnel: &Funnel,
        _known: &Tally,
        _resends: bool,
    ) -> Result<Tally, WarehouseError> {
        Err(gone("this warehouse does not open runs again"))
    }

    /// Forgets the row of a run that ended before its members were numbered,
    /// so that it can be begun again. [`GONE`] if it was not so.
    async fn forget_unstaged(&self, _run: &RunFacts) -> Result<(), WarehouseError> {
        Err(gone("this warehouse does not open runs again"))
    }

    /// Who has been withheld since the members were numbered.
    async fn withheld(&self, _run: &RunFacts) -> Result<Withheld, WarehouseError> {
        Ok(Withheld::default())
    }

    /// Removes what has been kept long enough, of runs that have ended; never
    /// the row of `except`, nor of a campaign's newest run.
    async fn tidy(
        &self,
        _keep: Retention,
        _except: Option<&RunId>,
    ) -> Result<Tidied, WarehouseError> {
        Ok(Tidied::default())
    }

    /// Whether `runs` has the run.
    async fn has_run(&self, _run: &RunId) -> Result<bool, WarehouseError> {
        Ok(true)
    }

    /// Shows in `open_runs` that the run is alive; an error if it is not ours.
    async fn touch(&self, _run: &RunFacts) -> Result<(), WarehouseError> {
        Ok(())
    }

    /// The runs of any daemon not seen for longer than `older_than`, by the
    /// warehouse's clock.
    async fn silent_runs(&self, _older_than: Duration) -> Result<Vec<SilentRun>, WarehouseError> {
        Ok(Vec::new())
    }

    /// Makes a run `by`'s own that is still silent for longer than
    /// `older_than`, and says what is known of it; nothing if it is not.
    async fn adopt(
        &self,
        _silent: &SilentRun,
        _by: Uuid,
        _older_than: Duration,
    ) -> Result<Option<Remains>, WarehouseError> {
        Ok(None)
    }
}

/// One request, ready to be signed and sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// `webhook-id` and `Idempotency-Key`.
    pub id: MessageId,
    /// This attempt's `webhook-timestamp`.
    pub at: Timestamp,
    /// The same bytes in every attempt.
    pub body: Bytes,
    /// Where a 2xx answer lists the members it refused one by one: a JSON
    /// pointer.
    pub rejected_at: Option<Arc<str>>,
    /// What the body is.
    pub content_type: &'static str,
    /// What else goes with it, the same in every attempt: names in lower case,
    /// values in visible ASCII.
    pub headers: Arc<[(&'static str, String)]>,
}

/// A channel's endpoint.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Makes one attempt, bounded by the destination's time-out. Never
    /// retries, never follows a redirect.
    async fn attempt(&self, request: Request) -> Outcome;

    /// Whether a connection to it can be had now; nothing is sent. Otherwise
    /// what is in the way, with the host and its port, for a person.
    async fn reach(&self) -> Result<(), String>;
}

/// A ledger error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A transition did not find what it expects: somebody else was here.
    #[error("the ledger does not have {what} as expected")]
    Conflict {
        /// Which run, batch or cursor.
        what: String,
    },
    /// A later attempt's body differs from the first one's.
    #[error("the body of batch {path} of {run} has changed since it was first sent")]
    BodyChanged {
        /// The run.
        run: RunId,
        /// The batch.
        path: BatchPath,
    },
    /// Another process has it open.
    #[error(
        "the state store {store} is in use by another campaignd; stop it, or let it do the work"
    )]
    InUse {
        /// Which store.
        store: String,
    },
    /// It cannot be read or written.
    #[error("the state store cannot be used: {message}")]
    Unusable {
        /// What happened, and what to do.
        message: String,
    },
}

/// Our own book: what was intended and what came of it; never a member.
///
/// A write that returns `Ok` is durable.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Who keeps it.
    fn installation(&self) -> &Installation;

    /// How far the campaign's schedule has been looked at.
    async fn cursor(&self, campaign: &CampaignName) -> Result<Option<Cursor>, LedgerError>;

    /// Takes fire times of different campaigns together, each as
    /// [`Self::claim`] would: an answer for each, in their order.
    async fn claim_all(&self, claims: Vec<Claim>) -> Vec<Result<Vec<RunId>, LedgerError>>;

    /// Takes fire times: refused with [`LedgerError::Conflict`] unless the
    /// cursor is still `before`. A fire time that has a run already is passed
    /// over. Returns the ids of the runs written.
    async fn claim(&self, claim: Claim) -> Result<Vec<RunId>, LedgerError> {
        let answer = self.claim_all(vec![claim]).await.pop();
        answer.expect("each claim is answered")
    }

    /// Writes a manual run under the next free number, in place of the id it
    /// brings; refused while the campaign has an open run, or a held one of
    /// which something was sent.
    async fn claim_manual(&self, run: NewRun, at: Timestamp) -> Result<RunId, LedgerError>;

    /// The run, if the ledger has it.
    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>, LedgerError>;

    /// The newest runs first, of one campaign or of all.
    async fn runs(
        &self,
        campaign: Option<&CampaignName>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, LedgerError>;

    /// The newest fire times that were missed or skipped, as runs that were
    /// never started, without their specifications.
    async fn unstarted_runs(&self, limit: u32) -> Result<Vec<RunRecord>, LedgerError> {
        self.runs(None, limit).await
    }

    /// The newest scheduled run of the campaign, beside `run`, that is finished
    /// or incomplete.
    async fn last_scheduled(
        &self,
        _campaign: &CampaignName,
        _run: &RunId,
    ) -> Result<Option<RunRecord>, LedgerError> {
        Ok(None)
    }

    /// Every run that is open, in the order of their fire times.
    async fn open_runs(&self) -> Result<Vec<RunRecord>, LedgerError>;

    /// The open runs of one campaign, in the order of their fire times.
    async fn open_runs_of(&self, campaign: &CampaignName) -> Result<Vec<RunRecord>, LedgerError> {
        let mut open = self.open_runs().await?;
        open.retain(|run| run.campaign == *campaign);
        Ok(open)
    }

    /// The runs that wait for a person, in the order of their fire times.
    async fn held_runs(&self) -> Result<Vec<HeldRun>, LedgerError> {
        Ok(Vec::new())
    }

    /// Those of one campaign.
    async fn held_runs_of(&self, campaign: &CampaignName) -> Result<Vec<HeldRun>, LedgerError> {
        let mut held = self.held_runs().await?;
        held.retain(|held| held.record.campaign == *campaign);
        Ok(held)
    }

    /// The open runs that may be taken up here: those without a lease of
    /// another host that is in force.
    async fn runs_to_take_up(&self) -> Result<Vec<RunRecord>, LedgerError> {
        self.open_runs().await
    }

    /// Takes the right to carry `run` for `ttl`, under a term one higher than
    /// any before; none while another host's lease is in force. The ledger's
    /// own clock judges. An earlier lease of this process is at an end.
    async fn take_lease(&self, run: &RunId, ttl: Duration) -> Result<Option<Lease>, LedgerError>;

    /// Makes the lease last `ttl` from now; refused with
    /// [`LedgerError::Conflict`] when it is another's by now.
    async fn renew_lease(
        &self,
        run: &RunId,
        term: i32,
        ttl: Duration,
    ) -> Result<Lease, LedgerError>;

    /// Gives the lease back; nothing where it is another's by now.
    async fn release_lease(&self, run: &RunId, term: i32) -> Result<(), LedgerError>;

    /// Moves a run; refused with [`LedgerError::Conflict`] unless it is in
    /// the state and under the term the change expects.
    async fn change_run(&self, change: RunChange) -> Result<(), LedgerError>;

    /// Writes the intent to send; refused with [`LedgerError::Conflict`] when
    /// the run is under another term.
    async fn begin_attempt(&self, attempt: AttemptBegun) -> Result<(), LedgerError>;

    /// Moves a batch; refused with [`LedgerError::Conflict`] unless state,
    /// attempt and the run's term are what the change expects.
    async fn change_batch(&self, change: BatchChange) -> Result<(), LedgerError>;

    /// Takes back the first attempt of a batch, of which no byte has left: it
    /// is as if it had never been begun. Refused like [`Self::change_batch`],
    /// and where there was an earlier attempt.
    ///
    /// Returns whether it is; a ledger that cannot does `change` instead.
    async fn take_back(&self, change: BatchChange) -> Result<bool, LedgerError> {
        self.change_batch(change).await.map(|()| false)
    }

    /// Every batch of a run, in order.
    async fn batches(&self, run: &RunId) -> Result<Vec<BatchRecord>, LedgerError>;

    /// Up to `limit` ended batches of a run that the warehouse does not have.
    async fn unsettled(&self, run: &RunId, limit: u32) -> Result<Vec<BatchRecord>, LedgerError>;

    /// Writes down a run that was taken over; what is there of it already
    /// stays. Refused with [`LedgerError::Conflict`] while it is open.
    async fn adopt(&self, adopted: Adopted) -> Result<(), LedgerError>;

    /// How many ended batches of a run the warehouse does not have, and when
    /// the first of them ended.
    async fn unsettled_backlog(&self, run: &RunId)
    -> Result<(u64, Option<Timestamp>), LedgerError>;

    /// Notes that the warehouse has these batches with these outcomes; one
    /// whose outcome is another by now is left to be settled. Refused with
    /// [`LedgerError::Conflict`] when the run is under another term.
    async fn mark_settled(
        &self,
        run: &RunId,
        term: i32,
        settled: Vec<(BatchPath, BatchStatus)>,
    ) -> Result<(), LedgerError>;

    /// The newest run of a connector that its warehouse must have in `runs`,
    /// among those since it was last accepted as it is.
    async fn newest_settled(&self, connector: &ConnectorName)
    -> Result<Option<RunId>, LedgerError>;

    /// The connectors nothing is sent on, and why.
    async fn connector_alarms(&self) -> Result<Vec<(ConnectorName, String)>, LedgerError>;

    /// Notes why nothing is sent on a connector, or that it is again.
    async fn set_connector_alarm(
        &self,
        connector: &ConnectorName,
        alarm: Option<String>,
    ) -> Result<(), LedgerError>;

    /// Notes that a person takes the connector's warehouse as it is.
    async fn accept_connector(&self, connector: &ConnectorName) -> Result<(), LedgerError>;

    /// What is paused.
    async fn pauses(&self) -> Result<BTreeSet<PauseScope>, LedgerError>;

    /// Notes that a person has cancelled a run, and who.
    async fn cancel(&self, run: &RunId, by: &str, at: Timestamp) -> Result<(), LedgerError>;

    /// What is paused, by whom and since when.
    async fn paused(&self) -> Result<Vec<Paused>, LedgerError> {
        let paused = self.pauses().await?.into_iter().map(|scope| Paused {
            scope,
            by: None,
            since: None,
        });
        Ok(paused.collect())
    }

    /// Notes who asked what of which run. One with an outcome completes the
    /// one without that was noted before it, if there is one.
    async fn note_action(&self, action: Action) -> Result<(), LedgerError>;

    /// Takes one bounded step in removing what ended long ago, and returns how
    /// many rows it removed: none when nothing is left to do. What is open or
    /// held stays, and so does a run with outcomes that are not settled, and
    /// the newest of each campaign that ended as it did.
    async fn forget(&self, _forget: Forget) -> Result<u64, LedgerError> {
        Ok(0)
    }

    /// Opens a run that has ended; refused with [`LedgerError::Conflict`]
    /// unless it is in the state the change expects, and, where something
    /// will be sent, while another run of its campaign is open, or held with
    /// something sent. It is not cancelled any more where it is resumed.
    async fn reopen(&self, _reopen: Reopen) -> Result<(), LedgerError> {
        Err(LedgerError::Conflict {
            what: "runs to be opened again".to_owned(),
        })
    }

    /// What the run was opened again for, until that is applied.
    async fn reopening(&self, _run: &RunId) -> Result<Option<Reopening>, LedgerError> {
        Ok(None)
    }

    /// Does to the run's batches what it was opened again for, once: resumed,
    /// what failed or was cancelled waits to be sent, and what a person has
    /// resolved as not delivered does so under the next generation. Refused
    /// with [`LedgerError::Conflict`] when the run is under another term.
    async fn apply_reopening(
        &self,
        _run: &RunId,
        _term: i32,
        _at: Timestamp,
    ) -> Result<(), LedgerError> {
        Err(LedgerError::Conflict {
            what: "runs to be opened again".to_owned(),
        })
    }

    /// Decides a parked batch; refused with [`LedgerError::Conflict`] where
    /// there is none, or not parked.
    async fn resolve(
        &self,
        _run: &RunId,
        _resolution: &Resolution,
        _at: Timestamp,
    ) -> Result<(), LedgerError> {
        Err(LedgerError::Conflict {
            what: "runs to be opened again".to_owned(),
        })
    }

    /// Whether a person has cancelled the run.
    async fn is_cancelled(&self, run: &RunId) -> Result<bool, LedgerError>;

    /// Begins or lifts a pause, and notes who said so.
    async fn set_pause(&self, change: PauseChange) -> Result<(), LedgerError>;

    /// Does the writes that wait, takes no more, and lets go of the store.
    async fn close(&self) {}
}
