//! The ledger on a PostgreSQL server: several hosts, a lease for each run.

use super::begin::{migrator, new_body_key, unmigrated};
use super::command::{Command, Written};
use super::postgres_connectors as connectors;
use super::postgres_options::PostgresOptions;
use super::postgres_pauses;
use super::postgres_reopen;
use super::postgres_rows as rows;
use super::postgres_runs::{FOUND, INSTALLATION, make_schema};
use super::postgres_store::PostgresStore;
use super::postgres_trouble::{silent, unusable};
use super::rows::{batch_columns, held_runs, run_columns, unstarted_runs};
use super::sqlite::MAX_MARKED;
use super::trouble::unreadable;
use super::writer::Writer;
use crate::id::{BatchPath, CampaignName, ConnectorName, RunId};
use crate::run::{
    Action, Adopted, AttemptBegun, BatchChange, BatchRecord, BatchStatus, Claim, Cursor, Forget,
    HeldRun, Installation, Lease, Ledger, LedgerError, NewRun, PauseChange, PauseScope, Paused,
    Reopen, Reopening, Resolution, RunChange, RunRecord,
};
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::{PgPool, PgRow};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The longest a read may take, a server that has gone silent included.
const READ_LIMIT: Duration = Duration::from_secs(40);

const MIGRATIONS: [(i64, &str, &str); 12] = [
    (
        1,
        "ledger",
        include_str!("migrations/postgres/0001_ledger.sql"),
    ),
    (
        20,
        "connectors",
        include_str!("migrations/postgres/0020_connectors.sql"),
    ),
    (
        21,
        "pauses",
        include_str!("migrations/postgres/0021_pauses.sql"),
    ),
    (
        22,
        "cancels",
        include_str!("migrations/postgres/0022_cancels.sql"),
    ),
    (
        23,
        "actions",
        include_str!("migrations/postgres/0023_actions.sql"),
    ),
    (
        24,
        "reopenings",
        include_str!("migrations/postgres/0024_reopenings.sql"),
    ),
    (
        25,
        "parts",
        include_str!("migrations/postgres/0025_parts.sql"),
    ),
    (
        26,
        "unsettled",
        include_str!("migrations/postgres/0026_unsettled.sql"),
    ),
    (
        30,
        "forgotten",
        include_str!("migrations/postgres/0030_forgotten.sql"),
    ),
    (
        33,
        "schedules",
        include_str!("migrations/postgres/0033_schedules.sql"),
    ),
    (
        34,
        "held",
        include_str!("migrations/postgres/0034_held.sql"),
    ),
    (
        36,
        "asked",
        include_str!("migrations/postgres/0036_asked.sql"),
    ),
];

/// Held while the tables are looked at and made, so that hosts that start
/// together do it one after the other.
const LOCK_TABLES: &str = "/* lock tables */ select pg_advisory_lock(20261122)";

const UNLOCK_TABLES: &str = "/* unlock tables */ select pg_advisory_unlock(20261122)";

/// A ledger on a PostgreSQL server, shared by hosts. Everything is in the
/// schema `campaignd_ledger`.
///
/// Writes go through one task that groups them, as in
/// [`super::SqliteLedger`]; the same holds after [`LedgerError::Unusable`].
/// Times are kept to the microsecond.
#[derive(Debug)]
pub struct PostgresLedger {
    readers: PgPool,
    /// None where it was opened for reading only.
    writer: Option<Writer>,
    installation: Installation,
    /// This process, as the leases know it.
    host: String,
}

impl PostgresLedger {
    /// Opens the ledger and makes its tables where there are none.
    pub async fn open(options: PostgresOptions) -> Result<Self, LedgerError> {
        let mut connection = options.connect().await?;
        let db = &mut connection;
        execute(db, LOCK_TABLES).await?;
        make_schema(db).await?;
        migrator(&MIGRATIONS)
            .run_direct(None, db, false)
            .await
            .map_err(|error| unmigrated(error, unusable))?;
        sqlx::query(FOUND)
            .bind(Uuid::new_v4().to_string())
            .bind(new_body_key().as_slice())
            .execute(&mut *db)
            .await
            .map_err(unusable)?;
        execute(db, UNLOCK_TABLES).await?;
        let readers = options.readers();
        let installation = installation(&readers).await?;
        let host = Uuid::new_v4().to_string();
        let store = PostgresStore {
            connection: Some(connection),
            options,
            host: host.clone(),
        };
        Ok(Self {
            readers,
            writer: Some(Writer::start(store)),
            installation,
            host,
        })
    }

    /// Opens the ledger to look at it; none where there is none yet. Every
    /// write is refused.
    pub async fn open_read_only(options: &PostgresOptions) -> Result<Option<Self>, LedgerError> {
        let readers = options.readers();
        let look = "/* look */ select to_regclass('campaignd_ledger.meta') is not null";
        let is_there: bool = within(sqlx::query_scalar(look).fetch_one(&readers)).await?;
        if !is_there {
            return Ok(None);
        }
        let installation = installation(&readers).await?;
        Ok(Some(Self {
            readers,
            writer: None,
            installation,
            host: Uuid::new_v4().to_string(),
        }))
    }

    /// Does the writes that wait and takes no more.
    pub async fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
        self.readers.close().await;
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

async fn execute(db: &mut PgConnection, sql: &'static str) -> Result<(), LedgerError> {
    sqlx::query(sql).execute(db).await.map_err(unusable)?;
    Ok(())
}

async fn installation(readers: &PgPool) -> Result<Installation, LedgerError> {
    let row = within(sqlx::query(INSTALLATION).fetch_one(readers)).await?;
    let body_key: Vec<u8> = rows::get(&row, "body_key")?;
    Ok(Installation {
        id: rows::get::<&str>(&row, "installation")?
            .parse()
            .map_err(unreadable)?,
        body_key: body_key
            .try_into()
            .map_err(|_| unreadable("`body_key` is not 32 bytes"))?,
    })
}

/// A read, or what is wrong with the server.
pub(super) async fn within<T>(
    read: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, LedgerError> {
    match tokio::time::timeout(READ_LIMIT, read).await {
        Ok(answer) => answer.map_err(unusable),
        Err(_) => Err(silent("`state.url`")),
    }
}

fn runs(found: &[PgRow]) -> Result<Vec<RunRecord>, LedgerError> {
    found.iter().map(rows::run).collect()
}

fn held(found: &[PgRow]) -> Result<Vec<HeldRun>, LedgerError> {
    let held = |row: &PgRow| {
        Ok(HeldRun {
            record: rows::run(row)?,
            has_sent: rows::get(row, "has_sent")?,
        })
    };
    found.iter().map(held).collect()
}

fn batches(found: &[PgRow]) -> Result<Vec<BatchRecord>, LedgerError> {
    found.iter().map(rows::batch).collect()
}

#[async_trait]
impl Ledger for PostgresLedger {
    fn installation(&self) -> &Installation {
        &self.installation
    }

    async fn cursor(&self, campaign: &CampaignName) -> Result<Option<Cursor>, LedgerError> {
        let query = sqlx::query(
            "/* cursor */ select schedule_hash, seen_until, schedule, is_disabled \
             from cursors where campaign = $1",
        )
        .bind(campaign.as_str());
        let row = within(query.fetch_optional(&self.readers)).await?;
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
        let query = sqlx::query(concat!(
            "/* run */ select ",
            run_columns!(),
            " where r.run_id = $1"
        ))
        .bind(run.as_str());
        let row = within(query.fetch_optional(&self.readers)).await?;
        row.as_ref().map(rows::run).transpose()
    }

    async fn runs(
        &self,
        campaign: Option<&CampaignName>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, LedgerError> {
        let query = sqlx::query(concat!(
            "/* runs */ select ",
            run_columns!(),
            " where $2::text is null or r.campaign = $2 order by r.seq desc limit $1"
        ))
        .bind(i64::from(limit))
        .bind(campaign.map(CampaignName::as_str));
        runs(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn unstarted_runs(&self, limit: u32) -> Result<Vec<RunRecord>, LedgerError> {
        let query = sqlx::query(unstarted_runs!("$1")).bind(i64::from(limit));
        runs(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn last_scheduled(
        &self,
        campaign: &CampaignName,
        run: &RunId,
    ) -> Result<Option<RunRecord>, LedgerError> {
        let query = sqlx::query(concat!(
            "/* last scheduled */ select ",
            run_columns!(),
            " where r.campaign = $1 and r.run_id <> $2 and r.trigger = 'scheduled' \
             and r.state in ('finished', 'incomplete') order by r.seq desc limit 1"
        ))
        .bind(campaign.as_str())
        .bind(run.as_str());
        let row = within(query.fetch_optional(&self.readers)).await?;
        row.as_ref().map(rows::run).transpose()
    }

    async fn open_runs(&self) -> Result<Vec<RunRecord>, LedgerError> {
        let query = sqlx::query(concat!(
            "/* open runs */ select ",
            run_columns!(),
            " where r.is_open order by r.fire_time, r.seq"
        ));
        runs(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn open_runs_of(&self, campaign: &CampaignName) -> Result<Vec<RunRecord>, LedgerError> {
        let query = sqlx::query(concat!(
            "/* open runs of a campaign */ select ",
            run_columns!(),
            " where r.is_open and r.campaign = $1 order by r.fire_time, r.seq"
        ))
        .bind(campaign.as_str());
        runs(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn held_runs(&self) -> Result<Vec<HeldRun>, LedgerError> {
        let query = sqlx::query(held_runs!(""));
        held(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn held_runs_of(&self, campaign: &CampaignName) -> Result<Vec<HeldRun>, LedgerError> {
        let query = sqlx::query(held_runs!("and r.campaign = $1")).bind(campaign.as_str());
        held(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn runs_to_take_up(&self) -> Result<Vec<RunRecord>, LedgerError> {
        let query = sqlx::query(concat!(
            "/* runs to take up */ select ",
            run_columns!(),
            " where r.is_open and (r.lease_until is null or r.lease_until <= clock_timestamp() \
             or r.lease_host = $1) order by r.fire_time, r.seq"
        ))
        .bind(&self.host);
        runs(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn take_lease(&self, run: &RunId, ttl: Duration) -> Result<Option<Lease>, LedgerError> {
        let asked = Instant::now();
        let run = run.clone();
        let written = self.write(Command::TakeLease { run, ttl }).await?;
        Ok(written.term.map(|term| Lease::lapsing(term, asked, ttl)))
    }

    async fn renew_lease(
        &self,
        run: &RunId,
        term: i32,
        ttl: Duration,
    ) -> Result<Lease, LedgerError> {
        let asked = Instant::now();
        let run = run.clone();
        self.write(Command::RenewLease { run, term, ttl }).await?;
        Ok(Lease::lapsing(term, asked, ttl))
    }

    async fn release_lease(&self, run: &RunId, term: i32) -> Result<(), LedgerError> {
        let run = run.clone();
        let command = Command::ReleaseLease { run, term };
        self.write(command).await.map(drop)
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
        let query = sqlx::query(concat!(
            "/* batches */ select ",
            batch_columns!(),
            " where run_id = $1 order by batch, part"
        ))
        .bind(run.as_str());
        batches(&within(query.fetch_all(&self.readers)).await?)
    }

    async fn unsettled(&self, run: &RunId, limit: u32) -> Result<Vec<BatchRecord>, LedgerError> {
        let query = sqlx::query(concat!(
            "/* unsettled */ select ",
            batch_columns!(),
            " where run_id = $1 and not settled and ended_at is not null \
             order by ended_at, batch, part limit $2"
        ))
        .bind(run.as_str())
        .bind(i64::from(limit));
        batches(&within(query.fetch_all(&self.readers)).await?)
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
        let query = sqlx::query(
            "/* backlog */ select count(*) as unsettled, min(ended_at) as oldest from batches \
             where run_id = $1 and not settled and ended_at is not null",
        )
        .bind(run.as_str());
        let row = within(query.fetch_one(&self.readers)).await?;
        let unsettled: i64 = rows::get(&row, "unsettled")?;
        let oldest = rows::instant_if_any(&row, "oldest")?;
        Ok((unsettled.unsigned_abs(), oldest))
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
        postgres_pauses::all(&self.readers).await
    }

    async fn set_pause(&self, change: PauseChange) -> Result<(), LedgerError> {
        self.write(Command::SetPause(change)).await.map(drop)
    }

    async fn cancel(&self, run: &RunId, by: &str, at: Timestamp) -> Result<(), LedgerError> {
        let (run, by) = (run.clone(), by.to_owned());
        self.write(Command::Cancel { run, by, at }).await.map(drop)
    }

    async fn paused(&self) -> Result<Vec<Paused>, LedgerError> {
        postgres_pauses::paused(&self.readers).await
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
        postgres_reopen::reopening(&self.readers, run).await
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
        postgres_pauses::is_cancelled(&self.readers, run).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}
