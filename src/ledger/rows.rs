//! Rows as records, and the values in them.

use super::trouble::{unreadable, unusable};
use crate::id::BatchPath;
use crate::run::{BatchRecord, LedgerError, RunRecord};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::str::FromStr;
use std::time::Duration;

/// The columns [`run`] reads.
macro_rules! run_columns {
    () => {
        "r.run_id, r.campaign, r.connector, r.fire_time, r.\"trigger\", r.campaign_version, \
         s.spec, r.state, r.term, r.claimed_at, r.started_at, r.finished_at, r.asked, r.funnel, r.tally, r.error \
         from runs r join run_specs s on s.campaign_version = r.campaign_version"
    };
}
pub(super) use run_columns;

/// The held runs, as [`run`] reads them, and whether any of each was sent;
/// those for which more holds, if something is said of it.
macro_rules! held_runs {
    ($and:literal) => {
        concat!(
            "/* held runs */ select exists (select 1 from batches b where b.run_id = r.run_id) \
             as has_sent, ",
            $crate::ledger::rows::run_columns!(),
            " where r.state = 'held' ",
            $and,
            " order by r.fire_time, r.seq"
        )
    };
}
pub(super) use held_runs;

/// The newest runs that were never started, as [`run`] reads them.
macro_rules! unstarted_runs {
    ($limit:literal) => {
        concat!(
            "/* unstarted runs */ select r.run_id, r.campaign, r.connector, r.fire_time, \
             r.\"trigger\", r.campaign_version, '' as spec, r.state, r.term, r.claimed_at, \
             r.started_at, r.finished_at, r.asked, r.funnel, r.tally, r.error from runs r \
             where r.state in ('missed', 'skipped') and r.started_at is null \
             order by r.seq desc limit ",
            $limit
        )
    };
}
pub(super) use unstarted_runs;

/// The columns [`batch`] reads.
macro_rules! batch_columns {
    () => {
        "batch, part, generation, state, status, attempts, members, body_hash, \
         first_sending_at, next_at, ended_at, was_ambiguous, http_status, error, settled, excused, \
         first_place, last_place, rejected \
         from batches"
    };
}
pub(super) use batch_columns;

/// A time as it is stored: whole microseconds, the rest cut off.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// How long something took, as it is stored.
pub(super) fn micros_of(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// A value as it is stored in a JSON column.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("counts and names always serialise")
}

/// The run in a row of [`run_columns`].
pub(super) fn run(row: &SqliteRow) -> Result<RunRecord, LedgerError> {
    Ok(RunRecord {
        run: parsed(row, "run_id")?,
        campaign: parsed(row, "campaign")?,
        connector: parsed(row, "connector")?,
        fire_time: instant(row, "fire_time")?,
        trigger: parsed(row, "trigger")?,
        campaign_version: get(row, "campaign_version")?,
        spec: get(row, "spec")?,
        state: parsed(row, "state")?,
        term: get(row, "term")?,
        claimed_at: instant(row, "claimed_at")?,
        started_at: instant_if_any(row, "started_at")?,
        finished_at: instant_if_any(row, "finished_at")?,
        asked: get::<Option<i64>>(row, "asked")?
            .map(|asked| Duration::from_micros(asked.unsigned_abs())),
        funnel: json(row, "funnel")?,
        tally: json(row, "tally")?,
        error: get(row, "error")?,
    })
}

/// The batch in a row of [`batch_columns`].
pub(super) fn batch(row: &SqliteRow) -> Result<BatchRecord, LedgerError> {
    let status: Option<String> = get(row, "status")?;
    let body_hash: Vec<u8> = get(row, "body_hash")?;
    let excused: i64 = get(row, "excused")?;
    Ok(BatchRecord {
        path: BatchPath {
            batch: get(row, "batch")?,
            part: get(row, "part")?,
        },
        generation: get(row, "generation")?,
        state: parsed(row, "state")?,
        status: status
            .map(|status| status.parse())
            .transpose()
            .map_err(unreadable)?,
        attempts: get(row, "attempts")?,
        members: get(row, "members")?,
        body_hash: hash(body_hash)?,
        first_sending_at: instant(row, "first_sending_at")?,
        next_at: instant_if_any(row, "next_at")?,
        ended_at: instant_if_any(row, "ended_at")?,
        excused: Duration::from_micros(excused.unsigned_abs()),
        was_ambiguous: get(row, "was_ambiguous")?,
        http_status: get(row, "http_status")?,
        error: get(row, "error")?,
        settled: get(row, "settled")?,
        places: places(get(row, "first_place")?, get(row, "last_place")?),
        refused: json(row, "rejected")?.unwrap_or_default(),
    })
}

/// The places of a part of a batch.
pub(super) fn places(first: Option<i64>, last: Option<i64>) -> Option<(u64, u64)> {
    Some((first?.unsigned_abs(), last?.unsigned_abs()))
}

/// The hash of a body; all zero where the batch is to be sent in other bytes
/// than before.
pub(super) fn hash(stored: Vec<u8>) -> Result<[u8; 32], LedgerError> {
    if stored.is_empty() {
        return Ok([0; 32]);
    }
    let is_short = |_| unreadable("`body_hash` is not 32 bytes");
    stored.try_into().map_err(is_short)
}

/// The value of a column.
pub(super) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, LedgerError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(unusable)
}

/// The instant in a column.
pub(super) fn instant(row: &SqliteRow, column: &str) -> Result<Timestamp, LedgerError> {
    Timestamp::from_microsecond(get(row, column)?).map_err(unreadable)
}

/// The instant in a column that may hold none.
pub(super) fn instant_if_any(
    row: &SqliteRow,
    column: &str,
) -> Result<Option<Timestamp>, LedgerError> {
    get::<Option<i64>>(row, column)?
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(unreadable)
}

fn parsed<T>(row: &SqliteRow, column: &str) -> Result<T, LedgerError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    get::<&str>(row, column)?.parse().map_err(unreadable)
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<Option<T>, LedgerError> {
    get::<Option<&str>>(row, column)?
        .map(serde_json::from_str)
        .transpose()
        .map_err(unreadable)
}
