//! One connection, of either driver, and how it is made.

use super::errors::error;
use super::keepalive::Forwarder;
use super::login::{Credentials, Logins};
use super::login_errors::at_connect;
use super::{ConnectorOptions, ServerOptions, Tls};
use crate::audience::{Column, Dialect, Statement};
use crate::run::{WarehouseError, WarehouseErrorClass};
use secrecy::ExposeSecret;
use sqlx::postgres::{PgColumn, PgConnectOptions, PgConnection, PgSslMode};
use sqlx::sqlite::{SqliteColumn, SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Connection as _, Row, ValueRef, raw_sql};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// The longest a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// How long SQLite waits for another process's transaction.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

/// The longest a SQLite statement may take.
const SQLITE_STATEMENT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How many of its steps SQLite takes before it asks whether to go on: well
/// under a millisecond.
const STEPS: i32 = 10_000;

/// The codes of a refused login: of Redshift and PostgreSQL, and of the latter
/// where the password is wrong.
const REFUSED_LOGIN: [&str; 2] = ["28000", "28P01"];

/// An open connection.
pub(super) enum Connection {
    /// PostgreSQL or Redshift.
    Postgres(Box<PgConnection>),
    /// SQLite, and what tells it to give up the statement it is at.
    Sqlite(Box<SqliteConnection>, Arc<AtomicBool>),
}

/// The small results of a statement: text cells.
pub(super) type Rows = Vec<Vec<Option<String>>>;

impl Connection {
    /// Connects and prepares the session. What carries the bytes is one of
    /// `tasks`, and ends with the connection. A password that was replaced
    /// since it was learned is learned anew, once.
    pub(super) async fn open(
        options: &ConnectorOptions,
        logins: &Logins,
        tasks: &TaskTracker,
    ) -> Result<Self, WarehouseError> {
        let opened = Self::open_as_known(options, logins, tasks).await;
        let is_refused = |error: &WarehouseError| {
            let code = error.code.as_deref();
            code.is_some_and(|code| REFUSED_LOGIN.contains(&code))
        };
        match opened {
            Err(error) if is_refused(&error) && logins.forget().await => {
                Self::open_as_known(options, logins, tasks).await
            }
            opened => opened,
        }
    }

    async fn open_as_known(
        options: &ConnectorOptions,
        logins: &Logins,
        tasks: &TaskTracker,
    ) -> Result<Self, WarehouseError> {
        let credentials = match options {
            ConnectorOptions::Sqlite { .. } => None,
            ConnectorOptions::Server(server) => Some(logins.credentials(server).await?),
        };
        let connecting = async {
            match options {
                ConnectorOptions::Sqlite {
                    path, reads_only, ..
                } => Self::open_sqlite(path, *reads_only).await,
                ConnectorOptions::Server(server) => {
                    Self::open_server(server, credentials, tasks).await
                }
            }
        };
        let target = target(options);
        if let ConnectorOptions::Server(server) = options {
            refuse_environment(server)?;
        }
        match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(failure)) => Err(at_connect(&failure, &target)),
            Err(_) => Err(WarehouseError {
                class: WarehouseErrorClass::Lost,
                code: None,
                message: format!("the warehouse at {target} cannot be reached: no answer"),
                place: None,
            }),
        }
    }

    async fn open_sqlite(path: &Path, reads_only: bool) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_LIMIT)
            .disable_statement_logging();
        let mut connection = match reads_only {
            true => Self::open_sqlite_to_read(&options).await?,
            false => {
                let options = options
                    .create_if_missing(true)
                    .synchronous(SqliteSynchronous::Full)
                    .pragma("journal_mode", "wal");
                options.connect().await?
            }
        };
        let given_up = Arc::new(AtomicBool::new(false));
        let goes_on = Arc::clone(&given_up);
        let mut handle = connection.lock_handle().await?;
        handle.set_progress_handler(STEPS, move || !goes_on.load(Ordering::Relaxed));
        drop(handle);
        Ok(Self::Sqlite(Box::new(connection), given_up))
    }

    /// A connection that may not write leaves two files beside a database in WAL
    /// mode; one that may, and does not, leaves none. The mode is asked of
    /// SQLite: who opens the file past it and closes it again ends all locks that
    /// this process has on it ([POSIX locks](https://sqlite.org/howtocorrupt.html)).
    async fn open_sqlite_to_read(
        options: &SqliteConnectOptions,
    ) -> Result<SqliteConnection, sqlx::Error> {
        let mut connection = options.connect().await?;
        let mode: String = sqlx::query_scalar("pragma journal_mode")
            .fetch_one(&mut connection)
            .await?;
        if mode == "wal" {
            return Ok(connection);
        }
        connection.close().await?;
        options.clone().read_only(true).connect().await
    }

    async fn open_server(
        server: &ServerOptions,
        credentials: Option<Credentials>,
        tasks: &TaskTracker,
    ) -> Result<Self, sqlx::Error> {
        let mut options = server_options(server);
        if let Some(Credentials { user, password }) = credentials {
            options = options.username(&user).password(password.expose_secret());
        }
        let mut connection = if server.host.starts_with('/') {
            options.socket(&server.host).connect().await?
        } else {
            let forwarder = Forwarder::open(&server.host, server.port, server.keepalive).await?;
            let options = options.socket(forwarder.folder());
            let served = async { Ok(forwarder.serve(tasks).await?) };
            tokio::try_join!(options.connect(), served)?.0
        };
        let limit = server.statement_timeout.as_millis();
        let mut first = vec![format!("set statement_timeout to {limit}")];
        if server.dialect == Dialect::Postgres {
            first.push("set standard_conforming_strings = on".to_owned());
            first.push("set client_min_messages = warning".to_owned());
        }
        for sql in first {
            let sql = format!("/* campaignd session setup */ {sql}");
            raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        }
        Ok(Self::Postgres(Box::new(connection)))
    }

    /// Runs a statement for its effect.
    pub(super) async fn run(&mut self, statement: &Statement) -> Result<(), sqlx::Error> {
        let sql = raw_sql(AssertSqlSafe(statement.sql.as_str()));
        match self {
            Self::Postgres(connection) => sql.execute(&mut **connection).await.map(drop),
            Self::Sqlite(connection, _) => sql.execute(&mut **connection).await.map(drop),
        }
    }

    /// Runs a statement for its few rows.
    pub(super) async fn rows(&mut self, statement: &Statement) -> Result<Rows, sqlx::Error> {
        let sql = raw_sql(AssertSqlSafe(statement.sql.as_str()));
        match self {
            Self::Postgres(connection) => {
                let rows = sql.fetch_all(&mut **connection).await?;
                rows.iter().map(postgres_row).collect()
            }
            Self::Sqlite(connection, _) => {
                let rows = sql.fetch_all(&mut **connection).await?;
                rows.iter().map(sqlite_row).collect()
            }
        }
    }

    /// Runs a statement for the names and type numbers of its columns, as far
    /// as its first row tells; SQLite's have no numbers.
    pub(super) async fn header(
        &mut self,
        statement: &Statement,
    ) -> Result<Vec<Column>, sqlx::Error> {
        let sql = raw_sql(AssertSqlSafe(statement.sql.as_str()));
        match self {
            Self::Postgres(connection) => {
                let row = sql.fetch_one(&mut **connection).await?;
                let number = |column: &PgColumn| column.type_info().oid().map(|oid| oid.0);
                let column = |column: &PgColumn| Column {
                    name: column.name().to_owned(),
                    type_name: number(column).unwrap_or_default().to_string(),
                };
                Ok(row.columns().iter().map(column).collect())
            }
            Self::Sqlite(connection, _) => {
                let row = sql.fetch_one(&mut **connection).await?;
                let column = |column: &SqliteColumn| Column {
                    name: column.name().to_owned(),
                    type_name: String::new(),
                };
                Ok(row.columns().iter().map(column).collect())
            }
        }
    }

    /// The server's number for this session; none for a file.
    pub(super) async fn pid(&mut self) -> Result<Option<i32>, sqlx::Error> {
        if matches!(self, Self::Sqlite(..)) {
            return Ok(None);
        }
        let ask = Statement::new("session", "pid", "select pg_backend_pid()");
        let rows = self.rows(&ask).await?;
        let cell = rows.into_iter().flatten().flatten().next();
        Ok(cell.and_then(|pid| pid.parse().ok()))
    }

    /// Takes leave of the other side.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(connection) => connection.close().await,
            Self::Sqlite(connection, _) => connection.close().await,
        }
    }

    /// Gives up the statement that SQLite is at: it runs in this process, and
    /// holds the file's lock. A server is told from another connection.
    pub(super) fn interrupt(&self) {
        if let Self::Sqlite(_, given_up) = self {
            given_up.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the other side still answers; no SQL is sent.
    pub(super) async fn is_alive(&mut self) -> bool {
        match self {
            Self::Postgres(connection) => connection.ping().await.is_ok(),
            Self::Sqlite(connection, _) => connection.ping().await.is_ok(),
        }
    }
}

fn postgres_row(row: &sqlx::postgres::PgRow) -> Result<Vec<Option<String>>, sqlx::Error> {
    let cell = |index| {
        let value = row.try_get_raw(index)?;
        match value.is_null() {
            true => Ok(None),
            false => Ok(Some(
                value.as_str().map_err(sqlx::Error::Decode)?.to_owned(),
            )),
        }
    };
    (0..row.len()).map(cell).collect()
}

fn sqlite_row(row: &sqlx::sqlite::SqliteRow) -> Result<Vec<Option<String>>, sqlx::Error> {
    let cell = |index| row.try_get_unchecked::<Option<String>, _>(index);
    (0..row.len()).map(cell).collect()
}

/// What the driver takes from the environment and cannot be told to leave.
const HEEDED: &[&str] = &["PGOPTIONS", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];

fn refuse_environment(server: &ServerOptions) -> Result<(), WarehouseError> {
    let counts = |name: &str| name == "PGOPTIONS" || server.tls != Tls::Disable;
    let heeded = HEEDED.iter().filter(|name| counts(name));
    match heeded
        .copied()
        .find(|name| std::env::var_os(name).is_some())
    {
        None => Ok(()),
        Some(name) => Err(error(
            WarehouseErrorClass::Configuration,
            format!("the environment would change the connection to the warehouse; unset {name}"),
        )),
    }
}

/// Every other field is set here: the environment, `~/.pgpass` and a URL's
/// escapes have no say.
fn server_options(server: &ServerOptions) -> PgConnectOptions {
    let mut options = PgConnectOptions::new_without_pgpass()
        .port(server.port)
        .database(&server.database)
        .ssl_mode(match server.tls {
            Tls::VerifyFull => PgSslMode::VerifyFull,
            Tls::Require => PgSslMode::Require,
            Tls::Disable => PgSslMode::Disable,
        })
        .extra_float_digits(2)
        .statement_cache_capacity(16)
        .application_name(concat!("campaignd/", env!("CARGO_PKG_VERSION")))
        .disable_statement_logging();
    // What TLS checks; the way there is a socket in either case.
    let host = match server.host.starts_with('/') {
        true => "localhost",
        false => &server.host,
    };
    options = options.host(host);
    match &server.tls_ca_file {
        Some(file) => options.ssl_root_cert(file),
        None => options,
    }
}

/// Host and port, or the file, as messages name it.
fn target(options: &ConnectorOptions) -> String {
    match options {
        ConnectorOptions::Sqlite { path, .. } => path.display().to_string(),
        ConnectorOptions::Server(server) => format!("{}:{}", server.host, server.port),
    }
}

/// The longest a statement may take, by the connector's options.
pub(super) fn statement_limit(options: &ConnectorOptions) -> Duration {
    match options {
        ConnectorOptions::Sqlite { .. } => SQLITE_STATEMENT_LIMIT,
        ConnectorOptions::Server(server) => server.statement_timeout,
    }
}
