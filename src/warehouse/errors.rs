//! Database errors as the engine sees them: what can be done, in clear words,
//! without a member's data.

use crate::audience::Statement;
use crate::history::{TABLES, Unwritable};
use crate::run::{WarehouseError, WarehouseErrorClass};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
use sqlx::sqlite::SqliteError;
use std::time::Duration;

/// An error of ours, with no code of the warehouse's.
pub(super) fn error(class: WarehouseErrorClass, message: impl Into<String>) -> WarehouseError {
    WarehouseError {
        class,
        code: None,
        message: message.into(),
        place: None,
    }
}

/// A row that cannot be written.
pub(super) fn unwritable(unwritable: impl Into<Unwritable>) -> WarehouseError {
    error(
        WarehouseErrorClass::Statement,
        unwritable.into().to_string(),
    )
}

/// A statement that did not end in time.
pub(super) fn too_slow(limit: Duration) -> WarehouseError {
    let message = format!(
        "the warehouse did not answer within {}; the connection was closed",
        humantime::format_duration(limit)
    );
    error(WarehouseErrorClass::Cancelled, message)
}

/// What went wrong while `statement` was run.
pub(super) fn at_statement(failure: &sqlx::Error, statement: &Statement) -> WarehouseError {
    use WarehouseErrorClass as C;
    match failure {
        sqlx::Error::Database(database) => in_database(database.as_ref(), Some(statement)),
        sqlx::Error::Io(io) => {
            let kind = io.kind();
            error(
                C::Lost,
                format!("the connection to the warehouse was lost: {kind}"),
            )
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => error(
            C::Statement,
            "the warehouse sent a value that is not valid UTF-8; cast or leave out the column",
        ),
        _ => error(C::Lost, "the connection to the warehouse was lost"),
    }
}

/// What a database answered: while `statement` was run, or at the login.
pub(super) fn in_database(
    database: &dyn DatabaseError,
    statement: Option<&Statement>,
) -> WarehouseError {
    let mut found = if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
        in_postgres(postgres, statement)
    } else if let Some(sqlite) = database.try_downcast_ref::<SqliteError>() {
        in_sqlite(sqlite, statement)
    } else {
        error(
            WarehouseErrorClass::Statement,
            scrub(database.message(), false),
        )
    };
    if is_our_table_missing(&found, statement) {
        found.class = WarehouseErrorClass::Configuration;
        found.message = TABLES_MISSING.to_owned();
        found.place = None;
    }
    found
}

/// What to do when our tables are not there.
pub(super) const TABLES_MISSING: &str =
    "the daemon's tables are not there; run `campaignd bootstrap NAME --apply`";

/// PostgreSQL names the schema where that is missing too. A campaign's own
/// query may miss tables of its own; it does not read ours.
fn is_our_table_missing(found: &WarehouseError, statement: Option<&Statement>) -> bool {
    let is_ours = statement.is_some_and(|statement| statement.campaign_sql.is_none());
    let names = |table: &str| {
        let message = &found.message;
        message.contains(&format!(".{table}\"")) || message.contains(&format!("\"{table}\""))
    };
    match found.code.as_deref() {
        Some("3F000") => is_ours,
        Some("42P01") => is_ours && TABLES.iter().any(|table| names(table.name)),
        _ => false,
    }
}

/// What to say of a statement that the server has ended early.
const CANCELLED: &str = "the warehouse cancelled the statement: it took longer than the \
    connector's `statement_timeout`, or somebody, or a rule of its queue, has ended it";

fn in_postgres(found: &PgDatabaseError, statement: Option<&Statement>) -> WarehouseError {
    let (code, text) = (found.code(), found.message());
    let class = postgres_class(code, text, found.detail().unwrap_or(""));
    // Names are in double quotes where the error is about names, data where
    // it is about data.
    let is_about_names = ["42", "3D", "3F", "28", "26", "55"]
        .iter()
        .any(|c| code.starts_with(c));
    // What a function raises is free text, and may name anybody.
    let mut message = match class {
        _ if code.starts_with("P0") => "a function that the query calls raised an error".to_owned(),
        // The two servers have a dozen ways of saying it.
        WarehouseErrorClass::Cancelled => CANCELLED.to_owned(),
        _ => scrub(text, is_about_names),
    };
    if let Some(advice) = advice(code) {
        message = format!("{message}; {advice}");
    }
    let place = match (found.position(), statement) {
        (Some(PgErrorPosition::Original(at)), Some(statement)) => {
            statement.campaign_place(at.saturating_sub(1))
        }
        _ => None,
    };
    WarehouseError {
        class,
        code: Some(code.to_owned()),
        message,
        place,
    }
}

/// Redshift reports much under `XX000`, so the message decides with the code.
fn postgres_class(code: &str, message: &str, detail: &str) -> WarehouseErrorClass {
    use WarehouseErrorClass as C;
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let is_serialization = code == "XX000"
        && (message == "1023" || message == "1018" || detail.contains("Serializable isolation"));
    let meets_another = [
        "conflict with concurrent transaction",
        "could not open relation with oid",
    ];
    if is_serialization || says(&meets_another) || matches!(code, "40001" | "40P01") {
        return C::Conflict;
    }
    // Code 1020: workload management has ended it, and says no more than that.
    let by_system = code == "XX000" && detail.contains("system requested abort");
    let strained = ["disk full", "wlm abort action", "qmr abort"];
    if code.starts_with("53") || says(&strained) || by_system {
        return C::Busy;
    }
    let by_request = ["canceled on user's request", "cancelled on user's request"];
    if code == "57014" || says(&by_request) {
        return C::Cancelled;
    }
    if code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P03" | "58030") {
        return C::Lost;
    }
    match code {
        "28000" | "28P01" | "3D000" | "42501" => C::Configuration,
        _ => C::Statement,
    }
}

fn advice(code: &str) -> Option<&'static str> {
    match code {
        "28000" | "28P01" => Some("correct `auth` of the connector"),
        "3D000" => Some("correct `database` of the connector"),
        "25006" => Some("a function that the query calls writes, and a query only reads"),
        "42501" => {
            Some("an administrator must grant it; `campaignd bootstrap NAME` prints the SQL")
        }
        _ => None,
    }
}

fn in_sqlite(found: &SqliteError, statement: Option<&Statement>) -> WarehouseError {
    use WarehouseErrorClass as C;
    let code = found.code().map(|code| code.into_owned());
    let number = code.as_deref().and_then(|code| code.parse::<i32>().ok());
    let (class, advice) = match number.unwrap_or(1) & 0xff {
        5 | 6 => (C::Conflict, ""),
        7 | 10 => (C::Busy, ""),
        13 => (C::Busy, "; make room on the disk"),
        9 => (C::Cancelled, ""),
        3 | 8 | 14 | 23 => (C::Configuration, "; check that `path` can be written"),
        11 | 26 => (C::Configuration, "; `path` is not a sound SQLite file"),
        _ => (C::Statement, ""),
    };
    WarehouseError {
        class,
        code,
        message: format!("{}{advice}", scrub(found.message(), true)),
        place: statement.and_then(|statement| sqlite_place(found.message(), statement)),
    }
}

/// SQLite's driver gives no position; the word the message names does, where
/// it is there once.
fn sqlite_place(message: &str, statement: &Statement) -> Option<(usize, usize)> {
    let text = statement.campaign_text()?;
    let word = match message.split_once("near \"") {
        Some((_, rest)) => rest.split('"').next()?,
        None => message.rsplit_once(": ")?.1,
    };
    let mut found = text.match_indices(word);
    let (at, _) = found.next().filter(|_| !word.is_empty())?;
    if found.next().is_some() {
        return None;
    }
    let start = statement.campaign_sql.clone()?.start;
    statement.campaign_place(start + text[..at].chars().count())
}

/// Takes what may be a member's data out of a database's message: numbers,
/// quoted text, addresses; names in double quotes unless told otherwise.
fn scrub(message: &str, keep_names: bool) -> String {
    let mut clean = String::new();
    let mut rest = message.lines().next().unwrap_or("");
    while let Some(first) = rest.chars().next() {
        let is_quote = first == '\'' || (first == '"' && !keep_names);
        let is_word = |c: char| c.is_alphanumeric() || "_@.+-%".contains(c);
        let taken = if first == '\'' || first == '"' {
            quoted_length(rest, first)
        } else if is_word(first) {
            rest.find(|c: char| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (piece, after) = rest.split_at(taken);
        let is_number = first.is_ascii_digit()
            || (taken > 1
                && "+-.".contains(first)
                && piece[1..].starts_with(|c: char| c.is_ascii_digit()));
        if is_quote || is_number || piece.contains('@') {
            clean.push('…');
        } else {
            clean.push_str(piece);
        }
        rest = after;
    }
    clean
}

/// The length of the quoted text that `rest` begins with. Where the quote is
/// not closed, everything is taken for data; so is it where the text holds
/// quotes of its own, up to the last one.
fn quoted_length(rest: &str, quote: char) -> usize {
    let is_name = quote == '"';
    let close = match is_name {
        true => rest[1..].find(quote),
        false => rest[1..].rfind(quote),
    };
    close.map_or(rest.len(), |at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrubbed_message_holds_no_data() {
        let cases = [
            (
                r#"invalid input syntax for type integer: "ada@example.com""#,
                false,
                "invalid input syntax for type integer: …",
            ),
            (
                r#"column "emial" does not exist"#,
                true,
                r#"column "emial" does not exist"#,
            ),
            (
                "value 'O'Hara' is out of range: -12.5",
                false,
                "value … is out of range: …",
            ),
            ("mail to ada@example.com failed", true, "mail to … failed"),
            (r#"no "ada" here "#, false, "no … here "),
        ];
        for (message, keep_names, clean) in cases {
            assert_eq!(scrub(message, keep_names), clean);
        }
    }

    #[test]
    fn redshifts_own_errors_are_told_apart_by_their_words() {
        use WarehouseErrorClass as C;
        let cases = [
            ("XX000", "1023", C::Conflict),
            ("XX000", "could not open relation with OID 12", C::Conflict),
            (
                "XX000",
                "Query (150) cancelled by WLM abort action",
                C::Busy,
            ),
            (
                "57014",
                "Query (150) canceled on user's request",
                C::Cancelled,
            ),
            ("53300", "too many connections", C::Busy),
            ("57P01", "terminating connection", C::Lost),
            ("28P01", "password authentication failed", C::Configuration),
            ("42703", "column does not exist", C::Statement),
            ("XX000", "1018", C::Conflict),
            ("40001", "could not serialize access", C::Conflict),
            ("40P01", "deadlock detected", C::Conflict),
            ("XX000", "Disk Full", C::Busy),
            ("53200", "out of memory", C::Busy),
            ("XX000", "Query (1) cancelled by QMR abort action", C::Busy),
            ("57P02", "crash shutdown", C::Lost),
            ("57P03", "the database is starting up", C::Lost),
            ("08006", "connection failure", C::Lost),
            ("58030", "could not read block", C::Lost),
            ("28000", "no such user", C::Configuration),
            ("3D000", "no such database", C::Configuration),
            ("42501", "permission denied", C::Configuration),
            ("22001", "value too long", C::Statement),
            ("0A000", "not supported", C::Statement),
            ("23502", "null value", C::Statement),
        ];
        for (code, message, class) in cases {
            assert_eq!(postgres_class(code, message, ""), class, "{code} {message}");
        }
        let abort = "error: abort query code: 1020 context: system requested abort query: 1903";
        assert_eq!(postgres_class("XX000", "abort query", abort), C::Busy);
        assert_eq!(postgres_class("XX000", "abort query", ""), C::Statement);
    }
}
