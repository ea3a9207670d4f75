//! Writes to batches on the ledger's server.

use super::bundle::{self, ChangeRow, Done, FirstRow};
use super::command::Failure;
use super::rows::to_json;
use super::trouble::conflict;
use crate::id::{BatchPath, RunId};
use crate::run::{AttemptBegun, BatchChange, BatchStatus, LedgerError};
use sqlx::PgConnection;
use std::collections::HashMap;

// Shared with the writes of the run's other batches, and with nobody who
// takes the lease: what is written here is there before the next term begins.
const TERM: &str = "/* term */ select term from runs where run_id = $1 for share";

const FIRST_ATTEMPTS: &str = "/* first attempts */ \
    insert into batches (run_id, batch, part, generation, state, attempts, members, body_hash, \
    first_sending_at, first_place, last_place) \
    select run_id, batch, part, generation, 'sending', 1, members, decode(body_hash, 'hex'), at, \
    first_place, last_place from json_to_recordset($1::json) as c (run_id text, batch bigint, \
    part text, generation bigint, members bigint, body_hash text, at bigint, first_place bigint, \
    last_place bigint) on conflict do nothing returning run_id, batch, part";

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
const CHANGE_BATCHES: &str = "/* change batches */ \
    update batches b set state = c.to_state, status = c.status, \
    http_status = coalesce(c.http_status, b.http_status), next_at = c.next_at, \
    ended_at = c.ended_at, error = case when c.to_state = 'accepted' then c.error \
    else coalesce(c.error, b.error) end, \
    was_ambiguous = b.was_ambiguous or c.to_state = 'ambiguous', settled = false, \
    excused = greatest(b.excused, c.excused), rejected = c.rejected \
    from json_to_recordset($1::json) as c (run_id text, batch bigint, part text, attempt bigint, \
    from_state text, to_state text, status text, http_status int, next_at bigint, \
    ended_at bigint, error text, excused bigint, rejected text) \
    where b.run_id = c.run_id and b.batch = c.batch and b.part = c.part \
    and b.attempts = c.attempt and b.state = c.from_state \
    returning b.run_id, b.batch, b.part";

const TAKE_BACK: &str = "/* take back */ \
    delete from batches where run_id = $1 and batch = $2 and part = $3 and state = 'sending' \
    and generation = 0 and attempts = 1 and not was_ambiguous and not settled";

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

/// Writes the intent to send batches for the first time, and returns those
/// that may be.
pub(super) async fn begin_first(
    db: &mut PgConnection,
    attempts: &[&AttemptBegun],
) -> Result<Done, sqlx::Error> {
    let rows: Vec<FirstRow<'_>> = attempts.iter().map(|begun| FirstRow::of(begun)).collect();
    let query = sqlx::query_as(FIRST_ATTEMPTS).bind(to_json(&rows));
    Ok(query.fetch_all(db).await?.into_iter().collect())
}

/// Moves batches, and returns those that were where the change expects them.
pub(super) async fn change(
    db: &mut PgConnection,
    changes: &[&BatchChange],
) -> Result<Done, sqlx::Error> {
    let rows: Vec<ChangeRow<'_>> = changes.iter().map(|change| ChangeRow::of(change)).collect();
    let query = sqlx::query_as(CHANGE_BATCHES).bind(to_json(&rows));
    Ok(query.fetch_all(db).await?.into_iter().collect())
}

/// Takes back the first attempt of a batch, of which nothing has left.
pub(super) async fn take_back(db: &mut PgConnection, change: &BatchChange) -> Result<(), Failure> {
    let done = sqlx::query(TAKE_BACK)
        .bind(change.run.as_str())
        .bind(i64::from(change.path.batch))
        .bind(&change.path.part)
        .execute(db)
        .await?;
    Ok(bundle::taken_back(change, done.rows_affected())?)
}

/// Writes the intent to send a batch again, or says why it must not be sent.
pub(super) async fn begin_later(
    db: &mut PgConnection,
    attempt: &AttemptBegun,
) -> Result<(), Failure> {
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
