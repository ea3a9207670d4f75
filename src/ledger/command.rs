//! The writes a ledger takes, as values.

use super::{
    bundle, connectors, write_adopted, write_batch, write_forget, write_pause, write_reopen,
    write_run,
};
use crate::id::{BatchPath, ConnectorName, RunId};
use crate::run::{
    Action, Adopted, AttemptBegun, BatchChange, BatchStatus, Claim, Forget, LedgerError, NewRun,
    PauseChange, Reopen, Resolution, RunChange,
};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use std::time::Duration;

/// One write. Each looks before it writes: it is either refused with nothing
/// changed, or done whole, and so can share a transaction with others.
#[derive(Debug)]
pub(super) enum Command {
    /// Of different campaigns.
    Claim(Vec<Claim>),
    ClaimManual {
        run: NewRun,
        at: Timestamp,
    },
    ChangeRun(RunChange),
    Adopt(Box<Adopted>),
    SetPause(PauseChange),
    Note(Action),
    Forget(Forget),
    Cancel {
        run: RunId,
        by: String,
        at: Timestamp,
    },
    SetAlarm {
        connector: ConnectorName,
        alarm: Option<String>,
    },
    Accept(ConnectorName),
    BeginAttempt(AttemptBegun),
    ChangeBatch(BatchChange),
    TakeBack(BatchChange),
    /// What was written quickly is made rows of.
    Fold,
    MarkSettled {
        run: RunId,
        term: i32,
        settled: Vec<(BatchPath, BatchStatus)>,
    },
    Reopen(Reopen),
    ApplyReopening {
        run: RunId,
        term: i32,
        at: Timestamp,
    },
    Resolve {
        run: RunId,
        resolution: Resolution,
        at: Timestamp,
    },
    TakeLease {
        run: RunId,
        ttl: Duration,
    },
    RenewLease {
        run: RunId,
        term: i32,
        ttl: Duration,
    },
    ReleaseLease {
        run: RunId,
        term: i32,
    },
}

/// What a command has written that its caller does not know yet.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The runs; most commands write none.
    pub(super) runs: Vec<RunId>,
    /// An answer for each claim, where it was claims.
    pub(super) claims: Vec<Result<Vec<RunId>, LedgerError>>,
    /// The term of a lease that was taken.
    pub(super) term: Option<i32>,
    /// How many rows were removed.
    pub(super) removed: u64,
}

impl From<Vec<RunId>> for Written {
    fn from(runs: Vec<RunId>) -> Self {
        Self {
            runs,
            ..Self::default()
        }
    }
}

/// Why a command was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was refused, with nothing changed.
    Refused(LedgerError),
    /// The database failed, and with it the whole transaction.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Refused(error)
    }
}

impl Command {
    /// Does it inside the transaction that is open on `db`.
    pub(super) async fn apply(&self, db: &mut SqliteConnection) -> Result<Written, Failure> {
        match self {
            Self::Claim(claims) => return write_run::claim(db, claims).await,
            Self::ClaimManual { run, at } => return write_run::claim_manual(db, run, *at).await,
            Self::Adopt(adopted) => write_adopted::adopt(db, adopted).await?,
            Self::SetAlarm { connector, alarm } => {
                connectors::set_alarm(db, connector, alarm.as_deref()).await?;
            }
            Self::SetPause(change) => write_pause::set(db, change).await?,
            Self::Forget(forget) => {
                let removed = write_forget::forget(db, forget).await?;
                return Ok(Written {
                    removed,
                    ..Written::default()
                });
            }
            Self::Note(action) => write_pause::note(db, action).await?,
            Self::Cancel { run, by, at } => write_pause::cancel(db, run, by, *at).await?,
            Self::Accept(connector) => connectors::accept(db, connector).await?,
            Self::ChangeRun(change) => write_run::change(db, change).await?,
            Self::BeginAttempt(attempt) if attempt.attempt > 1 => {
                write_batch::begin_later(db, attempt).await?;
            }
            Self::BeginAttempt(first) => {
                bundle::begun(first, &write_batch::begin_first(db, &[first]).await?)?;
            }
            Self::ChangeBatch(change) => {
                bundle::changed(change, &write_batch::change(db, &[change]).await?)?;
            }
            Self::TakeBack(change) => write_batch::take_back(db, change).await?,
            Self::MarkSettled { run, term, settled } => {
                write_batch::mark_settled(db, (run, *term), settled).await?;
            }
            Self::Reopen(reopen) => write_reopen::reopen(db, reopen).await?,
            Self::ApplyReopening { run, term, at } => {
                write_reopen::apply(db, (run, *term), *at).await?;
            }
            Self::Resolve {
                run,
                resolution,
                at,
            } => write_reopen::resolve(db, run, resolution, *at).await?,
            Self::TakeLease { run, .. } => return write_run::take_lease(db, run).await,
            Self::RenewLease { run, term, .. } => write_run::renew_lease(db, run, *term).await?,
            // The lock beside the file is the lease; a fold is done before any
            // command that needs it.
            Self::ReleaseLease { .. } | Self::Fold => {}
        }
        Ok(Written::default())
    }
}
