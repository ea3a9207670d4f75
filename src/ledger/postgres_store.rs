//! The one connection of this host that writes to the ledger's server: all
//! that waits in one transaction.

use super::bundle::{self, Step, steps};
use super::command::{Command, Failure, Written};
use super::postgres_adopted as adopted;
use super::postgres_batches::{self as batches, Terms, hold_term};
use super::postgres_connectors as connectors;
use super::postgres_forget as forgotten;
use super::postgres_options::PostgresOptions;
use super::postgres_pauses as pauses;
use super::postgres_reopen as reopened;
use super::postgres_runs as runs;
use super::postgres_trouble::{has_met_another, silent, unusable};
use super::writer::{Answer, Store, Waiting, all_done, refuse};
use crate::id::RunId;
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
        let mut answers = all_done(group);
        let mut terms = Terms::new();
        for step in steps(group.iter().map(|waiting| &waiting.command)) {
            let done = do_step(&mut transaction, &mut terms, &self.host, step, &mut answers).await;
            if let Err(error) = done {
                // Said to the server before the next try begins its own.
                transaction.rollback().await?;
                return Err(error.into());
            }
        }
        transaction.commit().await?;
        Ok(answers)
    }
}

/// Does a step inside the transaction that is open on `db`.
async fn do_step(
    db: &mut PgConnection,
    terms: &mut Terms,
    host: &str,
    step: Step<'_>,
    answers: &mut [Answer],
) -> Result<(), sqlx::Error> {
    match step {
        Step::One(place, command) => match apply(db, terms, host, command).await {
            Err(Failure::Database(error)) => return Err(error),
            Err(Failure::Refused(error)) => answers[place] = Err(error),
            Ok(written) => answers[place] = Ok(written),
        },
        Step::First(mut attempts) => {
            keep_ours(db, terms, &mut attempts, answers, |begun| {
                (&begun.run, begun.term)
            })
            .await?;
            let all: Vec<_> = attempts.iter().map(|(_, begun)| *begun).collect();
            let done = batches::begin_first(db, &all).await?;
            refuse(answers, attempts, |begun| bundle::begun(begun, &done));
        }
        Step::Changes(mut changes) => {
            keep_ours(db, terms, &mut changes, answers, |change| {
                (&change.run, change.term)
            })
            .await?;
            let all: Vec<_> = changes.iter().map(|(_, change)| *change).collect();
            let done = batches::change(db, &all).await?;
            refuse(answers, changes, |change| bundle::changed(change, &done));
        }
    }
    Ok(())
}

/// Refuses the writes to runs that are under another term.
async fn keep_ours<'a, T>(
    db: &mut PgConnection,
    terms: &mut Terms,
    writes: &mut Vec<(usize, &'a T)>,
    answers: &mut [Answer],
    term_of: impl Fn(&'a T) -> (&'a RunId, i32),
) -> Result<(), sqlx::Error> {
    let mut ours = Vec::with_capacity(writes.len());
    for (place, write) in writes.drain(..) {
        let (run, term) = term_of(write);
        match hold_term(db, terms, run, term).await {
            Ok(()) => ours.push((place, write)),
            Err(Failure::Refused(error)) => answers[place] = Err(error),
            Err(Failure::Database(error)) => return Err(error),
        }
    }
    *writes = ours;
    Ok(())
}

/// Does `command` inside the transaction that is open on `db`.
async fn apply(
    db: &mut PgConnection,
    terms: &mut Terms,
    host: &str,
    command: &Command,
) -> Result<Written, Failure> {
    match command {
        Command::Claim(claims) => return runs::claim(db, claims).await,
        Command::ClaimManual { run, at } => return runs::claim_manual(db, run, *at).await,
        Command::ChangeRun(change) => runs::change(db, change).await?,
        Command::Adopt(adopted) => adopted::adopt(db, adopted).await?,
        Command::SetPause(change) => pauses::set(db, change).await?,
        Command::Forget(forget) => {
            let removed = forgotten::forget(db, forget).await?;
            return Ok(Written {
                removed,
                ..Written::default()
            });
        }
        Command::Note(action) => pauses::note(db, action).await?,
        Command::Cancel { run, by, at } => pauses::cancel(db, run, by, *at).await?,
        Command::SetAlarm { connector, alarm } => {
            connectors::set_alarm(db, connector, alarm.as_deref()).await?;
        }
        Command::Accept(connector) => connectors::accept(db, connector).await?,
        Command::BeginAttempt(attempt) => {
            hold_term(db, terms, &attempt.run, attempt.term).await?;
            if attempt.attempt > 1 {
                batches::begin_later(db, attempt).await?;
            } else {
                bundle::begun(attempt, &batches::begin_first(db, &[attempt]).await?)?;
            }
        }
        Command::ChangeBatch(change) => {
            hold_term(db, terms, &change.run, change.term).await?;
            bundle::changed(change, &batches::change(db, &[change]).await?)?;
        }
        Command::TakeBack(change) => {
            hold_term(db, terms, &change.run, change.term).await?;
            batches::take_back(db, change).await?;
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
        // Every write here makes its rows at once.
        Command::Fold => {}
    }
    Ok(Written::default())
}
