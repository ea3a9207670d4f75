//! Writes and reads of the emergency stop, on the ledger's server.

use super::command::Failure;
use super::postgres::within;
use super::postgres_rows as rows;
use super::rows::micros;
use super::trouble::unreadable;
use super::write_pause::done;
use crate::id::RunId;
use crate::run::{Action, LedgerError, PauseChange, PauseScope, Paused};
use jiff::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use std::collections::BTreeSet;

/// Writes what is paused from now on, and who said so.
pub(super) async fn set(db: &mut PgConnection, change: &PauseChange) -> Result<(), Failure> {
    let scope = change.scope.to_string();
    let query = match change.paused {
        true => sqlx::query(
            "/* pause */ insert into pauses (scope, who, since) values ($1, $2, $3) \
             on conflict do nothing",
        )
        .bind(&scope)
        .bind(&change.by)
        .bind(micros(change.at)),
        false => sqlx::query("/* unpause */ delete from pauses where scope = $1").bind(&scope),
    };
    query.execute(&mut *db).await?;
    let verb = if change.paused { "pause" } else { "unpause" };
    note(db, &done(&change.by, verb, &scope, change.at)).await
}

/// What is paused.
pub(super) async fn all(readers: &PgPool) -> Result<BTreeSet<PauseScope>, LedgerError> {
    let query = sqlx::query_scalar("/* pauses */ select scope from pauses");
    let scopes: Vec<String> = within(query.fetch_all(readers)).await?;
    let parsed = scopes.iter().map(|scope| scope.parse().map_err(unreadable));
    parsed.collect()
}

/// What is paused, and what is known of it; of a pause of an older version, or
/// in a store that such a one has written, nothing is.
pub(super) async fn paused(readers: &PgPool) -> Result<Vec<Paused>, LedgerError> {
    let query = sqlx::query(
        "/* paused */ select scope, to_jsonb(p) ->> 'who' as who, \
         (to_jsonb(p) ->> 'since')::bigint as since from pauses p order by scope",
    );
    let found = within(query.fetch_all(readers)).await?;
    let read = found.iter().map(|row| {
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

/// Writes that the run is cancelled, and who said so.
pub(super) async fn cancel(
    db: &mut PgConnection,
    run: &RunId,
    by: &str,
    at: Timestamp,
) -> Result<(), Failure> {
    sqlx::query("/* cancel */ insert into cancels (run_id) values ($1) on conflict do nothing")
        .bind(run.as_str())
        .execute(&mut *db)
        .await?;
    note(db, &done(by, "cancel", run.as_str(), at)).await
}

/// Whether the run is cancelled.
pub(super) async fn is_cancelled(readers: &PgPool, run: &RunId) -> Result<bool, LedgerError> {
    let query =
        sqlx::query_scalar("/* is cancelled */ select count(*) from cancels where run_id = $1")
            .bind(run.as_str());
    let found: i64 = within(query.fetch_one(readers)).await?;
    Ok(found > 0)
}

/// Writes who asked what of what, or what came of it.
pub(super) async fn note(db: &mut PgConnection, action: &Action) -> Result<(), Failure> {
    let complete = "/* action ended */ update actions set outcome = $5::text \
                    where at = $1 and who = $2 and verb = $3 and target = $4 \
                    and outcome is null and $5::text is not null";
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
                  values ($1, $2, $3, $4, $5)";
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
