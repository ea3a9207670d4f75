//! A connector: one warehouse, and how it is reached.

use super::address::is_loopback;
use super::history::{HistoryElsewhere, history_elsewhere};
use super::secret::{Secret, Secrets, SettingsError};
use crate::audience::Dialect;
use crate::campaign::yaml::{Field, Section};
use crate::warehouse::{ConnectorOptions, IamTarget, Keepalive, Login, ServerOptions, Tls};
use secrecy::SecretString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Statements at a time on the audience side, unless the file says otherwise.
const DEFAULT_MAX_QUERIES: u32 = 6;

/// The most statements at a time: what Redshift takes per cluster.
const MAX_MAX_QUERIES: u32 = 500;

/// The longest statement, unless the file says otherwise.
const DEFAULT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The range of `statement_timeout`.
const STATEMENT_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// How long the tables of an ended run stay, unless the file says otherwise.
const DEFAULT_STAGE_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The range of `stage_retention`: rows of ended runs, by which their tables
/// are known, stay longer.
const STAGE_RETENTIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(365 * 24 * 3600);

/// A warehouse the operator has defined.
#[derive(Debug, Clone, PartialEq)]
pub enum Connector {
    /// `kind: sqlite`.
    Sqlite(SqliteConnector),
    /// `kind: postgres` or `kind: redshift`.
    Server(Box<ServerConnector>),
}

/// `kind: sqlite`.
#[derive(Debug, Clone, PartialEq)]
pub struct SqliteConnector {
    /// The file.
    pub path: PathBuf,
    /// Statements at a time.
    pub max_queries: NonZeroU32,
    /// How long the tables of an ended run with undelivered members stay.
    pub stage_retention: Duration,
}

/// `kind: postgres` or `kind: redshift`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConnector {
    /// `Postgres` or `Redshift`.
    pub dialect: Dialect,
    /// Its name, address, or the absolute path of its Unix socket's folder.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The login.
    pub user: String,
    /// Its password; none where the server asks for none.
    pub password: Option<Secret>,
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
    /// Whose history it writes, where that is another connector's.
    pub history: Option<HistoryElsewhere>,
    /// How long the tables of an ended run with undelivered members stay.
    pub stage_retention: Duration,
}

impl ServerConnector {
    /// The user, and where its password comes from, in words.
    pub fn login_words(&self) -> String {
        let user = &self.user;
        match (&self.login, &self.password) {
            (Login::Command(_), _) => format!("{user}, password_command"),
            (Login::Iam(iam), _) => match &iam.target {
                IamTarget::Workgroup(workgroup) => format!("IAM, workgroup {workgroup}"),
                IamTarget::Cluster { cluster, .. } => format!("IAM, cluster {cluster}"),
            },
            (Login::Given, Some(_)) => format!("{user}, password"),
            (Login::Given, None) => format!("{user}, no password"),
        }
    }
}

impl Connector {
    /// Reads one connector's section.
    pub(super) fn read(name: &str, mut section: Section) -> Option<Self> {
        let kind = section.required("kind").and_then(|field| {
            field.choice(&[
                ("redshift", Dialect::Redshift),
                ("postgres", Dialect::Postgres),
                ("sqlite", Dialect::Sqlite),
            ])
        });
        match kind? {
            Dialect::Sqlite => read_sqlite(section).map(Self::Sqlite),
            dialect => {
                read_server(name, dialect, section).map(|server| Self::Server(Box::new(server)))
            }
        }
    }

    /// The database its SQL is written for.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Server(server) => server.dialect,
        }
    }

    /// How long the tables of an ended run with undelivered members stay.
    pub fn stage_retention(&self) -> Duration {
        match self {
            Self::Sqlite(sqlite) => sqlite.stage_retention,
            Self::Server(server) => server.stage_retention,
        }
    }

    /// Its password, if it has one.
    pub fn password(&self, secrets: &Secrets) -> Result<Option<SecretString>, SettingsError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Server(server) => {
                let password = server.password.as_ref();
                password.map(|secret| secret.resolve(secrets)).transpose()
            }
        }
    }

    /// How it is reached, with secrets resolved.
    pub fn options(&self, secrets: &Secrets) -> Result<ConnectorOptions, SettingsError> {
        let server = match self {
            Self::Sqlite(sqlite) => {
                return Ok(ConnectorOptions::Sqlite {
                    path: sqlite.path.clone(),
                    max_queries: sqlite.max_queries,
                    reads_only: false,
                });
            }
            Self::Server(server) => server.as_ref().clone(),
        };
        let password = self.password(secrets)?.unwrap_or_default();
        Ok(ConnectorOptions::Server(ServerOptions {
            dialect: server.dialect,
            host: server.host,
            port: server.port,
            database: server.database,
            user: server.user,
            password,
            login: server.login,
            tls: server.tls,
            tls_ca_file: server.tls_ca_file,
            schema: server.schema,
            max_queries: server.max_queries,
            statement_timeout: server.statement_timeout,
            keepalive: Keepalive::default(),
            apart: None,
        }))
    }

    pub(super) fn each_path(&mut self, change: &impl Fn(&mut PathBuf)) {
        match self {
            Self::Sqlite(sqlite) => change(&mut sqlite.path),
            Self::Server(server) => {
                server.tls_ca_file.iter_mut().for_each(change);
                if let Some(password) = &mut server.password {
                    password.each_path(change);
                }
            }
        }
    }
}

fn read_sqlite(mut section: Section) -> Option<SqliteConnector> {
    let path = section.required("path").and_then(|f| f.filled_text());
    let max_queries = max_queries(&mut section);
    let stage_retention = stage_retention(&mut section);
    section.finish();
    Some(SqliteConnector {
        path: PathBuf::from(path?),
        max_queries: max_queries?,
        stage_retention: stage_retention?,
    })
}

fn read_server(name: &str, dialect: Dialect, mut section: Section) -> Option<ServerConnector> {
    let host = section.required("host").and_then(|f| host(dialect, &f));
    let port = section.optional("port");
    let usual_port = if dialect == Dialect::Redshift {
        5439
    } else {
        5432
    };
    let port = port.map_or(Some(usual_port), |f| f.number(1..=65_535));
    let database = section.required("database").and_then(|f| f.filled_text());
    let login = section.required("auth");
    let login = login.and_then(|f| super::login::read(dialect, f.section()?));
    let tls = tls(host, &mut section);
    let schema = section.optional("schema");
    let schema = schema.map_or(Some("campaignd"), |f| identifier(&f));
    let max_queries = max_queries(&mut section);
    let timeout = section.optional("statement_timeout");
    let timeout = timeout.map_or(Some(DEFAULT_STATEMENT_TIMEOUT), |f| {
        f.duration(STATEMENT_TIMEOUTS)
    });
    let history = history_elsewhere(name, &mut section);
    let stage_retention = stage_retention(&mut section);
    section.finish();
    let super::login::Read {
        user,
        password,
        login,
    } = login?;
    let (tls, tls_ca_file) = tls?;
    Some(ServerConnector {
        dialect,
        host: host?.to_owned(),
        port: u16::try_from(port?).ok()?,
        database: database?.to_owned(),
        user,
        password,
        login,
        tls,
        tls_ca_file,
        schema: schema?.to_owned(),
        max_queries: max_queries?,
        statement_timeout: timeout?,
        history: history?,
        stage_retention: stage_retention?,
    })
}

fn stage_retention(section: &mut Section) -> Option<Duration> {
    let field = section.optional("stage_retention");
    field.map_or(Some(DEFAULT_STAGE_RETENTION), |f| {
        f.duration(STAGE_RETENTIONS)
    })
}

fn max_queries(section: &mut Section) -> Option<NonZeroU32> {
    let number = section.optional("max_queries");
    let number = number.map_or(Some(DEFAULT_MAX_QUERIES), |f| f.number(1..=MAX_MAX_QUERIES));
    NonZeroU32::new(number?)
}

fn host<'r>(dialect: Dialect, field: &Field<'r>) -> Option<&'r str> {
    let host = field.filled_text()?;
    let is_socket = host.starts_with('/');
    if is_socket && dialect == Dialect::Redshift {
        field.error("Redshift is not reached through a Unix socket; give its host name");
        return None;
    }
    if !is_socket && host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c)) {
        let path = field.path();
        field.error(format!(
            "`{path}` must be a host name, without a scheme, login or path"
        ));
        return None;
    }
    Some(host)
}

/// A plain name, so that it needs no quotes in any dialect.
fn identifier<'r>(field: &Field<'r>) -> Option<&'r str> {
    let text = field.text()?;
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if starts_well && text.len() <= 63 && text.chars().all(sound) {
        return Some(text);
    }
    let path = field.path();
    field.error(format!(
        "`{path}` must be lower-case letters, digits and underscores, starting with a letter, at most 63"
    ));
    None
}

/// Encryption; a Unix socket has none and needs none. Without a sound host
/// only the words are checked.
fn tls(host: Option<&str>, section: &mut Section) -> Option<(Tls, Option<PathBuf>)> {
    let field = section.optional("tls");
    let ca_field = section.optional("tls_ca_file");
    let is_socket = host.is_some_and(|host| host.starts_with('/'));
    let usual = if is_socket {
        Tls::Disable
    } else {
        Tls::VerifyFull
    };
    let tls = field.as_ref().map_or(Some(usual), |field| {
        field.choice(&[
            ("verify-full", Tls::VerifyFull),
            ("require", Tls::Require),
            ("disable", Tls::Disable),
        ])
    });
    let ca_file = match &ca_field {
        Some(field) => Some(PathBuf::from(field.filled_text()?)),
        None => None,
    };
    let tls = tls?;
    if let (Some(field), Some(host)) = (&field, host) {
        if is_socket && tls != Tls::Disable {
            field.error("a Unix socket is not encrypted; leave `tls` out");
        }
        if !is_socket && tls == Tls::Disable && !is_loopback(host) {
            field.error("`tls: disable` is for loopback addresses and Unix sockets only");
        }
    }
    if let (Some(field), true) = (&ca_field, tls != Tls::VerifyFull) {
        field.error("`tls_ca_file` has an effect only with `tls: verify-full`");
    }
    Some((tls, ca_file))
}
