//! How a ledger on a PostgreSQL server is reached.

use super::postgres_trouble::{silent, unusable};
use crate::run::LedgerError;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use std::path::PathBuf;
use std::time::Duration;

/// The longest a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Reads at a time: a status page, a resume and a settle beside each other.
const MAX_READERS: u32 = 4;

/// What every session begins with: our schema; an answered write survives the
/// server's crash; and no lock is waited for, nor kept by a host that has
/// stopped in the middle, for longer than a lease can bear.
const WRITER: &str = "set search_path to campaignd_ledger; set synchronous_commit to on; \
    set lock_timeout to '10s'; set statement_timeout to '15s'; \
    set idle_in_transaction_session_timeout to '5s'; set client_min_messages to warning; \
    set standard_conforming_strings to on; set default_transaction_isolation to 'read committed'";

const READER: &str = "set search_path to campaignd_ledger; set statement_timeout to '30s'; \
    set client_min_messages to warning; set standard_conforming_strings to on; \
    set default_transaction_read_only to on";

/// Whether and how the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Encrypted, certificate and name checked.
    VerifyFull,
    /// Encrypted, whoever answers.
    Require,
    /// Not encrypted.
    Disable,
}

/// Where the ledger's server is. Nothing of it comes from the environment.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Its name, its address, or the absolute path of its socket's folder.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The login.
    pub user: String,
    /// Its password; empty where the server asks for none.
    pub password: SecretString,
    /// The database.
    pub database: String,
    /// Whether and how the connection is encrypted.
    pub encryption: Encryption,
    /// An extra root certificate, PEM.
    pub ca_file: Option<PathBuf>,
}

impl PostgresOptions {
    /// A connection that writes.
    pub(super) async fn connect(&self) -> Result<PgConnection, LedgerError> {
        let connecting = async {
            let mut connection = PgConnection::connect_with(&self.driver()).await?;
            connection.execute(WRITER).await?;
            Ok(connection)
        };
        match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
            Ok(connected) => connected.map_err(unusable),
            Err(_) => Err(silent(&format!("{}:{}", self.host, self.port))),
        }
    }

    /// Connections that read and can do nothing else.
    pub(super) fn readers(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(CONNECT_LIMIT)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(READER).await.map(drop) })
            })
            .connect_lazy_with(self.driver())
    }

    fn driver(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username(&self.user)
            .password(self.password.expose_secret())
            .database(&self.database)
            .ssl_mode(match self.encryption {
                Encryption::VerifyFull => PgSslMode::VerifyFull,
                Encryption::Require => PgSslMode::Require,
                Encryption::Disable => PgSslMode::Disable,
            })
            .application_name(concat!("campaignd/", env!("CARGO_PKG_VERSION")))
            .disable_statement_logging();
        let options = match self.host.starts_with('/') {
            true => options.host("localhost").socket(&self.host),
            false => options.host(&self.host),
        };
        match &self.ca_file {
            Some(file) => options.ssl_root_cert(file),
            None => options,
        }
    }
}
