//! The ledger in a SQLite file: one process, one writer, no server.

use super::begin;
use super::command::{Command, Written};
use super::connectors;
use super::journal::Waiting;
use super::lock::{self, StoreLock};
use super::rows::{self, batch_columns, held_runs, run_columns, unstarted_runs};
use super::trouble::unusable;
use super::write_pause;
use super::write_reopen;
use super::writer::{SqliteStore, Writer};
use crate::id::{BatchPath, CampaignName, ConnectorName, RunId};
use crate::run::{
    Action, Adopted, AttemptBegun, BatchChange, BatchRecord, BatchStatus, Claim, Cursor, Forget,
    HeldRun, Installation, Lease, Ledger, LedgerError, NewRun, PauseChange, PauseScope, Paused,
    Reopen, Reopening, Resolution, RunChange, RunRecord,
};
use async_trait::async_trait;
use futures_util::{Stream, TryStreamExt as _};
use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Connection, SqliteConnection};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Batches that one command marks as settled, so that a large settle lets
/// attempts begin between its parts.
pub(super) const MAX_MARKED: usize = 2_000;

/// A ledger in a SQLite file.
///
/// Writes go through one task that groups them: each waits for one sync that
/// it shares with its neighbours. After [`LedgerError::Unusable`] a write may
/// or may not have been made; every write names the state it expects, so read
/// before writing again. The next write then tries the file anew.
///
/// Times are kept to the microsecond.
#[derive(Debug)]
pub struct SqliteLedger {
    readers: SqlitePool,
    /// None where it was opened for reading only.
    writer: Option<Writer>,
    /// What the writer has written quickly, and made no rows of yet.
    unfolded: Waiting,
    installation: Installation,
}

impl SqliteLedger {
    /// Opens the ledger at `path`, makes it where there is none, and holds
    /// the lock beside it; [`LedgerError::InUse`] while another process does.
    pub async fn open(path: &Path) -> Result<Self, LedgerError> {
        let lock = StoreLock::take(path)?;
        lock::create(path)?;
        let options = begin::write_options(path);
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .map_err(unusable)?;
        begin::migrate(&mut connection).await?;
        begin::found(&mut connection).await?;
        let readers = begin::readers(path);
        let installation = begin::installation(&readers).await?;
        let unfolded = Waiting::default();
        let store = SqliteStore::new(connection, options, unfolded.clone(), lock);
        Ok(Self {
            readers,
            writer: Some(Writer::start(store)),
            unfolded,
            installation,
        })
    }

    /// Opens the ledger at `path` to look at it, also beside a running daemon.
    /// Every write is refused.
    pub async fn open_read_only(path: &Path) -> Result<Self, LedgerError> {
        if !path.exists() {
            let message = format!("there is none at {} yet", path.display());
            return Err(LedgerError::Unusable { message });
        }
        let readers = begin::readers(path);
        let installation = begin::installation(&readers).await?;
        Ok(Self {
            readers,
            writer: None,
            unfolded: Waiting::default(),
            installation,
        })
    }

    /// Does the writes that wait, takes no more, and gives back the lock.
    pub async fn close(&self) {
        // Readers first: the last connection to close folds the log into the
        // file, and only the writer may.
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }

    /// Makes rows of what was written quickly; who only reads leaves it.
    async fn fold(&self) -> Result<(), LedgerError> {
        match &self.writer {
            Some(_) if self.unfolded.any() => self.write(Command::Fold).await.map(drop),
            _ => Ok(()),
        }
    }

    async fn write(&self, command: Command) -> Result<Written, LedgerError> {
        match &self.writer {
            Some(writer) => writer.submit(command).await,
            None => Err(LedgerError::Unusable {
                message: "it was opened for reading only".to_owned(),
            }),
        }
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    fn installation(&self) -> &Installation {
        &self.installation
    }

    async fn cursor(&self, campaign: &CampaignName) -> Result<Option<Cursor>, LedgerError> {
        let row = sqlx::query(
            "/* cursor */ select schedule_hash, seen_until, schedule, is_disabled \
             from cursors where campaign = ?1",
        )
        .bind(campaign.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(unusable)?;
        row.map(|row| {
            Ok(Cursor {
                schedule_hash: rows::get(&row, "schedule_hash")?,
                seen_until: rows::instant(&row, "seen_until")?,
                schedule: rows::get(&row, "schedule")?,
                is_disabled: rows::get(&row, "is_disabled")?,
            })
        })
        .transpose()
    }

    async fn claim_all(&self, claims: Vec<Claim>) -> Vec<Result<Vec<RunId>, LedgerError>> {
        let all = claims.len();
        match self.write(Command::Claim(claims)).await {
            Ok(written) => written.claims,
            Err(error) => vec![Err(error); all],
        }
    }

    async fn claim_manual(&self, run: NewRun, at: Timestamp) -> Result<RunId, LedgerError> {
        let written = self.write(Command::ClaimManual { run, at }).await?;
        let run = written.runs.into_iter().next();
        Ok(run.expect("a manual claim that is not refused writes one run"))
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>, LedgerError> {
        let row = sqlx::query(concat!(
            "/* run */ select ",
            run_columns!(),
            " where r.run_id = ?1"
        ))
        .bind(run.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(unusable)?;
        row.as_ref().map(rows::run).transpose()
    }

    async fn runs(
        &self,
        campaign: Option<&CampaignName>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, LedgerError> {
        let query = match campaign {
            Some(campaign) => sqlx::query(concat!(
                "/* runs of campaign */ select ",
                run_columns!(),
                " where r.campaign = ?2 order by r.seq desc limit ?1"
            ))
            .bind(limit)
            .bind(campaign.as_str()),
            None => sqlx::query(concat!(
                "/* runs */ select ",
                run_columns!(),
                " order by r.seq desc limit ?1"
            ))
            .bind(limit),
        };
        let found = query.fetch_all(&self.readers).await.map_err(unusable)?;
        found.iter().map(rows::run).collect()
    }

    async fn unstarted_runs(&self, limit: u32) -> Result<Vec<RunRecord>, LedgerError> {
        let query = sqlx::query(unstarted_runs!("?1")).bind(limit);
        let found: Vec<SqliteRow> = query.fetch_all(&self.readers).await.map_err(unusable)?;
        found.iter().map(rows::run).collect()
    }

    async fn last_scheduled(
        &self,
        campaign: &CampaignName,
        run: &RunId,
    ) -> Result<Option<RunRecord>, LedgerError> {
        let found = sqlx::query(concat!(
            "/* last scheduled */ select ",
            run_columns!(),
            " where r.campaign = ?1 and r.run_id <> ?2 and r.trigger = 'scheduled' \
             and r.state in ('finished', 'incomplete') order by r.seq desc limit 1"
        ))
        .bind(campaign.as_str())
        .bind(run.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(unusable)?;
        found.as_ref().map(rows::run).transpose()
    }

    async fn open_runs(&self) -> Result<Vec<RunRecord>, LedgerError> {
        let found: Vec<SqliteRow> = sqlx::query(concat!(
            "/* open runs */ select ",
            run_columns!(),
            " where r.is_open = 1 order by r.fire_time, r.seq"
        ))
        .fetch_all(&self.readers)
        .await
        .map_err(unusable)?;
        found.iter().map(rows::run).collect()
    }

    async fn open_runs_of(&self, campaign: &CampaignName) -> Result<Vec<RunRecord>, LedgerError> {
        let found: Vec<SqliteRow> = sqlx::query(concat!(
            "/* open runs of a campaign */ select ",
            run_columns!(),
            " where r.is_open = 1 and r.campaign = ?1 order by r.fire_time, r.seq"
        ))
        .bind(campaign.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(unusable)?;
        found.iter().map(rows::run).collect()
    }

    async fn held_runs(&self) -> Result<Vec<HeldRun>, LedgerError> {
        let query = sqlx::query(held_runs!(""));
        held(&query.fetch_all(&self.readers).await.map_err(unusable)?)
    }

    async fn held_runs_of(&self, campaign: &CampaignName) -> Result<Vec<HeldRun>, LedgerError> {
        let query = sqlx::query(held_runs!("and r.campaign = ?1")).bind(campaign.as_str());
        held(&query.fetch_all(&self.readers).await.map_err(unusable)?)
    }

    async fn take_lease(&self, run: &RunId, ttl: Duration) -> Result<Option<Lease>, LedgerError> {
        let run = run.clone();
        let written = self.write(Command::TakeLease { run, ttl }).await?;
        Ok(written.term.map(Lease::lasting))
    }

    async fn renew_lease(
        &self,
        run: &RunId,
        term: i32,
        ttl: Duration,
    ) -> Result<Lease, LedgerError> {
        let run = run.clone();
        self.write(Command::RenewLease { run, term, ttl }).await?;
        Ok(Lease::lasting(term))
    }

    async fn release_lease(&self, _run: &RunId, _term: i32) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn change_run(&self, change: RunChange) -> Result<(), LedgerError> {
        self.write(Command::ChangeRun(change)).await.map(drop)
    }

    async fn begin_attempt(&self, attempt: AttemptBegun) -> Result<(), LedgerError> {
        self.write(Command::BeginAttempt(attempt)).await.map(drop)
    }

    async fn change_batch(&self, change: BatchChange) -> Result<(), LedgerError> {
        self.write(Command::ChangeBatch(change)).await.map(drop)
    }

    async fn take_back(&self, change: BatchChange) -> Result<bool, LedgerError> {
        self.write(Command::TakeBack(change)).await.map(|_| true)
    }

    async fn batches(&self, run: &RunId) -> Result<Vec<BatchRecord>, LedgerError> {
        self.fold().await?;
        let query = sqlx::query(match self.writer {
            Some(_) => concat!(
                "/* batches */ select ",
                batch_columns!(),
                " where run_id = ?1 order by batch, part"
            ),
            None => concat!(
                "/* batches now */ select ",
                batch_columns!(),
                "_now where run_id = ?1 order by batch, part"
            ),
        });
        batches(query.bind(run.as_str()).fetch(&self.readers)).await
    }

    async fn unsettled(&self, run: &RunId, limit: u32) -> Result<Vec<BatchRecord>, LedgerError> {
        self.fold().await?;
        let query = sqlx::query(concat!(
            "/* unsettled */ select ",
            batch_columns!(),
            // Else every batch of the run is looked at, each time.
            " indexed by batches_unsettled where run_id = ?1 and settled = 0 and ended_at is not null \
             order by ended_at, batch, part limit ?2"
        ));
        batches(query.bind(run.as_str()).bind(limit).fetch(&self.readers)).await
    }

    async fn mark_settled(
        &self,
        run: &RunId,
        term: i32,
        settled: Vec<(BatchPath, BatchStatus)>,
    ) -> Result<(), LedgerError> {
        for some in settled.chunks(MAX_MARKED) {
            let (run, settled) = (run.clone(), some.to_vec());
            self.write(Command::MarkSettled { run, term, settled })
                .await?;
        }
        Ok(())
    }

    async fn adopt(&self, adopted: Adopted) -> Result<(), LedgerError> {
        self.write(Command::Adopt(Box::new(adopted)))
            .await
            .map(drop)
    }

    async fn unsettled_backlog(
        &self,
        run: &RunId,
    ) -> Result<(u64, Option<Timestamp>), LedgerError> {
        self.fold().await?;
        let row = sqlx::query(
            "/* backlog */ select count(*) as unsettled, min(ended_at) as oldest from batches \
             indexed by batches_unsettled where run_id = ?1 and settled = 0 \
             and ended_at is not null",
        )
        .bind(run.as_str())
        .fetch_one(&self.readers)
        .await
        .map_err(unusable)?;
        Ok((
            rows::get(&row, "unsettled")?,
            rows::instant_if_any(&row, "oldest")?,
        ))
    }

    async fn newest_settled(
        &self,
        connector: &ConnectorName,
    ) -> Result<Option<RunId>, LedgerError> {
        connectors::newest_settled(&self.readers, connector).await
    }

    async fn connector_alarms(&self) -> Result<Vec<(ConnectorName, String)>, LedgerError> {
        connectors::alarms(&self.readers).await
    }

    async fn set_connector_alarm(
        &self,
        connector: &ConnectorName,
        alarm: Option<String>,
    ) -> Result<(), LedgerError> {
        let connector = connector.clone();
        let command = Command::SetAlarm { connector, alarm };
        self.write(command).await.map(drop)
    }

    async fn accept_connector(&self, connector: &ConnectorName) -> Result<(), LedgerError> {
        let command = Command::Accept(connector.clone());
        self.write(command).await.map(drop)
    }

    async fn pauses(&self) -> Result<BTreeSet<PauseScope>, LedgerError> {
        write_pause::all(&self.readers).await
    }

    async fn set_pause(&self, change: PauseChange) -> Result<(), LedgerError> {
        self.write(Command::SetPause(change)).await.map(drop)
    }

    async fn cancel(&self, run: &RunId, by: &str, at: Timestamp) -> Result<(), LedgerError> {
        let (run, by) = (run.clone(), by.to_owned());
        self.write(Command::Cancel { run, by, at }).await.map(drop)
    }

    async fn paused(&self) -> Result<Vec<Paused>, LedgerError> {
        write_pause::paused(&self.readers).await
    }

    async fn note_action(&self, action: Action) -> Result<(), LedgerError> {
        self.write(Command::Note(action)).await.map(drop)
    }

    async fn forget(&self, forget: Forget) -> Result<u64, LedgerError> {
        Ok(self.write(Command::Forget(forget)).await?.removed)
    }

    async fn reopen(&self, reopen: Reopen) -> Result<(), LedgerError> {
        self.write(Command::Reopen(reopen)).await.map(drop)
    }

    async fn reopening(&self, run: &RunId) -> Result<Option<Reopening>, LedgerError> {
        write_reopen::reopening(&self.readers, run).await
    }

    async fn apply_reopening(
        &self,
        run: &RunId,
        term: i32,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        let run = run.clone();
        let command = Command::ApplyReopening { run, term, at };
        self.write(command).await.map(drop)
    }

    async fn resolve(
        &self,
        run: &RunId,
        resolution: &Resolution,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        let (run, resolution) = (run.clone(), resolution.clone());
        let command = Command::Resolve {
            run,
            resolution,
            at,
        };
        self.write(command).await.map(drop)
    }

    async fn is_cancelled(&self, run: &RunId) -> Result<bool, LedgerError> {
        write_pause::is_cancelled(&self.readers, run).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}

/// The batches of `found`, each read as it comes: a row as the driver holds it
/// is several times as large.
async fn batches(
    found: impl Stream<Item = Result<SqliteRow, sqlx::Error>>,
) -> Result<Vec<BatchRecord>, LedgerError> {
    let mut found = std::pin::pin!(found);
    let mut batches = Vec::new();
    while let Some(row) = found.try_next().await.map_err(unusable)? {
        batches.push(rows::batch(&row)?);
    }
    Ok(batches)
}

fn held(found: &[SqliteRow]) -> Result<Vec<HeldRun>, LedgerError> {
    let held = |row: &SqliteRow| {
        Ok(HeldRun {
            record: rows::run(row)?,
            has_sent: rows::get(row, "has_sent")?,
        })
    };
    found.iter().map(held).collect()
}
