//! A ledger on a PostgreSQL server.

use super::postgres::ConnDetails;
use campaignd::ledger::{Encryption, PostgresLedger, PostgresOptions};

/// How it is reached.
pub fn options(database: &ConnDetails) -> PostgresOptions {
    PostgresOptions {
        host: database.host.clone(),
        port: database.port,
        user: database.user.clone(),
        password: String::new().into(),
        database: database.database.clone(),
        encryption: Encryption::Disable,
        ca_file: None,
    }
}

/// Opens it as another host each time.
pub async fn open(database: &ConnDetails) -> PostgresLedger {
    PostgresLedger::open(options(database)).await.unwrap()
}
