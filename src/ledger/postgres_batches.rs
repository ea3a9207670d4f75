//! Writes to batches on the ledger's server.

use super::command::Failure;
use super::rows::micros;
use super::trouble::conflict;
use super::write_batch::{excused, place, refused};
use crate::id::{BatchPath, RunId};
use crate::run::{AttemptBegun, BatchChange, BatchState, BatchStatus, LedgerError};
use sqlx::PgConnection;
use std::collections::HashMap;

// Shared with the writes of the run's other batches, and with nobody who
// takes the lease: what is written here is there before the next term begins.
const TERM: &str = "/* term */ select term from runs where run_id = $1 for share";

const FIRST_ATTEMPT: &str = "/* first attempt */ \
    insert into batches (run_id, batch, part, generation, state, attempts, members, body_hash, \
    first_sending_at, first_place, last_place) \
    values ($1, $2, $3, $4, 'sending', 1, $5, $6, $7, $8, $9) on conflict do nothing";

const LATER_ATTEMPT: &str = "/* later attempt */ \
    update batches set state = 'sending', attempts = $5, next_at = null, body_hash = $6 \
    where run_id = $1 and batch = $2 and part = $3 and generation = $4 \
    and attempts = $5 - 1 and state in ('waiting', 'ambiguous') \
    and (body_hash = $6 or length(body_hash) = 0)";

const STANDS_READY: &str = "/* stands ready */ \
    select count(*) from batches where run_id = $1 and batch = $2 and part = $3 \
    and generation = $4 and attempts = $5 - 1 and state in ('waiting', 'ambiguous')";

// A batch that changes has an outcome the warehouse does not know: it is to be
// settled again. Whether it may ever have arrived is only ever added to.
const CHANGE_BATCH: &str = "/* change batch */ \
    update batches set state = $6, status = $7, http_status = coalesce($8, http_status), \
    next_at = $9, ended_at = $10, error = case when $6 = 'accepted' then $11 \
    else coalesce($11, error) end, was_ambiguous = was_ambiguous or $6 = 'ambiguous', \
    settled = false, excused = greatest(excused, $12), rejected = $13 \
    where run_id = $1 and batch = $2 and part = $3 and attempts = $4 and state = $5";

const MARK_SETTLED: &str = "/* mark settled */ \
    update batches b set settled = true from unnest($2::bigint[], $3::text[], $4::text[]) \
    as s (batch, part, status) where b.run_id = $1 and b.batch = s.batch and b.part = s.part \
    and b.status = s.status and b.ended_at is not null";

/// The terms that the open transaction has looked at and holds.
pub(super) type Terms = HashMap<RunId, Option<i32>>;

/// Refused when `run` is under another term; until the transaction ends it
/// stays as it is.
pub(super) async fn hold_term(
    db: &mut PgConnection,
    terms: &mut Terms,
    run: &RunId,
    term: i32,
) -> Result<(), Failure> {
    let found = match terms.get(run) {
        Some(found) => *found,
        None => {
            let query = sqlx::query_scalar(TERM).bind(run.as_str());
            let found: Option<i32> = query.fetch_optional(db).await?;
            terms.insert(run.clone(), found);
            found
        }
    };
    match found {
        Some(found) if found != term => {
            Err(conflict(format!("run {run} under term {term}")).into())
        }
        _ => Ok(()),
    }
}

/// Writes the intent to send, or says why it must not be sent.
pub(super) async fn begin(db: &mut PgConnection, attempt: &AttemptBegun) -> Result<(), Failure> {
    if attempt.attempt > 1 {
        return begin_later(db, attempt).await;
    }
    let done = sqlx::query(FIRST_ATTEMPT)
        .bind(attempt.run.as_str())
        .bind(i64::from(attempt.path.batch))
        .bind(&attempt.path.part)
        .bind(i64::from(attempt.generation))
        .bind(i64::from(attempt.members))
        .bind(attempt.body_hash.as_slice())
        .bind(micros(attempt.at))
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

async fn begin_later(db: &mut PgConnection, attempt: &AttemptBegun) -> Result<(), Failure> {
    let done = sqlx::query(LATER_ATTEMPT)
        .bind(attempt.run.as_str())
        .bind(i64::from(attempt.path.batch))
        .bind(&attempt.path.part)
        .bind(i64::from(attempt.generation))
        .bind(i64::from(attempt.attempt))
        .bind(attempt.body_hash.as_slice())
        .execute(&mut *db)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    let ready: i64 = sqlx::query_scalar(STANDS_READY)
        .bind(attempt.run.as_str())
        .bind(i64::from(attempt.path.batch))
        .bind(&attempt.path.part)
        .bind(i64::from(attempt.generation))
        .bind(i64::from(attempt.attempt))
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
pub(super) async fn change(db: &mut PgConnection, change: &BatchChange) -> Result<(), Failure> {
    let has_ended = change.to.has_ended();
    let is_sent_again = matches!(change.to, BatchState::Waiting | BatchState::Ambiguous);
    let status = change.status.filter(|_| has_ended);
    let done = sqlx::query(CHANGE_BATCH)
        .bind(change.run.as_str())
        .bind(i64::from(change.path.batch))
        .bind(&change.path.part)
        .bind(i64::from(change.attempt))
        .bind(change.from.as_str())
        .bind(change.to.as_str())
        .bind(status.map(|status| status.as_str()))
        .bind(change.http_status.map(i32::from))
        .bind(change.next_at.filter(|_| is_sent_again).map(micros))
        .bind(has_ended.then(|| micros(change.at)))
        .bind(&change.error)
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

/// Notes that the warehouse has these outcomes; batches that have another by
/// now are left as they are.
pub(super) async fn mark_settled(
    db: &mut PgConnection,
    run: &RunId,
    settled: &[(BatchPath, BatchStatus)],
) -> Result<(), Failure> {
    let batches: Vec<i64> = settled.iter().map(|(p, _)| i64::from(p.batch)).collect();
    let parts: Vec<&str> = settled.iter().map(|(p, _)| p.part.as_str()).collect();
    let statuses: Vec<&str> = settled.iter().map(|(_, s)| s.as_str()).collect();
    sqlx::query(MARK_SETTLED)
        .bind(run.as_str())
        .bind(batches)
        .bind(parts)
        .bind(statuses)
        .execute(db)
        .await
        .map_err(Failure::Database)?;
    Ok(())
}
