//! What the ledger knows of connectors: whether something is wrong with one,
//! and what a person has accepted.

use super::command::Failure;
use super::rows;
use super::trouble::{unreadable, unusable};
use crate::id::{ConnectorName, RunId};
use crate::run::LedgerError;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

// The warehouse had a row in `runs` of every run in one of these states.
const NEWEST: &str = "/* newest settled */ \
    select r.run_id from runs r where r.connector = ?1 \
    and r.state in ('sending', 'settling', 'closing', 'finished', 'incomplete') \
    and r.seq > coalesce((select accepted_seq from connectors where connector = ?1), 0) \
    order by r.seq desc limit 1";

const ALARM: &str = "/* alarm */ \
    insert into connectors (connector, alarm) values (?1, ?2) \
    on conflict (connector) do update set alarm = excluded.alarm";

const ACCEPT: &str = "/* accept */ \
    insert into connectors (connector, accepted_seq) \
    select ?1, coalesce(max(seq), 0) from runs where connector = ?1 \
    on conflict (connector) do update set alarm = null, accepted_seq = excluded.accepted_seq";

const THERE: &str = "/* connectors there */ \
    select count(*) from sqlite_master where type = 'table' and name = 'connectors'";

/// The newest run of the connector that its warehouse must know.
pub(super) async fn newest_settled(
    readers: &SqlitePool,
    connector: &ConnectorName,
) -> Result<Option<RunId>, LedgerError> {
    let run: Option<String> = sqlx::query_scalar(NEWEST)
        .bind(connector.as_str())
        .fetch_optional(readers)
        .await
        .map_err(unusable)?;
    run.map(|run| run.parse().map_err(unreadable)).transpose()
}

/// The connectors with something wrong, and what it is. A store that was
/// written by an older version has none.
pub(super) async fn alarms(
    readers: &SqlitePool,
) -> Result<Vec<(ConnectorName, String)>, LedgerError> {
    let there: i64 = sqlx::query_scalar(THERE)
        .fetch_one(readers)
        .await
        .map_err(unusable)?;
    if there == 0 {
        return Ok(Vec::new());
    }
    let found = sqlx::query("/* alarms */ select connector, alarm from connectors where alarm is not null order by connector")
        .fetch_all(readers)
        .await
        .map_err(unusable)?;
    let alarm = |row| {
        let name: &str = rows::get(row, "connector")?;
        Ok((name.parse().map_err(unreadable)?, rows::get(row, "alarm")?))
    };
    found.iter().map(alarm).collect()
}

/// Notes what is wrong with a connector, or that nothing is any more.
pub(super) async fn set_alarm(
    db: &mut SqliteConnection,
    connector: &ConnectorName,
    alarm: Option<&str>,
) -> Result<(), Failure> {
    sqlx::query(ALARM)
        .bind(connector.as_str())
        .bind(alarm)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes that the runs so far may be missing.
pub(super) async fn accept(
    db: &mut SqliteConnection,
    connector: &ConnectorName,
) -> Result<(), Failure> {
    sqlx::query(ACCEPT)
        .bind(connector.as_str())
        .execute(db)
        .await?;
    Ok(())
}
