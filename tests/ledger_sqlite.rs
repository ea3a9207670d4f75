//! What only a ledger in a SQLite file can promise: about the file, its lock,
//! and being opened again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use campaignd::id::{BatchPath, CampaignName, RunId, Trigger};
use campaignd::ledger::SqliteLedger;
use campaignd::run::{AttemptBegun, Claim, Cursor, Ledger, LedgerError, NewRun, RunState};
use jiff::Timestamp;
use sqlx::Connection;
use std::os::unix::fs::PermissionsExt;

fn campaign() -> CampaignName {
    "winback".parse().unwrap()
}

fn nine() -> Timestamp {
    "2026-11-22T09:00:00Z".parse().unwrap()
}

fn seen() -> Cursor {
    Cursor {
        schedule_hash: "hash".to_owned(),
        seen_until: nine(),
        schedule: None,
        is_disabled: false,
    }
}

fn some_run() -> RunId {
    RunId::scheduled(&campaign(), nine())
}

/// Writes one queued run.
async fn queued(ledger: &dyn Ledger) {
    let run = NewRun {
        run: some_run(),
        campaign: campaign(),
        connector: "warehouse".parse().unwrap(),
        fire_time: nine(),
        trigger: Trigger::Scheduled,
        campaign_version: "v1".to_owned(),
        spec: "{}".into(),
        state: RunState::Queued,
        error: None,
    };
    let claim = Claim {
        campaign: campaign(),
        before: None,
        after: seen(),
        runs: vec![run],
        at: nine(),
    };
    ledger.claim(claim).await.unwrap();
}

fn first_attempt(batch: u32) -> AttemptBegun {
    AttemptBegun {
        places: None,
        run: some_run(),
        term: 0,
        path: BatchPath::whole(batch),
        generation: 0,
        attempt: 1,
        members: 500,
        body_hash: [7; 32],
        at: nine(),
    }
}

fn message(error: &LedgerError) -> String {
    error.to_string()
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = SqliteLedger::open(&path).await.unwrap();
    let installation = ledger.installation().clone();
    queued(&ledger).await;
    let run = some_run();
    ledger.begin_attempt(first_attempt(1)).await.unwrap();
    let before = (
        ledger.run(&run).await.unwrap(),
        ledger.batches(&run).await.unwrap(),
    );
    ledger.close().await;
    let error = ledger.begin_attempt(first_attempt(2)).await.unwrap_err();
    assert!(message(&error).contains("closed"), "{error}");

    let ledger = SqliteLedger::open(&path).await.unwrap();
    assert_eq!(*ledger.installation(), installation);
    let after = (
        ledger.run(&run).await.unwrap(),
        ledger.batches(&run).await.unwrap(),
    );
    assert_eq!(before, after);
    let cursor = ledger.cursor(&campaign()).await.unwrap();
    assert_eq!(cursor, Some(seen()));
    ledger.close().await;
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = SqliteLedger::open(&path).await.unwrap();
    let error = SqliteLedger::open(&path).await.unwrap_err();
    assert!(matches!(error, LedgerError::InUse { .. }), "{error:?}");
    ledger.close().await;
    SqliteLedger::open(&path).await.unwrap().close().await;
}

#[tokio::test]
async fn a_reader_looks_on_beside_the_daemon_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let error = SqliteLedger::open_read_only(&path).await.unwrap_err();
    assert!(message(&error).contains("there is none at"), "{error}");

    let ledger = SqliteLedger::open(&path).await.unwrap();
    let reader = SqliteLedger::open_read_only(&path).await.unwrap();
    queued(&ledger).await;
    assert_eq!(reader.open_runs().await.unwrap().len(), 1);
    let error = reader.begin_attempt(first_attempt(1)).await.unwrap_err();
    assert!(message(&error).contains("reading only"), "{error}");
    ledger.close().await;
    reader.close().await;

    let reader = SqliteLedger::open_read_only(&path).await.unwrap();
    assert_eq!(reader.open_runs().await.unwrap().len(), 1);
    reader.close().await;
}

#[tokio::test]
async fn the_files_of_a_ledger_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&folder.path().join("state.db"))
        .await
        .unwrap();
    queued(&ledger).await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expect = ["", "-shm", "-wal", ".lock"].map(|end| format!("state.db{end}"));
    assert_eq!(names, expect);
    ledger.close().await;
}

#[tokio::test]
async fn a_write_that_failed_can_be_made_once_the_store_is_well_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = SqliteLedger::open(&path).await.unwrap();
    let url = format!("sqlite://{}", path.display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let mut rename = async |statement: &'static str| {
        sqlx::query(statement).execute(&mut other).await.unwrap();
    };
    rename("alter table batches rename to gone").await;
    let error = ledger.begin_attempt(first_attempt(1)).await.unwrap_err();
    assert!(matches!(error, LedgerError::Unusable { .. }), "{error:?}");
    rename("alter table gone rename to batches").await;
    ledger.begin_attempt(first_attempt(1)).await.unwrap();
    ledger.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, "name: winback\n".repeat(400)).unwrap();
    let error = SqliteLedger::open(&path).await.unwrap_err();
    assert!(message(&error).contains("not a database"), "{error}");
    let missing = folder.path().join("nowhere").join("state.db");
    let error = SqliteLedger::open(&missing).await.unwrap_err();
    assert!(message(&error).contains("nowhere"), "{error}");
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    SqliteLedger::open(&path).await.unwrap().close().await;
    let url = format!("sqlite://{}", path.display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, \
                 execution_time) values (99, 'newer', true, x'00', 0)";
    sqlx::query(newer).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let error = SqliteLedger::open(&path).await.unwrap_err();
    assert!(message(&error).contains("newer campaignd"), "{error}");
}

#[tokio::test]
async fn the_body_key_is_in_no_debug_output() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&folder.path().join("state.db"))
        .await
        .unwrap();
    let shown = format!("{ledger:?}");
    assert!(!shown.contains("body_key"), "{shown}");
    ledger.close().await;
}
