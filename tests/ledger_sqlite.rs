//! What only a ledger in a SQLite file can promise: about the file, its lock,
//! and being opened again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use campaignd::history::BatchStatus;
use campaignd::id::{BatchPath, CampaignName, RunId, Trigger};
use campaignd::ledger::SqliteLedger;
use campaignd::run::{
    AttemptBegun, BatchChange, BatchState, Claim, Cursor, Ledger, LedgerError, NewRun, RunState,
};
use jiff::Timestamp;
use sqlx::Connection;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

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

/// The batch's first attempt was accepted.
fn accepted(batch: u32) -> BatchChange {
    BatchChange {
        run: some_run(),
        term: 0,
        path: BatchPath::whole(batch),
        attempt: 1,
        from: BatchState::Sending,
        to: BatchState::Accepted,
        status: Some(BatchStatus::Delivered),
        http_status: Some(200),
        at: nine(),
        next_at: None,
        excused: Duration::ZERO,
        error: None,
        refused: Vec::new(),
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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_read_whatever_else_is_written_meanwhile() {
    const TASKS: u32 = 16;
    const EACH: u32 = 25;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = Arc::new(SqliteLedger::open(&path).await.unwrap());
    queued(&*ledger).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let ledger = Arc::clone(&ledger);
        tasks.spawn(async move {
            for batch in (1..=EACH).map(|n| task * EACH + n) {
                ledger.begin_attempt(first_attempt(batch)).await.unwrap();
                ledger.change_batch(accepted(batch)).await.unwrap();
                let unsettled = ledger.unsettled(&some_run(), u32::MAX).await.unwrap();
                let own = BatchPath::whole(batch);
                assert!(unsettled.iter().any(|record| record.path == own), "{batch}");
            }
        });
    }
    tasks.join_all().await;
    let reader = SqliteLedger::open_read_only(&path).await.unwrap();
    let batches = reader.batches(&some_run()).await.unwrap();
    assert_eq!(batches.len(), (TASKS * EACH) as usize);
    reader.close().await;
    ledger.close().await;
}

#[tokio::test]
async fn who_reads_beside_the_process_that_writes_sees_what_it_has_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = SqliteLedger::open(&path).await.unwrap();
    queued(&ledger).await;
    for batch in [1, 2] {
        ledger.begin_attempt(first_attempt(batch)).await.unwrap();
    }
    let reader = SqliteLedger::open_read_only(&path).await.unwrap();
    let begun = reader.batches(&some_run()).await.unwrap();
    // Reading as the owner makes rows of both while they are on their way.
    assert_eq!(begun, ledger.batches(&some_run()).await.unwrap());
    ledger.change_batch(accepted(1)).await.unwrap();
    ledger.begin_attempt(first_attempt(3)).await.unwrap();
    ledger.change_batch(accepted(3)).await.unwrap();
    let beside = reader.batches(&some_run()).await.unwrap();
    let states: Vec<BatchState> = beside.iter().map(|record| record.state).collect();
    let expected = [
        BatchState::Accepted,
        BatchState::Sending,
        BatchState::Accepted,
    ];
    assert_eq!(states, expected);
    assert_eq!(beside, ledger.batches(&some_run()).await.unwrap());
    reader.close().await;
    ledger.close().await;
}
