//! Writes to batches.

use super::command::Failure;
use super::rows::{self, micros};
use super::trouble::conflict;
use crate::id::{BatchPath, RunId};
use crate::run::{AttemptBegun, BatchChange, BatchState, BatchStatus, LedgerError};
use sqlx::SqliteConnection;
use std::time::Duration;

const FIRST_ATTEMPT: &str = "/* first attempt */ \
    insert into batches (run_id, batch, part, generation, state, attempts, members, body_hash, \
    first_sending_at, first_place, last_place) \
    select ?1, ?2, ?3, ?4, 'sending', 1, ?5, ?6, ?7, ?9, ?10 \
    where not exists (select 1 from runs where run_id = ?1 and term <> ?8) on conflict do nothing";

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
const CHANGE_BATCH: &str = "/* change batch */ \
    update batches set state = ?6, status = ?7, http_status = coalesce(?8, http_status), \
    next_at = ?9, ended_at = ?10, error = case when ?6 = 'accepted' then ?11 \
    else coalesce(?11, error) end, was_ambiguous = was_ambiguous or ?6 = 'ambiguous', settled = 0, \
    excused = max(excused, ?13), rejected = ?14 \
    where run_id = ?1 and batch = ?2 and part = ?3 and attempts = ?4 and state = ?5 \
    and not exists (select 1 from runs where run_id = ?1 and term <> ?12)";

const MARK_SETTLED: &str = "/* mark settled */ \
    update batches set settled = 1 where run_id = ?1 and (batch, part, status) in \
    (select value ->> 0, value ->> 1, value ->> 2 from json_each(?2)) and ended_at is not null";

const OTHER_TERM: &str = "/* other term */ \
    select count(*) from runs where run_id = ?1 and term <> ?2";

/// Writes the intent to send, or says why it must not be sent.
pub(super) async fn begin(
    db: &mut SqliteConnection,
    attempt: &AttemptBegun,
) -> Result<(), Failure> {
    if attempt.attempt > 1 {
        return begin_later(db, attempt).await;
    }
    let done = sqlx::query(FIRST_ATTEMPT)
        .bind(attempt.run.as_str())
        .bind(attempt.path.batch)
        .bind(&attempt.path.part)
        .bind(attempt.generation)
        .bind(attempt.members)
        .bind(attempt.body_hash.as_slice())
        .bind(micros(attempt.at))
        .bind(attempt.term)
        .bind(place(attempt.places.map(|(first, _)| first)))
        .bind(place(attempt.places.map(|(_, last)| last)))
        .execute(db)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    let what = format!(
        "batch {} of {} not yet attempted",
        attempt.path, attempt.run
    );
    Err(conflict(what).into())
}

async fn begin_later(db: &mut SqliteConnection, attempt: &AttemptBegun) -> Result<(), Failure> {
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

/// Moves a batch; refused unless it is where the change expects it.
pub(super) async fn change(db: &mut SqliteConnection, change: &BatchChange) -> Result<(), Failure> {
    let has_ended = change.to.has_ended();
    let is_sent_again = matches!(change.to, BatchState::Waiting | BatchState::Ambiguous);
    let done = sqlx::query(CHANGE_BATCH)
        .bind(change.run.as_str())
        .bind(change.path.batch)
        .bind(&change.path.part)
        .bind(change.attempt)
        .bind(change.from.as_str())
        .bind(change.to.as_str())
        .bind(
            change
                .status
                .filter(|_| has_ended)
                .map(|status| status.as_str()),
        )
        .bind(change.http_status)
        .bind(change.next_at.filter(|_| is_sent_again).map(micros))
        .bind(has_ended.then(|| micros(change.at)))
        .bind(&change.error)
        .bind(change.term)
        .bind(excused(change.excused))
        .bind(refused(&change.refused))
        .execute(db)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    let what = format!(
        "batch {} of {} in state {} at attempt {}",
        change.path,
        change.run,
        change.from.as_str(),
        change.attempt
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
