//! Rows of the ledger's server as records, and the values in them.

use super::postgres_trouble::unusable;
use super::trouble::unreadable;
use crate::id::BatchPath;
use crate::run::{BatchRecord, LedgerError, RunRecord};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::str::FromStr;
use std::time::Duration;

/// The run in a row of [`super::rows::run_columns`].
pub(super) fn run(row: &PgRow) -> Result<RunRecord, LedgerError> {
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

/// The batch in a row of [`super::rows::batch_columns`].
pub(super) fn batch(row: &PgRow) -> Result<BatchRecord, LedgerError> {
    let status: Option<String> = get(row, "status")?;
    let body_hash: Vec<u8> = get(row, "body_hash")?;
    let http_status: Option<i32> = get(row, "http_status")?;
    let excused: i64 = get(row, "excused")?;
    Ok(BatchRecord {
        path: BatchPath {
            batch: count(row, "batch")?,
            part: get(row, "part")?,
        },
        generation: count(row, "generation")?,
        state: parsed(row, "state")?,
        status: status
            .map(|status| status.parse())
            .transpose()
            .map_err(unreadable)?,
        attempts: count(row, "attempts")?,
        members: count(row, "members")?,
        body_hash: super::rows::hash(body_hash)?,
        first_sending_at: instant(row, "first_sending_at")?,
        next_at: instant_if_any(row, "next_at")?,
        ended_at: instant_if_any(row, "ended_at")?,
        excused: Duration::from_micros(excused.unsigned_abs()),
        was_ambiguous: get(row, "was_ambiguous")?,
        http_status: http_status
            .map(u16::try_from)
            .transpose()
            .map_err(unreadable)?,
        error: get(row, "error")?,
        settled: get(row, "settled")?,
        places: super::rows::places(get(row, "first_place")?, get(row, "last_place")?),
        refused: json(row, "rejected")?.unwrap_or_default(),
    })
}

/// The value of a column.
pub(super) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, LedgerError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(unusable)
}

/// The instant in a column.
pub(super) fn instant(row: &PgRow, column: &str) -> Result<Timestamp, LedgerError> {
    Timestamp::from_microsecond(get(row, column)?).map_err(unreadable)
}

pub(super) fn instant_if_any(row: &PgRow, column: &str) -> Result<Option<Timestamp>, LedgerError> {
    get::<Option<i64>>(row, column)?
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(unreadable)
}

fn count(row: &PgRow, column: &str) -> Result<u32, LedgerError> {
    u32::try_from(get::<i64>(row, column)?).map_err(unreadable)
}

fn parsed<T>(row: &PgRow, column: &str) -> Result<T, LedgerError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    get::<&str>(row, column)?.parse().map_err(unreadable)
}

fn json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>, LedgerError> {
    get::<Option<&str>>(row, column)?
        .map(serde_json::from_str)
        .transpose()
        .map_err(unreadable)
}
