//! How the three databases differ in the SQL we write, in one place.

use crate::id::RunId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The database a statement is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Embedded, for the demo and for trying things out.
    Sqlite,
    /// PostgreSQL 12 or later.
    Postgres,
    /// Amazon Redshift, provisioned or Serverless.
    Redshift,
}

/// The names of a run's own tables, without the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableNames {
    /// The frozen audience, as the query returned it.
    pub stage: String,
    /// Who of it is contacted, and in which place.
    pub admit: String,
    /// The planned members, wide, in the order they are sent.
    pub run: String,
}

impl TableNames {
    /// The tables of `run`: a prefix and 16 hexadecimal digits of the run
    /// id's SHA-256.
    pub fn of(run: &RunId) -> Self {
        let digest = Sha256::digest(run.as_str().as_bytes());
        let hash = hex::encode(&digest[..8]);
        Self {
            stage: format!("stage_{hash}"),
            admit: format!("admit_{hash}"),
            run: format!("run_{hash}"),
        }
    }
}
