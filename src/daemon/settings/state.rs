//! Where the ledger is kept.

use super::address::is_loopback;
use super::secret::{Secret, Secrets, SettingsError};
use crate::campaign::yaml::{Field, Section};
use crate::ledger::{Encryption, PostgresOptions};
use crate::run::DEFAULT_LEASE;
use secrecy::SecretString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// How long a lease may be: shorter ones lapse under a busy server, longer
/// ones leave a dead host's runs to rest.
const LEASES: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(3600);

/// The usual port of a PostgreSQL server.
const PORT: u16 = 5432;

/// What this host's own files are named after where the store is a server.
const LOCAL: &str = "./state";

/// Where the ledger is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum StateStore {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL server, for several hosts that share the work.
    Postgres(Box<PostgresStore>),
}

/// A ledger on a PostgreSQL server.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresStore {
    host: String,
    port: u16,
    user: String,
    password: Option<Secret>,
    database: String,
    encryption: Encryption,
    ca_file: Option<PathBuf>,
    local: PathBuf,
}

impl StateStore {
    /// The file; for a server, what this host's own files are put beside.
    pub fn path(&self) -> &Path {
        match self {
            Self::Sqlite(path) => path,
            Self::Postgres(server) => &server.local,
        }
    }

    pub(super) fn each_path(&mut self, change: &impl Fn(&mut PathBuf)) {
        match self {
            Self::Sqlite(path) => change(path),
            Self::Postgres(server) => {
                change(&mut server.local);
                server.ca_file.iter_mut().for_each(change);
                if let Some(password) = &mut server.password {
                    password.each_path(change);
                }
            }
        }
    }
}

impl PostgresStore {
    /// How it is reached, with the password resolved.
    pub fn options(&self, secrets: &Secrets) -> Result<PostgresOptions, SettingsError> {
        let password = match &self.password {
            Some(password) => password.resolve(secrets)?,
            None => SecretString::from(String::new()),
        };
        Ok(PostgresOptions {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            password,
            database: self.database.clone(),
            encryption: self.encryption,
            ca_file: self.ca_file.clone(),
        })
    }
}

/// The store, and how long a lease on it lasts.
pub(super) fn read(mut section: Section) -> Option<(StateStore, Duration)> {
    let url = section.required("url");
    let lease = section.optional("lease");
    let lease = lease.map_or(Some(DEFAULT_LEASE), |f| f.duration(LEASES));
    section.finish();
    let url = url?;
    Some((store(&url)?, lease?))
}

fn store(url: &Field) -> Option<StateStore> {
    let text = url.filled_text()?;
    if let Some(path) = text.strip_prefix("sqlite://") {
        if path.is_empty() || path.contains(['?', '#']) {
            url.error("`state.url` must name a file, as in `sqlite://./state.db`");
            return None;
        }
        return Some(StateStore::Sqlite(PathBuf::from(path)));
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return server(url, text).map(|server| StateStore::Postgres(Box::new(server)));
    }
    url.error("`state.url` must begin with `sqlite://`, as in `sqlite://./state.db`, or with `postgres://`");
    None
}

fn server(field: &Field, text: &str) -> Option<PostgresStore> {
    let refuse = |why: &str| {
        field.error(format!("`state.url` {why}"));
    };
    let Some((reference, bare)) = take_reference(text) else {
        refuse("may hold a `${…}` in place of the password and nowhere else");
        return None;
    };
    let parsed = Url::parse(&bare).ok().and_then(|url| {
        let user = decoded(url.username()).filter(|user| !user.is_empty())?;
        let database = decoded(url.path().trim_start_matches('/')).filter(|name| is_name(name))?;
        let password = url.password().map_or(Some(String::new()), decoded)?;
        Some((url, user, database, password))
    });
    let Some((url, user, database, password)) = parsed else {
        refuse("must be as in `postgres://user:password@host:5432/database`");
        return None;
    };
    let password = match reference.unwrap_or(password) {
        password if password.is_empty() => None,
        password => Some(Secret::of(field, &password)?),
    };
    let mut host = url.host_str().map(str::to_owned);
    let mut mode = None;
    let mut ca_file = None;
    for (key, value) in url.query_pairs() {
        match (key.as_ref(), value.as_ref()) {
            ("host", value) if value.starts_with('/') => host = Some(value.to_owned()),
            ("sslmode", "disable") => mode = Some(Encryption::Disable),
            ("sslmode", "require") => mode = Some(Encryption::Require),
            ("sslmode", "verify-full") => mode = Some(Encryption::VerifyFull),
            ("sslrootcert", value) if !value.is_empty() => ca_file = Some(PathBuf::from(value)),
            _ => {
                refuse(
                    "takes `sslmode` (disable, require, verify-full), `sslrootcert` and `host` (a socket's folder) after its `?`, nothing else",
                );
                return None;
            }
        }
    }
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        refuse("must name a host, as in `postgres://user:password@host:5432/database`");
        return None;
    };
    let is_here = host.starts_with('/') || is_loopback(&host);
    if !is_here && mode.is_some_and(|mode| mode != Encryption::VerifyFull) {
        refuse(
            "must be reached with `sslmode=verify-full`: only a loopback host or a Unix socket may do with less",
        );
        return None;
    }
    let usual = match is_here {
        true => Encryption::Disable,
        false => Encryption::VerifyFull,
    };
    Some(PostgresStore {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(PORT),
        user,
        password,
        database,
        encryption: mode.unwrap_or(usual),
        ca_file,
        local: PathBuf::from(LOCAL),
    })
}

/// The `${…}` that stands for the password, and the URL without it; none
/// where it stands elsewhere.
fn take_reference(text: &str) -> Option<(Option<String>, String)> {
    let Some(start) = text.find("${") else {
        return Some((None, text.to_owned()));
    };
    let end = start + text[start..].find('}')?;
    let (before, after) = (&text[..start], &text[end + 1..]);
    let stands_right = before.ends_with(':') && after.starts_with('@') && !after.contains("${");
    let is_password = before.split_once("://")?.1.matches([':', '/', '@']).count() == 1;
    (stands_right && is_password).then(|| {
        (
            Some(text[start..=end].to_owned()),
            format!("{before}{after}"),
        )
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0'])
}

/// Text with its `%41` as they are meant.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_stands_for_the_whole_password_or_is_refused() {
        let text = "postgres://me:${file:/run/a@b}@db.example/ledger";
        let (reference, bare) = take_reference(text).unwrap();
        assert_eq!(reference.as_deref(), Some("${file:/run/a@b}"));
        assert_eq!(bare, "postgres://me:@db.example/ledger");
        for wrong in [
            "postgres://${env:USER}@db.example/ledger",
            "postgres://me:a${env:PASSWORD}@db.example/ledger",
            "postgres://me:p@db.example:${env:PORT}/ledger",
            "postgres://me:${env:A@db.example/ledger",
        ] {
            assert_eq!(take_reference(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn escapes_are_read_as_bytes() {
        assert_eq!(decoded("p%40ss%C3%A4").as_deref(), Some("p@ssä"));
        assert_eq!(decoded("p%4"), None);
        assert_eq!(decoded("%ff"), None);
    }
}
