//! Writes and reads of runs that a person opens again.

use super::command::Failure;
use super::rows::{self, micros};
use super::trouble::{conflict, unreadable, unusable};
use crate::id::RunId;
use crate::run::{BatchStatus, LedgerError, Reopen, Reopening, Resolution};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

const OTHER_OPEN_RUN: &str = "/* other open run */ \
    select o.run_id from runs r join runs o on o.campaign = r.campaign and o.is_open = 1 \
    where r.run_id = ?1 and o.run_id <> ?1 \
    union all select h.run_id from runs r join runs h on h.campaign = r.campaign \
    and h.state = 'held' where r.run_id = ?1 and h.run_id <> ?1 \
    and exists (select 1 from batches b where b.run_id = h.run_id) limit 1";

const REOPEN_RUN: &str = "/* reopen run */ \
    update runs set state = ?3, is_open = 1, finished_at = null, error = ?4 \
    where run_id = ?1 and state = ?2";

const SET_REOPENING: &str = "/* set reopening */ \
    insert into reopenings (run_id, reopening) values (?1, ?2) \
    on conflict (run_id) do update set reopening = excluded.reopening";

const REOPENING: &str = "/* reopening */ select reopening from reopenings where run_id = ?1";

const HAS_TERM: &str = "/* has term */ select count(*) from runs where run_id = ?1 and term = ?2";

// Failed and ambiguous at once is what a person has resolved as not delivered:
// its receiver may be told anew, under another id, and in other bytes.
const NEXT_GENERATION: &str = "/* next generation */ \
    update batches set state = 'waiting', status = null, ended_at = null, next_at = null, \
    settled = 0, generation = generation + 1, was_ambiguous = 0, body_hash = zeroblob(0), \
    first_sending_at = ?2, excused = 0 \
    where run_id = ?1 and state = 'refused' and status = 'failed' and was_ambiguous = 1";

const WAIT_AGAIN: &str = "/* wait again */ \
    update batches set state = 'waiting', status = null, ended_at = null, next_at = null, \
    settled = 0, excused = max(excused, ?2 - first_sending_at) \
    where run_id = ?1 and state = 'refused' and status in ('failed', 'cancelled')";

const RESOLVE: &str = "/* resolve */ \
    update batches set state = ?4, status = ?5, ended_at = ?6, settled = 0, error = ?7, \
    was_ambiguous = 1 where run_id = ?1 and batch = ?2 and part = ?3 and state = 'parked'";

/// Opens an ended run again.
pub(super) async fn reopen(db: &mut SqliteConnection, reopen: &Reopen) -> Result<(), Failure> {
    let run = reopen.run.as_str();
    if sends(&reopen.reopening) {
        let other: Option<String> = sqlx::query_scalar(OTHER_OPEN_RUN)
            .bind(run)
            .fetch_optional(&mut *db)
            .await?;
        if let Some(other) = other {
            return Err(another_open(run, &other));
        }
        sqlx::query("/* uncancel */ delete from cancels where run_id = ?1")
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
    readers: &SqlitePool,
    run: &RunId,
) -> Result<Option<Reopening>, LedgerError> {
    let query = sqlx::query_scalar(REOPENING).bind(run.as_str());
    let found: Option<String> = query.fetch_optional(readers).await.map_err(unusable)?;
    found.as_deref().map(read).transpose()
}

/// Does to the batches what the run was opened again for.
pub(super) async fn apply(
    db: &mut SqliteConnection,
    (run, term): (&RunId, i32),
    at: Timestamp,
) -> Result<(), Failure> {
    let has_term: i64 = sqlx::query_scalar(HAS_TERM)
        .bind(run.as_str())
        .bind(term)
        .fetch_one(&mut *db)
        .await?;
    if has_term == 0 {
        return Err(conflict(format!("run {run} under term {term}")).into());
    }
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
    sqlx::query("/* reopened */ delete from reopenings where run_id = ?1")
        .bind(run.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Decides a parked batch.
pub(super) async fn resolve(
    db: &mut SqliteConnection,
    run: &RunId,
    resolution: &Resolution,
    at: Timestamp,
) -> Result<(), Failure> {
    let (state, status, why) = decided(resolution.delivered);
    let done = sqlx::query(RESOLVE)
        .bind(run.as_str())
        .bind(resolution.path.batch)
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

/// State, status and what is said of a batch that a person has decided.
pub(super) fn decided(delivered: bool) -> (&'static str, BatchStatus, Option<&'static str>) {
    match delivered {
        true => ("accepted", BatchStatus::Delivered, None),
        false => (
            "refused",
            BatchStatus::Failed,
            Some("resolved: not delivered"),
        ),
    }
}

/// Whether the run will send something.
pub(super) fn sends(reopening: &Reopening) -> bool {
    !matches!(reopening, Reopening::Resolve(_))
}

/// A stored reopening.
pub(super) fn read(json: &str) -> Result<Reopening, LedgerError> {
    serde_json::from_str(json).map_err(unreadable)
}

/// Another run of its campaign is open.
pub(super) fn another_open(run: &str, other: &str) -> Failure {
    let what = format!("{run} as the only open or held run of its campaign (there is {other})");
    conflict(what).into()
}

/// The run is not in the state it is opened from.
pub(super) fn not_in(reopen: &Reopen) -> Failure {
    conflict(format!(
        "run {} in state {}",
        reopen.run,
        reopen.from.as_str()
    ))
    .into()
}
