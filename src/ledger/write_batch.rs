//! Writes to batches.

use super::bundle::{self, ChangeRow, Done, FirstRow};
use super::command::Failure;
use super::rows;
use super::trouble::conflict;
use crate::id::{BatchPath, RunId};
use crate::run::{AttemptBegun, BatchChange, BatchStatus, LedgerError};
use sqlx::{AssertSqlSafe, SqliteConnection};

const FIRST_ATTEMPTS: &str = "/* first attempts */ \
    with c (run_id, term, batch, part, generation, members, body_hash, at, first_place, \
    last_place) as (values {rows}) \
    insert into batches (run_id, batch, part, generation, state, attempts, members, body_hash, \
    first_sending_at, first_place, last_place) \
    select run_id, batch, part, generation, 'sending', 1, members, unhex(body_hash), at, \
    first_place, last_place from c \
    where not exists (select 1 from runs where run_id = c.run_id and term <> c.term) \
    on conflict do nothing returning run_id, batch, part";

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
    with c (run_id, term, batch, part, attempt, from_state, to_state, status, http_status, \
    next_at, ended_at, error, excused, rejected) as (values {rows}) \
    update batches as b set state = c.to_state, status = c.status, \
    http_status = coalesce(c.http_status, b.http_status), next_at = c.next_at, \
    ended_at = c.ended_at, error = case when c.to_state = 'accepted' then c.error \
    else coalesce(c.error, b.error) end, \
    was_ambiguous = b.was_ambiguous or c.to_state = 'ambiguous', settled = 0, \
    excused = max(b.excused, c.excused), rejected = c.rejected \
    from c where b.run_id = c.run_id and b.batch = c.batch and b.part = c.part \
    and b.attempts = c.attempt and b.state = c.from_state \
    and not exists (select 1 from runs where run_id = c.run_id and term <> c.term) \
    returning run_id, batch, part";

const TAKE_BACK: &str = "/* take back */ \
    delete from batches where run_id = ?1 and batch = ?2 and part = ?3 and state = 'sending' \
    and generation = 0 and attempts = 1 and not was_ambiguous and not settled \
    and not exists (select 1 from runs where run_id = ?1 and term <> ?4)";

/// Rows a statement, the largest first: so few different ones that all stay
/// prepared.
const ROWS_AT_ONCE: [usize; 4] = [64, 16, 4, 1];

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
    let mut done = Done::new();
    for some in pieces(attempts) {
        let sql = with_rows(FIRST_ATTEMPTS, 10, some.len());
        let mut query = sqlx::query_as(AssertSqlSafe(sql));
        for row in some.iter().map(|begun| FirstRow::of(begun)) {
            query = query
                .bind(row.run_id)
                .bind(row.term)
                .bind(row.batch)
                .bind(row.part)
                .bind(row.generation)
                .bind(row.members)
                .bind(row.body_hash)
                .bind(row.at)
                .bind(row.first_place)
                .bind(row.last_place);
        }
        done.extend(query.fetch_all(&mut *db).await?);
    }
    Ok(done)
}

/// Moves batches, and returns those that were where the change expects them.
pub(super) async fn change(
    db: &mut SqliteConnection,
    changes: &[&BatchChange],
) -> Result<Done, sqlx::Error> {
    let mut done = Done::new();
    for some in pieces(changes) {
        let sql = with_rows(CHANGE_BATCHES, 14, some.len());
        let mut query = sqlx::query_as(AssertSqlSafe(sql));
        for row in some.iter().map(|change| ChangeRow::of(change)) {
            query = query
                .bind(row.run_id)
                .bind(row.term)
                .bind(row.batch)
                .bind(row.part)
                .bind(row.attempt)
                .bind(row.from_state)
                .bind(row.to_state)
                .bind(row.status)
                .bind(row.http_status)
                .bind(row.next_at)
                .bind(row.ended_at)
                .bind(row.error)
                .bind(row.excused)
                .bind(row.rejected);
        }
        done.extend(query.fetch_all(&mut *db).await?);
    }
    Ok(done)
}

/// Takes back the first attempt of a batch, of which nothing has left.
pub(super) async fn take_back(
    db: &mut SqliteConnection,
    change: &BatchChange,
) -> Result<(), Failure> {
    let done = sqlx::query(TAKE_BACK)
        .bind(change.run.as_str())
        .bind(change.path.batch)
        .bind(&change.path.part)
        .bind(change.term)
        .execute(db)
        .await?;
    Ok(bundle::taken_back(change, done.rows_affected())?)
}

/// `all` in pieces of [`ROWS_AT_ONCE`].
pub(super) fn pieces<T>(mut all: &[T]) -> Vec<&[T]> {
    let mut pieces = Vec::new();
    while let Some(size) = ROWS_AT_ONCE.into_iter().find(|size| *size <= all.len()) {
        let (piece, rest) = all.split_at(size);
        pieces.push(piece);
        all = rest;
    }
    pieces
}

/// The statement for `rows` rows of `columns` parameters.
pub(super) fn with_rows(sql: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    sql.replacen("{rows}", &vec![row; rows].join(", "), 1)
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
