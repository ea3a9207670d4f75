//! The one connection of this host that writes to the ledger's server: all
//! that waits in one transaction.

use super::command::{Command, Failure, Written};
use super::postgres_adopted as adopted;
use super::postgres_batches::{self as batches, Terms, hold_term};
use super::postgres_connectors as connectors;
use super::postgres_options::PostgresOptions;
use super::postgres_pauses as pauses;
use super::postgres_reopen as reopened;
use super::postgres_runs as runs;
use super::postgres_trouble::{has_met_another, silent, unusable};
use super::writer::{Answer, Store, Waiting};
use crate::run::LedgerError;
use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;

/// The longest a transaction may take, a server that has gone silent included.
const GROUP_LIMIT: Duration = Duration::from_secs(20);

/// How often a transaction is done again that met another host's.
const MEETINGS: u32 = 5;

/// What the writer's task owns.
pub(super) struct PostgresStore {
    /// None after a failure: the next group opens a new one.
    pub(super) connection: Option<PgConnection>,
    pub(super) options: PostgresOptions,
    /// This process, as the leases know it.
    pub(super) host: String,
}

#[async_trait]
impl Store for PostgresStore {
    async fn write_group(&mut self, group: &[Waiting]) -> Vec<Answer> {
        let mut met = 0;
        let error = loop {
            match tokio::time::timeout(GROUP_LIMIT, self.try_group(group)).await {
                Ok(Ok(answers)) => return answers,
                Ok(Err(Stop::Database(error))) if has_met_another(&error) && met < MEETINGS => {
                    met += 1;
                }
                Ok(Err(Stop::Database(error))) => break unusable(error),
                Ok(Err(Stop::Connect(error))) => break error,
                Err(_) => break silent(&self.options.host),
            }
        };
        self.connection = None;
        group.iter().map(|_| Err(error.clone())).collect()
    }

    async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            // Everything answered is durable already; closing only tidies up.
            drop(tokio::time::timeout(Duration::from_secs(1), connection.close()).await);
        }
    }
}

enum Stop {
    Connect(LedgerError),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl PostgresStore {
    async fn try_group(&mut self, group: &[Waiting]) -> Result<Vec<Answer>, Stop> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.options.connect().await.map_err(Stop::Connect)?),
        };
        let mut transaction = connection.begin().await?;
        let mut answers = Vec::with_capacity(group.len());
        let mut terms = Terms::new();
        for waiting in group {
            let command = &waiting.command;
            match apply(&mut transaction, &mut terms, &self.host, command).await {
                Ok(written) => answers.push(Ok(written)),
                Err(Failure::Refused(error)) => answers.push(Err(error)),
                Err(Failure::Database(error)) => {
                    // Said to the server before the next try begins its own.
                    transaction.rollback().await?;
                    return Err(error.into());
                }
            }
        }
        transaction.commit().await?;
        Ok(answers)
    }
}

/// Does `command` inside the transaction that is open on `db`.
async fn apply(
    db: &mut PgConnection,
    terms: &mut Terms,
    host: &str,
    command: &Command,
) -> Result<Written, Failure> {
    match command {
        Command::Claim(claim) => return runs::claim(db, claim).await,
        Command::ClaimManual { run, at } => return runs::claim_manual(db, run, *at).await,
        Command::ChangeRun(change) => runs::change(db, change).await?,
        Command::Adopt(adopted) => adopted::adopt(db, adopted).await?,
        Command::SetPause(change) => pauses::set(db, change).await?,
        Command::Note(action) => pauses::note(db, action).await?,
        Command::Cancel { run, by, at } => pauses::cancel(db, run, by, *at).await?,
        Command::SetAlarm { connector, alarm } => {
            connectors::set_alarm(db, connector, alarm.as_deref()).await?;
        }
        Command::Accept(connector) => connectors::accept(db, connector).await?,
        Command::BeginAttempt(attempt) => {
            hold_term(db, terms, &attempt.run, attempt.term).await?;
            batches::begin(db, attempt).await?;
        }
        Command::ChangeBatch(change) => {
            hold_term(db, terms, &change.run, change.term).await?;
            batches::change(db, change).await?;
        }
        Command::MarkSettled { run, term, settled } => {
            hold_term(db, terms, run, *term).await?;
            batches::mark_settled(db, run, settled).await?;
        }
        Command::Reopen(reopen) => reopened::reopen(db, reopen).await?,
        Command::ApplyReopening { run, term, at } => {
            hold_term(db, terms, run, *term).await?;
            reopened::apply(db, run, *at).await?;
        }
        Command::Resolve {
            run,
            resolution,
            at,
        } => reopened::resolve(db, run, resolution, *at).await?,
        Command::TakeLease { run, ttl } => {
            terms.remove(run);
            return runs::take_lease(db, (run, host), *ttl).await;
        }
        Command::RenewLease { run, term, ttl } => {
            runs::renew_lease(db, (run, host), *term, *ttl).await?;
        }
        Command::ReleaseLease { run, term } => {
            runs::release_lease(db, (run, host), *term).await?;
        }
    }
    Ok(Written::default())
}
