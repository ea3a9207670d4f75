//! Lint of a campaign's SQL. A stand-in with the agreed signature.

/// One thing wrong with, or worth knowing about, a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlProblem {
    /// What is wrong.
    pub message: String,
    /// The line in the query, from 1.
    pub line: usize,
    /// The column in that line, in characters, from 1.
    pub column: usize,
    /// Whether it is no more than a hint.
    pub is_note: bool,
}

/// Checks `sql`, whose key column is `key`.
pub fn lint(_sql: &str, _key: &str) -> Vec<SqlProblem> {
    Vec::new()
}
