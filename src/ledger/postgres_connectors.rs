//! What the ledger's server knows of connectors: whether something is wrong
//! with one, and what a person has accepted.

use super::command::Failure;
use super::postgres::within;
use super::postgres_rows as rows;
use super::trouble::unreadable;
use crate::id::{ConnectorName, RunId};
use crate::run::LedgerError;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;

// The warehouse had a row in `runs` of every run in one of these states.
const NEWEST: &str = "/* newest settled */ \
    select r.run_id from runs r where r.connector = $1 \
    and r.state in ('sending', 'settling', 'closing', 'finished', 'incomplete') \
    and r.seq > coalesce((select accepted_seq from connectors where connector = $1), 0) \
    order by r.seq desc limit 1";

const ALARM: &str = "/* alarm */ \
    insert into connectors (connector, alarm) values ($1, $2) \
    on conflict (connector) do update set alarm = excluded.alarm";

const ACCEPT: &str = "/* accept */ \
    insert into connectors (connector, accepted_seq) \
    select $1, coalesce(max(seq), 0) from runs where connector = $1 \
    on conflict (connector) do update set alarm = null, accepted_seq = excluded.accepted_seq";

const ALARMS: &str = "/* alarms */ \
    select connector, alarm from connectors where alarm is not null order by connector";

/// The newest run of the connector that its warehouse must know.
pub(super) async fn newest_settled(
    readers: &PgPool,
    connector: &ConnectorName,
) -> Result<Option<RunId>, LedgerError> {
    let query = sqlx::query_scalar(NEWEST).bind(connector.as_str());
    let run: Option<String> = within(query.fetch_optional(readers)).await?;
    run.map(|run| run.parse().map_err(unreadable)).transpose()
}

/// The connectors with something wrong, and what it is.
pub(super) async fn alarms(readers: &PgPool) -> Result<Vec<(ConnectorName, String)>, LedgerError> {
    let found = within(sqlx::query(ALARMS).fetch_all(readers)).await?;
    let alarm = |row| {
        let name: &str = rows::get(row, "connector")?;
        Ok((name.parse().map_err(unreadable)?, rows::get(row, "alarm")?))
    };
    found.iter().map(alarm).collect()
}

/// Notes what is wrong with a connector, or that nothing is any more.
pub(super) async fn set_alarm(
    db: &mut PgConnection,
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
    db: &mut PgConnection,
    connector: &ConnectorName,
) -> Result<(), Failure> {
    sqlx::query(ACCEPT)
        .bind(connector.as_str())
        .execute(db)
        .await?;
    Ok(())
}
