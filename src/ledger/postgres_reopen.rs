//! Writes and reads of runs that a person opens again, on the ledger's server.

use super::command::Failure;
use super::postgres::within;
use super::rows::{self, micros};
use super::trouble::conflict;
use super::write_reopen::{another_open, decided, not_in, read, sends};
use crate::id::RunId;
use crate::run::{LedgerError, Reopen, Reopening, Resolution};
use jiff::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;

const OTHER_OPEN_RUN: &str = "/* other open run */ \
    select o.run_id from runs r join runs o on o.campaign = r.campaign and o.is_open \
    where r.run_id = $1 and o.run_id <> $1 \
    union all select h.run_id from runs r join runs h on h.campaign = r.campaign \
    and h.state = 'held' where r.run_id = $1 and h.run_id <> $1 \
    and exists (select 1 from batches b where b.run_id = h.run_id) limit 1";

const REOPEN_RUN: &str = "/* reopen run */ \
    update runs set state = $3, is_open = true, finished_at = null, error = $4 \
    where run_id = $1 and state = $2";

const SET_REOPENING: &str = "/* set reopening */ \
    insert into reopenings (run_id, reopening) values ($1, $2) \
    on conflict (run_id) do update set reopening = excluded.reopening";

const REOPENING: &str = "/* reopening */ select reopening from reopenings where run_id = $1";

// Failed and ambiguous at once is what a person has resolved as not delivered:
// its receiver may be told anew, under another id, and in other bytes.
const NEXT_GENERATION: &str = "/* next generation */ \
    update batches set state = 'waiting', status = null, ended_at = null, next_at = null, \
    settled = false, generation = generation + 1, was_ambiguous = false, body_hash = ''::bytea, \
    first_sending_at = $2, excused = 0 \
    where run_id = $1 and state = 'refused' and status = 'failed' and was_ambiguous";

const WAIT_AGAIN: &str = "/* wait again */ \
    update batches set state = 'waiting', status = null, ended_at = null, next_at = null, \
    settled = false, excused = greatest(excused, $2 - first_sending_at) \
    where run_id = $1 and state = 'refused' and status in ('failed', 'cancelled')";

const RESOLVE: &str = "/* resolve */ \
    update batches set state = $4, status = $5, ended_at = $6, settled = false, error = $7, \
    was_ambiguous = true where run_id = $1 and batch = $2 and part = $3 and state = 'parked'";

/// Opens an ended run again.
pub(super) async fn reopen(db: &mut PgConnection, reopen: &Reopen) -> Result<(), Failure> {
    let run = reopen.run.as_str();
    if sends(&reopen.reopening) {
        super::postgres_runs::lock(db, reopen.campaign.as_str()).await?;
        let other: Option<String> = sqlx::query_scalar(OTHER_OPEN_RUN)
            .bind(run)
            .fetch_optional(&mut *db)
            .await?;
        if let Some(other) = other {
            return Err(another_open(run, &other));
        }
        sqlx::query("/* uncancel */ delete from cancels where run_id = $1")
            .bind(run)
            .execute(&mut *db)
            .await?;
    }
    let done = sqlx::query(REOPEN_RUN)
        .bind(run)
        .bind(reopen.from.as_str())
        .bind(reopen.to.as_str())
        .bind(&reopen.error)
        .execute(&mut *db)
        .await?;
    if done.rows_affected() == 0 {
        return Err(not_in(reopen));
    }
    sqlx::query(SET_REOPENING)
        .bind(run)
        .bind(rows::to_json(&reopen.reopening))
        .execute(&mut *db)
        .await?;
    Ok(())
}

/// What the run was opened again for.
pub(super) async fn reopening(
    readers: &PgPool,
    run: &RunId,
) -> Result<Option<Reopening>, LedgerError> {
    let query = sqlx::query_scalar(REOPENING).bind(run.as_str());
    let found: Option<String> = within(query.fetch_optional(readers)).await?;
    found.as_deref().map(read).transpose()
}

/// Does to the batches what the run was opened again for.
pub(super) async fn apply(
    db: &mut PgConnection,
    run: &RunId,
    at: Timestamp,
) -> Result<(), Failure> {
    let found: Option<String> = sqlx::query_scalar(REOPENING)
        .bind(run.as_str())
        .fetch_optional(&mut *db)
        .await?;
    match found.as_deref().map(read).transpose()? {
        None => return Ok(()),
        Some(Reopening::BeginAgain | Reopening::BeginApproved) => {}
        Some(Reopening::Resume) => {
            for statement in [NEXT_GENERATION, WAIT_AGAIN] {
                sqlx::query(statement)
                    .bind(run.as_str())
                    .bind(micros(at))
                    .execute(&mut *db)
                    .await?;
            }
        }
        Some(Reopening::Resolve(resolution)) => resolve(db, run, &resolution, at).await?,
    }
    sqlx::query("/* reopened */ delete from reopenings where run_id = $1")
        .bind(run.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Decides a parked batch.
pub(super) async fn resolve(
    db: &mut PgConnection,
    run: &RunId,
    resolution: &Resolution,
    at: Timestamp,
) -> Result<(), Failure> {
    let (state, status, why) = decided(resolution.delivered);
    let done = sqlx::query(RESOLVE)
        .bind(run.as_str())
        .bind(i64::from(resolution.path.batch))
        .bind(&resolution.path.part)
        .bind(state)
        .bind(status.as_str())
        .bind(micros(at))
        .bind(why)
        .execute(db)
        .await?;
    match done.rows_affected() {
        0 => Err(conflict(format!("batch {} of {run} parked", resolution.path)).into()),
        _ => Ok(()),
    }
}
