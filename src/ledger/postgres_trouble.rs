//! What the engine is told of an error of the ledger's server.

use crate::run::LedgerError;

/// SQLSTATEs and their classes that a person can do something about.
const HINTS: [(&str, &str); 6] = [
    ("28", "look at the user and password in `state.url`"),
    ("3D", "make the database, or name another in `state.url`"),
    (
        "42501",
        "grant the user `create` on the database, or make the schema campaignd_ledger for it",
    ),
    ("53100", "the server's disk is full; make room"),
    ("53", "the server is out of room for it"),
    ("25006", "the server is a standby; name the primary"),
];

/// SQLSTATEs after which the whole transaction is simply done again: two hosts
/// met, and nothing was written.
const MET: [&str; 3] = ["40001", "40P01", "55P03"];

/// A database error, in the words of the port.
pub(super) fn unusable(error: sqlx::Error) -> LedgerError {
    let code = code(&error);
    let hint = code
        .as_deref()
        .and_then(|code| HINTS.iter().find(|(known, _)| code.starts_with(known)));
    let message = match hint {
        Some((_, hint)) => format!("{error}: {hint}"),
        None => error.to_string(),
    };
    LedgerError::Unusable { message }
}

/// Whether the transaction may be done again as it is.
pub(super) fn has_met_another(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| MET.contains(&code.as_str()))
}

/// The server at `target` does not answer.
pub(super) fn silent(target: &str) -> LedgerError {
    let message = format!("the server at {target} does not answer");
    LedgerError::Unusable { message }
}

fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}
