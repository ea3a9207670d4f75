//! Writes and reads of the emergency stop.

use super::command::Failure;
use super::rows::{self, micros};
use super::trouble::{unreadable, unusable};
use crate::id::RunId;
use crate::run::{Action, LedgerError, PauseChange, PauseScope, Paused};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use std::collections::BTreeSet;

/// Writes what is paused from now on, and who said so.
pub(super) async fn set(db: &mut SqliteConnection, change: &PauseChange) -> Result<(), Failure> {
    let scope = change.scope.to_string();
    let query = match change.paused {
        true => sqlx::query(
            "/* pause */ insert into pauses (scope, who, since) values (?1, ?2, ?3) \
             on conflict do nothing",
        )
        .bind(&scope)
        .bind(&change.by)
        .bind(micros(change.at)),
        false => sqlx::query("/* unpause */ delete from pauses where scope = ?1").bind(&scope),
    };
    query.execute(&mut *db).await?;
    let verb = if change.paused { "pause" } else { "unpause" };
    note(db, &done(&change.by, verb, &scope, change.at)).await
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

/// What is paused, and what is known of it; of a pause of an older version
/// nothing is.
pub(super) async fn paused(readers: &SqlitePool) -> Result<Vec<Paused>, LedgerError> {
    let known: i64 = sqlx::query_scalar(
        "/* pauses known */ select count(*) from pragma_table_info('pauses') where name = 'since'",
    )
    .fetch_one(readers)
    .await
    .map_err(unusable)?;
    if known == 0 {
        let scopes = all(readers).await?.into_iter();
        let unknown = scopes.map(|scope| Paused {
            scope,
            by: None,
            since: None,
        });
        return Ok(unknown.collect());
    }
    let rows = sqlx::query("/* paused */ select scope, who, since from pauses order by scope")
        .fetch_all(readers)
        .await
        .map_err(unusable)?;
    let read = rows.iter().map(|row| {
        Ok(Paused {
            scope: rows::get::<&str>(row, "scope")?
                .parse()
                .map_err(unreadable)?,
            by: rows::get(row, "who")?,
            since: rows::instant_if_any(row, "since")?,
        })
    });
    read.collect()
}

/// What was asked and done at once.
pub(super) fn done(by: &str, verb: &str, target: &str, at: Timestamp) -> Action {
    Action {
        by: by.to_owned(),
        verb: verb.to_owned(),
        target: target.to_owned(),
        outcome: Some("done".to_owned()),
        at,
    }
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
    note(db, &done(by, "cancel", run.as_str(), at)).await
}

/// Whether the run is cancelled.
pub(super) async fn is_cancelled(readers: &SqlitePool, run: &RunId) -> Result<bool, LedgerError> {
    let query =
        sqlx::query_scalar("/* is cancelled */ select count(*) from cancels where run_id = ?1")
            .bind(run.as_str());
    let found: i64 = query.fetch_one(readers).await.map_err(unusable)?;
    Ok(found > 0)
}

/// Writes who asked what of what, or what came of it.
pub(super) async fn note(db: &mut SqliteConnection, action: &Action) -> Result<(), Failure> {
    let complete = "/* action ended */ update actions set outcome = ?5 \
                    where at = ?1 and who = ?2 and verb = ?3 and target = ?4 \
                    and outcome is null and ?5 is not null";
    let ended = sqlx::query(complete)
        .bind(micros(action.at))
        .bind(&action.by)
        .bind(&action.verb)
        .bind(&action.target)
        .bind(&action.outcome)
        .execute(&mut *db)
        .await?;
    if ended.rows_affected() > 0 {
        return Ok(());
    }
    let insert = "/* action */ insert into actions (at, who, verb, target, outcome) \
                  values (?1, ?2, ?3, ?4, ?5)";
    sqlx::query(insert)
        .bind(micros(action.at))
        .bind(&action.by)
        .bind(&action.verb)
        .bind(&action.target)
        .bind(&action.outcome)
        .execute(db)
        .await?;
    Ok(())
}
