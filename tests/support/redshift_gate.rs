//! What makes the gate a door to Redshift: which statements are refused or put
//! into PostgreSQL's words, and what all its sessions have in common. What is
//! refused is decided by plain functions beside this file.

use super::gate::Logged;
use super::gate_wire::Refusal;
use super::postgres::ConnDetails;
use super::redshift_gate_history::history;
use super::redshift_gate_rewrites::{Rewritten, rewrite};
use super::redshift_gate_rules::{Session, refusal};
use super::redshift_gate_words::{Word, words};
use super::site::postgres_rows;
use std::collections::BTreeMap;
use std::sync::Mutex;

pub use super::redshift_gate_login::{PASSWORD, SHA256_USER};

/// The longest statement, in bytes.
const MAX_STATEMENT: usize = 16 * 1024 * 1024;

const SETUP: &str = include_str!("redshift_gate_setup.sql");

/// Redshift's numbers of the types that PostgreSQL has not. [D AWS Python
/// driver, utils/oids.py]
pub const TYPES: &[(&str, u32)] = &[
    ("super", 4000),
    ("varbyte", 6551),
    ("geometry", 3000),
    ("geography", 3001),
];

/// What the sessions of one gate have in common.
pub struct Redshift {
    database: ConnDetails,
    /// PostgreSQL's numbers of our types, and Redshift's.
    pub(super) types: BTreeMap<u32, u32>,
    /// Prepared statements that are open, over all sessions.
    pub(super) prepared: Mutex<usize>,
    /// One at a time writes history down.
    writing: tokio::sync::Mutex<()>,
}

impl Redshift {
    /// Makes `database` one.
    pub async fn found(database: &ConnDetails) -> Self {
        postgres_rows(database, SETUP).await;
        // What new clusters and Serverless have is snapshot isolation.
        let name = &database.database;
        let isolation = "set default_transaction_isolation = 'repeatable read'";
        postgres_rows(database, &format!("alter database {name} {isolation}")).await;
        let found = "select oid, typname from pg_type \
                     where typnamespace = 'pg_catalog'::regnamespace and typtype = 'b'";
        let found = postgres_rows(database, found).await;
        let types = found.iter().filter_map(|row| {
            let cell = |name: &str| row[name].as_deref().unwrap();
            let (_, theirs) = TYPES.iter().find(|(name, _)| *name == cell("typname"))?;
            Some((cell("oid").parse().unwrap(), *theirs))
        });
        Self {
            database: database.clone(),
            types: types.collect(),
            prepared: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Named statements that clients have prepared and not closed.
    pub fn prepared(&self) -> usize {
        *self.prepared.lock().unwrap()
    }

    /// Writes down what has ended, for who reads `sys_query_history`.
    pub(super) async fn write_history(&self, log: &[Logged]) {
        let _turn = self.writing.lock().await;
        postgres_rows(&self.database, &history(&self.database, log)).await;
    }
}

/// What becomes of a statement's SQL.
pub enum Verdict {
    /// Passed on, in PostgreSQL's words.
    Passed(Rewritten),
    /// Refused, with this error.
    Refused(Refusal),
}

/// One message of SQL, judged.
pub fn judge(sql: &str, mut session: Session) -> Verdict {
    if sql.len() > MAX_STATEMENT {
        let message = format!(
            "Statement is too large. Statement Size: {} bytes. Maximum Allowed: {MAX_STATEMENT} bytes",
            sql.len()
        );
        return Verdict::Refused(Refusal::error("54000", message));
    }
    let all = words(sql);
    for statement in statements(&all) {
        if let Some(refused) = refusal(&statement, session) {
            return Verdict::Refused(refused);
        }
        session = session.after(&statement);
    }
    Verdict::Passed(rewrite(sql, &all))
}

/// The statements of a message, each by its own words.
pub fn statements(all: &[Word]) -> Vec<Vec<Word>> {
    let each = all.split(|word| word.text == ";" && word.within.is_none());
    each.map(|statement| relative(statement, all)).collect()
}

/// The words of one of several statements, counted from its own first.
fn relative(statement: &[Word], all: &[Word]) -> Vec<Word> {
    let first = statement
        .first()
        .and_then(|word| all.iter().position(|other| other == word));
    let first = first.unwrap_or(0);
    let own = |word: &Word| Word {
        within: word.within.map(|open| open - first),
        ..word.clone()
    };
    statement.iter().map(own).collect()
}
