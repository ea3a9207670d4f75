//! Opening a SQLite ledger: its options, tables and identity.

use super::rows;
use super::trouble::{unreadable, unusable};
use crate::run::{Installation, LedgerError};
use sha2::{Digest, Sha256};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{SqlSafeStr, SqliteConnection};
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// How long a connection waits for another's lock. Only a tool from outside,
/// a backup for example, ever holds one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads at a time: a status page, a resume and a settle beside each other.
const MAX_READERS: u32 = 4;

const MIGRATIONS: [(i64, &str, &str); 14] = [
    (1, "ledger", include_str!("migrations/0001_ledger.sql")),
    (2, "lease", include_str!("migrations/0002_lease.sql")),
    (
        20,
        "connectors",
        include_str!("migrations/0020_connectors.sql"),
    ),
    (21, "pauses", include_str!("migrations/0021_pauses.sql")),
    (22, "cancels", include_str!("migrations/0022_cancels.sql")),
    (23, "actions", include_str!("migrations/0023_actions.sql")),
    (
        24,
        "reopenings",
        include_str!("migrations/0024_reopenings.sql"),
    ),
    (25, "parts", include_str!("migrations/0025_parts.sql")),
    (
        26,
        "unsettled",
        include_str!("migrations/0026_unsettled.sql"),
    ),
    (
        30,
        "forgotten",
        include_str!("migrations/0030_forgotten.sql"),
    ),
    (
        33,
        "schedules",
        include_str!("migrations/0033_schedules.sql"),
    ),
    (34, "held", include_str!("migrations/0034_held.sql")),
    (35, "journal", include_str!("migrations/0035_journal.sql")),
    (36, "asked", include_str!("migrations/0036_asked.sql")),
];

/// How the writer opens the store.
pub(super) fn write_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // A write that is answered survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Connections that read and can do nothing else.
pub(super) fn readers(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT);
    SqlitePoolOptions::new()
        .max_connections(MAX_READERS)
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

/// Brings the tables to what this program knows.
pub(super) async fn migrate(db: &mut SqliteConnection) -> Result<(), LedgerError> {
    migrator(&MIGRATIONS)
        .run_direct(None, db, false)
        .await
        .map_err(|error| unmigrated(error, unusable))
}

/// What brings tables through `migrations`.
pub(super) fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = migrations
        .iter()
        .map(|&(version, name, sql)| {
            let kind = MigrationType::Simple;
            Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations)
}

/// Why the tables are not what this program knows; `unusable` says what an
/// error of the database means.
pub(super) fn unmigrated(
    error: MigrateError,
    unusable: impl Fn(sqlx::Error) -> LedgerError,
) -> LedgerError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => unusable(error),
        MigrateError::VersionMissing(_) => LedgerError::Unusable {
            message: "it was written by a newer campaignd; use that one".to_owned(),
        },
        other => LedgerError::Unusable {
            message: format!("its tables could not be brought up to date: {other}"),
        },
    }
}

/// Gives a new ledger its identity; an old one keeps its own.
pub(super) async fn found(db: &mut SqliteConnection) -> Result<(), LedgerError> {
    sqlx::query(
        "/* found */ insert into meta (id, installation, body_key) values (1, ?1, ?2) \
         on conflict do nothing",
    )
    .bind(Uuid::new_v4().to_string())
    .bind(new_body_key().as_slice())
    .execute(db)
    .await
    .map_err(unusable)?;
    Ok(())
}

/// A key for the body hashes.
pub(super) fn new_body_key() -> [u8; 32] {
    // Three random ids: 366 random bits, hashed to the 256 of a key.
    let hash = (0..3).fold(Sha256::new(), |hash, _| {
        hash.chain_update(Uuid::new_v4().as_bytes())
    });
    hash.finalize().into()
}

/// The identity of the ledger.
pub(super) async fn installation(readers: &SqlitePool) -> Result<Installation, LedgerError> {
    let row = sqlx::query("/* installation */ select installation, body_key from meta")
        .fetch_one(readers)
        .await
        .map_err(unusable)?;
    let body_key: Vec<u8> = rows::get(&row, "body_key")?;
    Ok(Installation {
        id: rows::get::<&str>(&row, "installation")?
            .parse()
            .map_err(unreadable)?,
        body_key: body_key
            .try_into()
            .map_err(|_| unreadable("`body_key` is not 32 bytes"))?,
    })
}
