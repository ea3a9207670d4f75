//! How a connector's report asks: short questions, and some that may go
//! without an answer.

use super::connect::Rows;
use super::pool::Session;
use crate::audience::{Dialect, Statement};
use crate::run::{WarehouseError, WarehouseErrorClass};

/// A statement of the report.
pub(super) fn statement(sql: &str) -> Statement {
    Statement::new("inspect", "connector", sql)
}

/// The rows of a question.
pub(super) async fn rows(session: &mut Session, sql: &str) -> Result<Rows, WarehouseError> {
    session.rows(&statement(sql)).await
}

/// The rows of a question that this login, or this release of the server, may
/// have no answer to: then none.
pub(super) async fn visible_rows(
    session: &mut Session,
    sql: &str,
) -> Result<Option<Rows>, WarehouseError> {
    match rows(session, sql).await {
        Ok(rows) => Ok(Some(rows)),
        Err(failed) => match failed.class {
            WarehouseErrorClass::Statement | WarehouseErrorClass::Configuration => Ok(None),
            _ => Err(failed),
        },
    }
}

/// The rows of a question to what campaigns read, where nothing is written
/// whatever a view calls; or what the warehouse has against it.
pub(super) async fn rows_read_only(
    session: &mut Session,
    dialect: Dialect,
    sql: &str,
) -> Result<Result<Rows, WarehouseError>, WarehouseError> {
    if dialect == Dialect::Sqlite {
        return Ok(rows(session, sql).await);
    }
    session.run(&statement("begin read only")).await?;
    let answer = rows(session, sql).await;
    session.run(&statement("rollback")).await?;
    Ok(answer)
}

/// The first cell of a row.
pub(super) fn first(row: Vec<Option<String>>) -> Option<String> {
    row.into_iter().next().flatten()
}

/// The first cell of the answer; empty where there is none.
pub(super) async fn text(session: &mut Session, sql: &str) -> Result<String, WarehouseError> {
    let answer = rows(session, sql).await?;
    Ok(answer.into_iter().find_map(first).unwrap_or_default())
}

/// The cell at `at`, empty where there is none.
pub(super) fn cell(row: &[Option<String>], at: usize) -> String {
    row.get(at).cloned().flatten().unwrap_or_default()
}

/// Whether the cell at `at` says yes, in any of the databases.
pub(super) fn is_true(row: &[Option<String>], at: usize) -> bool {
    matches!(cell(row, at).as_str(), "t" | "1")
}

/// Those of `words` whose cells, from `from` on, say yes.
pub(super) fn held(row: &[Option<String>], from: usize, words: &[&str]) -> Vec<String> {
    let all = words.iter().enumerate();
    let held = all.filter(|(at, _)| is_true(row, from + at));
    held.map(|(_, word)| (*word).to_owned()).collect()
}
