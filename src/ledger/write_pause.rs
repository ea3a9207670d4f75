//! Writes and reads of the emergency stop.

use super::command::Failure;
use super::rows::micros;
use super::trouble::{unreadable, unusable};
use crate::id::RunId;
use crate::run::{LedgerError, PauseChange, PauseScope};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use std::collections::BTreeSet;

/// Writes what is paused from now on, and who said so.
pub(super) async fn set(db: &mut SqliteConnection, change: &PauseChange) -> Result<(), Failure> {
    let statement = match change.paused {
        true => "/* pause */ insert into pauses (scope) values (?1) on conflict do nothing",
        false => "/* unpause */ delete from pauses where scope = ?1",
    };
    let scope = change.scope.to_string();
    sqlx::query(statement)
        .bind(&scope)
        .execute(&mut *db)
        .await?;
    let verb = if change.paused { "pause" } else { "unpause" };
    note(db, (&change.by, verb, &scope), change.at).await
}

/// What is paused. A store that was written by an older version has none.
pub(super) async fn all(readers: &SqlitePool) -> Result<BTreeSet<PauseScope>, LedgerError> {
    let there: i64 = sqlx::query_scalar(
        "/* pauses there */ select count(*) from sqlite_master where type = 'table' and name = 'pauses'",
    )
    .fetch_one(readers)
    .await
    .map_err(unusable)?;
    if there == 0 {
        return Ok(BTreeSet::new());
    }
    let scopes: Vec<String> = sqlx::query_scalar("/* pauses */ select scope from pauses")
        .fetch_all(readers)
        .await
        .map_err(unusable)?;
    let parsed = scopes.iter().map(|scope| scope.parse().map_err(unreadable));
    parsed.collect()
}

/// Writes that the run is cancelled, and who said so.
pub(super) async fn cancel(
    db: &mut SqliteConnection,
    run: &RunId,
    by: &str,
    at: Timestamp,
) -> Result<(), Failure> {
    sqlx::query("/* cancel */ insert into cancels (run_id) values (?1) on conflict do nothing")
        .bind(run.as_str())
        .execute(&mut *db)
        .await?;
    note(db, (by, "cancel", run.as_str()), at).await
}

/// Whether the run is cancelled.
pub(super) async fn is_cancelled(readers: &SqlitePool, run: &RunId) -> Result<bool, LedgerError> {
    let query =
        sqlx::query_scalar("/* is cancelled */ select count(*) from cancels where run_id = ?1")
            .bind(run.as_str());
    let found: i64 = query.fetch_one(readers).await.map_err(unusable)?;
    Ok(found > 0)
}

/// Writes who did what to what.
pub(super) async fn note(
    db: &mut SqliteConnection,
    (by, verb, target): (&str, &str, &str),
    at: Timestamp,
) -> Result<(), Failure> {
    sqlx::query("/* action */ insert into actions (at, who, verb, target) values (?1, ?2, ?3, ?4)")
        .bind(micros(at))
        .bind(by)
        .bind(verb)
        .bind(target)
        .execute(db)
        .await?;
    Ok(())
}
