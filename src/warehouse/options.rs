//! How a connector is reached: what the operator's file says, with secrets
//! resolved.

use super::login::Login;
use crate::audience::Dialect;
use crate::id::ConnectorName;
use secrecy::SecretString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// A connector of any kind.
#[derive(Debug, Clone)]
pub enum ConnectorOptions {
    /// `kind: sqlite`: one file, made if it is not there.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Statements at a time.
        max_queries: NonZeroU32,
        /// Whether it is left as it is: nothing is made, and nothing changed.
        reads_only: bool,
    },
    /// `kind: postgres` or `kind: redshift`.
    Server(ServerOptions),
}

impl ConnectorOptions {
    /// The database its SQL is written for.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Server(server) => server.dialect,
        }
    }

    /// The same for who only reads. A server is told so in each transaction, a
    /// file by how it is opened.
    #[must_use]
    pub fn reading(self) -> Self {
        match self {
            Self::Sqlite {
                path, max_queries, ..
            } => Self::Sqlite {
                path,
                max_queries,
                reads_only: true,
            },
            server => server,
        }
    }

    /// Where its history is, if it is behind another connector.
    pub fn apart(&self) -> Option<&ApartOptions> {
        match self {
            Self::Sqlite { .. } => None,
            Self::Server(server) => server.apart.as_deref(),
        }
    }

    /// Statements at a time on the audience side.
    pub fn max_queries(&self) -> NonZeroU32 {
        match self {
            Self::Sqlite { max_queries, .. } => *max_queries,
            Self::Server(server) => server.max_queries,
        }
    }
}

/// A database server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// `Postgres` or `Redshift`.
    pub dialect: Dialect,
    /// Its name, address, or, for `postgres`, the absolute path of the folder
    /// that holds its Unix socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The login; what AWS names instead counts, where it is asked.
    pub user: String,
    /// Its password; empty where the server asks for none, and where it comes
    /// from elsewhere.
    pub password: SecretString,
    /// Where the password comes from.
    pub login: Login,
    /// Whether and how the connection is encrypted.
    pub tls: Tls,
    /// An extra root certificate, PEM.
    pub tls_ca_file: Option<PathBuf>,
    /// The one schema the daemon writes.
    pub schema: String,
    /// Statements at a time on the audience side.
    pub max_queries: NonZeroU32,
    /// The longest a statement may take.
    pub statement_timeout: Duration,
    /// When a silent connection is given up.
    pub keepalive: Keepalive,
    /// Where its history is, if it is behind another connector.
    pub apart: Option<Box<ApartOptions>>,
}

/// When a connection is given up that nothing is heard of. The kernel counts
/// in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How long it is silent before it is asked after.
    pub silence_secs: u16,
    /// Between two questions.
    pub interval_secs: u16,
    /// Unanswered questions until it is given up.
    pub questions: u16,
    /// How long what was sent may stay unacknowledged, questions included.
    pub unacknowledged_secs: u16,
}

impl Default for Keepalive {
    /// Two minutes in all. Balancers on the way forget a connection that is
    /// silent for 350 s, without a word to either side; a question each minute
    /// keeps them from it.
    fn default() -> Self {
        Self {
            silence_secs: 60,
            interval_secs: 15,
            questions: 4,
            unacknowledged_secs: 120,
        }
    }
}

/// History that is kept behind another connector.
#[derive(Debug, Clone)]
pub struct ApartOptions {
    /// What the connector that reads audiences is called: other connectors may
    /// have their history in the same place.
    pub name: ConnectorName,
    /// How the tables are reached; its own history is its own.
    pub history: ConnectorOptions,
    /// The relation, readable beside the audience, that shows the contacts
    /// there.
    pub relation: Option<String>,
}

/// Whether and how a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Encrypted, certificate and name checked.
    VerifyFull,
    /// Encrypted, whoever answers.
    Require,
    /// Not encrypted; for loopback addresses and Unix sockets only.
    Disable,
}

impl Tls {
    /// As the operator's file says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify-full",
            Self::Require => "require",
            Self::Disable => "disable",
        }
    }
}
