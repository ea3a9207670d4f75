//! Writes to batches.

use super::bundle::{ChangeRow, Done, FirstRow};
use super::command::Failure;
use super::rows;
use super::trouble::conflict;
use crate::id::{BatchPath, RunId};
use crate::run::{AttemptBegun, BatchChange, BatchStatus, LedgerError};
use sqlx::SqliteConnection;
use std::time::Duration;

const FIRST_ATTEMPTS: &str = "/* first attempts */ \
    insert into batches (run_id, batch, part, generation, state, attempts, members, body_hash, \
    first_sending_at, first_place, last_place) \
    select value ->> 'run_id', value ->> 'batch', value ->> 'part', value ->> 'generation', \
    'sending', 1, value ->> 'members', unhex(value ->> 'body_hash'), value ->> 'at', \
    value ->> 'first_place', value ->> 'last_place' from json_each(?1) \
    where not exists (select 1 from runs where run_id = value ->> 'run_id' \
    and term <> value ->> 'term') on conflict do nothing returning run_id, batch, part";

const LATER_ATTEMPT: &str = "/* later attempt */ \
    update batches set state = 'sending', attempts = ?5, next_at = null, body_hash = ?6 \
    where run_id = ?1 and batch = ?2 and part = ?3 and generation = ?4 \
    and attempts = ?5 - 1 and state in ('waiting', 'ambiguous') \
    and (body_hash = ?6 or length(body_hash) = 0) \
    and not exists (select 1 from runs where run_id = ?1 and term <> ?7)";

const STANDS_READY: &str = "/* stands ready */ \
    select count(*) from batches where run_id = ?1 and batch = ?2 and part = ?3 \
    and generation = ?4 and attempts = ?5 - 1 and state in ('waiting', 'ambiguous') \
    and not exists (select 1 from runs where run_id = ?1 and term <> ?6)";

// A batch that changes has an outcome the warehouse does not know: it is to be
// settled again. Whether it may ever have arrived is only ever added to.
const CHANGE_BATCHES: &str = "/* change batches */ \
    update batches as b set state = c.value ->> 'to_state', status = c.value ->> 'status', \
    http_status = coalesce(c.value ->> 'http_status', http_status), \
    next_at = c.value ->> 'next_at', ended_at = c.value ->> 'ended_at', \
    error = case when c.value ->> 'to_state' = 'accepted' then c.value ->> 'error' \
    else coalesce(c.value ->> 'error', error) end, \
    was_ambiguous = was_ambiguous or c.value ->> 'to_state' = 'ambiguous', settled = 0, \
    excused = max(excused, c.value ->> 'excused'), rejected = c.value ->> 'rejected' \
    from json_each(?1) c \
    where b.run_id = c.value ->> 'run_id' and b.batch = c.value ->> 'batch' \
    and b.part = c.value ->> 'part' and b.attempts = c.value ->> 'attempt' \
    and b.state = c.value ->> 'from_state' \
    and not exists (select 1 from runs where run_id = b.run_id and term <> c.value ->> 'term') \
    returning run_id, batch, part";

const MARK_SETTLED: &str = "/* mark settled */ \
    update batches set settled = 1 where run_id = ?1 and (batch, part, status) in \
    (select value ->> 0, value ->> 1, value ->> 2 from json_each(?2)) and ended_at is not null";

const OTHER_TERM: &str = "/* other term */ \
    select count(*) from runs where run_id = ?1 and term <> ?2";

/// Writes the intent to send batches for the first time, and returns those
/// that may be.
pub(super) async fn begin_first(
    db: &mut SqliteConnection,
    attempts: &[&AttemptBegun],
) -> Result<Done, sqlx::Error> {
    let rows: Vec<FirstRow<'_>> = attempts.iter().map(|begun| FirstRow::of(begun)).collect();
    let query = sqlx::query_as(FIRST_ATTEMPTS).bind(rows::to_json(&rows));
    Ok(query.fetch_all(db).await?.into_iter().collect())
}

/// Moves batches, and returns those that were where the change expects them.
pub(super) async fn change(
    db: &mut SqliteConnection,
    changes: &[&BatchChange],
) -> Result<Done, sqlx::Error> {
    let rows: Vec<ChangeRow<'_>> = changes.iter().map(|change| ChangeRow::of(change)).collect();
    let query = sqlx::query_as(CHANGE_BATCHES).bind(rows::to_json(&rows));
    Ok(query.fetch_all(db).await?.into_iter().collect())
}

/// Writes the intent to send a batch again, or says why it must not be sent.
pub(super) async fn begin_later(
    db: &mut SqliteConnection,
    attempt: &AttemptBegun,
) -> Result<(), Failure> {
    let done = sqlx::query(LATER_ATTEMPT)
        .bind(attempt.run.as_str())
        .bind(attempt.path.batch)
        .bind(&attempt.path.part)
        .bind(attempt.generation)
        .bind(attempt.attempt)
        .bind(attempt.body_hash.as_slice())
        .bind(attempt.term)
        .execute(&mut *db)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    let ready: i64 = sqlx::query_scalar(STANDS_READY)
        .bind(attempt.run.as_str())
        .bind(attempt.path.batch)
        .bind(&attempt.path.part)
        .bind(attempt.generation)
        .bind(attempt.attempt)
        .bind(attempt.term)
        .fetch_one(db)
        .await?;
    if ready == 1 {
        return Err(Failure::Refused(LedgerError::BodyChanged {
            run: attempt.run.clone(),
            path: attempt.path.clone(),
        }));
    }
    let what = format!(
        "batch {} of {} waiting after attempt {}",
        attempt.path,
        attempt.run,
        attempt.attempt.saturating_sub(1)
    );
    Err(conflict(what).into())
}

/// A place as it is stored.
pub(super) fn place(place: Option<u64>) -> Option<i64> {
    place.map(|place| i64::try_from(place).unwrap_or(i64::MAX))
}

/// Places as they are stored; nothing for none.
pub(super) fn refused(places: &[u64]) -> Option<String> {
    (!places.is_empty()).then(|| rows::to_json(&places))
}

/// A time as it is stored: whole microseconds.
pub(super) fn excused(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Notes that the warehouse has these outcomes; batches that have another by
/// now are left as they are.
pub(super) async fn mark_settled(
    db: &mut SqliteConnection,
    (run, term): (&RunId, i32),
    settled: &[(BatchPath, BatchStatus)],
) -> Result<(), Failure> {
    let other: i64 = sqlx::query_scalar(OTHER_TERM)
        .bind(run.as_str())
        .bind(term)
        .fetch_one(&mut *db)
        .await?;
    if other != 0 {
        return Err(conflict(format!("run {run} under term {term}")).into());
    }
    let places: Vec<(u32, &str, &str)> = settled
        .iter()
        .map(|(path, status)| (path.batch, path.part.as_str(), status.as_str()))
        .collect();
    sqlx::query(MARK_SETTLED)
        .bind(run.as_str())
        .bind(rows::to_json(&places))
        .execute(db)
        .await?;
    Ok(())
}
