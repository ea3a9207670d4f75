//! The warehouse's own log of what was asked, `SYS_QUERY_HISTORY`: what the
//! gate has seen, in the columns that infosec knows.

use super::gate::Logged;
use super::gate_acts::Act;
use super::postgres::ConnDetails;
use std::time::{Duration, SystemTime};

/// The statement that writes down all of `log` anew.
pub(super) fn history(database: &ConnDetails, log: &[Logged]) -> String {
    let rows = log.iter().filter(|ended| !ended.sql.is_empty()).enumerate();
    let rows: Vec<String> = rows.map(|(n, ended)| row(database, n, ended)).collect();
    let empty = "delete from pg_catalog.redshift_query_history";
    match rows.is_empty() {
        true => empty.to_owned(),
        false => format!(
            "{empty}; insert into pg_catalog.redshift_query_history values {}",
            rows.join(", ")
        ),
    }
}

/// In the order of the table's columns.
fn row(database: &ConnDetails, number: usize, ended: &Logged) -> String {
    let status = match &ended.act {
        _ if ended.is_done => "success",
        Act::Refuse(refusal) if refusal.code == "57014" => "canceled",
        _ => "failed",
    };
    let group = ended.session.query_group.as_deref().unwrap_or("default");
    let text = [&ended.session.user, group, &database.database, status];
    let [user, group, database, status] = text.map(literal);
    let began = ended.began.duration_since(SystemTime::UNIX_EPOCH);
    let began = began.unwrap_or(Duration::ZERO).as_secs_f64();
    format!(
        "({user}, {}, {group}, {}, {database}, {status}, to_timestamp({began}), {}, {}, {}, {})",
        number + 1,
        ended.session.pid,
        ended.time.as_micros(),
        ended.rows,
        ended.bytes,
        literal(&ended.sql),
    )
}

/// Escapes that are read the same however backslashes are.
fn literal(text: &str) -> String {
    let inside = text.replace('\\', "\\\\").replace('\'', "''");
    format!("e'{inside}'")
}
