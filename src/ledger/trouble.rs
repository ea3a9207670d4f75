//! What the engine is told of a database error.

use crate::run::LedgerError;
use std::path::Path;

/// SQLite's primary result codes that a person can do something about.
const HINTS: [(i32, &str); 7] = [
    (5, "another program holds a lock on it; end that program"),
    (
        8,
        "it cannot be written; look at the rights of the file and its folder",
    ),
    (
        10,
        "the disk does not answer as it should; look at the machine's own log",
    ),
    (11, "the file is damaged; restore it from a backup"),
    (13, "the disk is full; make room"),
    (
        14,
        "it cannot be opened; look at the rights of the file and its folder",
    ),
    (26, "the file is not a database"),
];

/// A database error, in the words of the port.
pub(super) fn unusable(error: sqlx::Error) -> LedgerError {
    let hint = error
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<i32>().ok())
        // The upper bits of an extended code only say more of the same.
        .map(|code| code & 0xff)
        .and_then(|code| HINTS.iter().find(|(known, _)| *known == code));
    let message = match hint {
        Some((_, hint)) => format!("{error}: {hint}"),
        None => error.to_string(),
    };
    LedgerError::Unusable { message }
}

/// A row that this program did not write, or no longer understands.
pub(super) fn unreadable(what: impl std::fmt::Display) -> LedgerError {
    let message = format!("a row cannot be read: {what}; was it written by a newer version?");
    LedgerError::Unusable { message }
}

/// An error of the file system around the store.
pub(super) fn file(path: &Path, error: &std::io::Error) -> LedgerError {
    let message = format!("{}: {error}", path.display());
    LedgerError::Unusable { message }
}

/// A transition that did not find what it expects.
pub(super) fn conflict(what: impl Into<String>) -> LedgerError {
    LedgerError::Conflict { what: what.into() }
}
