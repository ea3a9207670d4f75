//! The state store's disk: the daemon killed at each durable write in turn,
//! and a disk that is full, broken or cannot be written. strace makes the
//! system calls fail.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;
use support::night::{self, NEVER, change_settings, furnish, ledger, number, text};
use support::receiver::Answer;
use support::site::{Daemon, Site};
use tokio::process::Command;

const PEOPLE: u32 = 42;
/// Of seven members each.
const BATCHES: usize = 6;

/// More durable writes than a run makes.
const MANY: u32 = 200;

async fn site(name: &str) -> Site {
    let site = Site::new(name).await;
    furnish(&site, PEOPLE, NEVER).await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 2");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(10)));
    site
}

/// The program under strace, which watches it from outside: the process that
/// is started is the program itself.
fn tampered(site: &Site, args: &[&str], tampering: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "-qq", "-o", "/dev/null"])
        .args(tampering)
        .arg(env!("CARGO_BIN_EXE_campaignd"))
        .args(args)
        .args(["--config", "campaignd.yaml"])
        .current_dir(site.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

fn file(site: &Site, name: &str) -> String {
    site.path().join(name).display().to_string()
}

/// Nothing has left that the ledger did not have as intended before.
async fn what_has_left_is_in_the_ledger(site: &Site) {
    let rows = ledger(site, "select run_id, batch from batches_now").await;
    let known: BTreeSet<(String, String)> = rows
        .iter()
        .map(|row| {
            (
                text(row, "run_id").to_owned(),
                text(row, "batch").to_owned(),
            )
        })
        .collect();
    for request in site.receiver.requests() {
        let data = &request.json()["data"];
        let run = data["run_id"].as_str().unwrap().to_owned();
        let batch = data["batch"].to_string();
        assert!(
            known.contains(&(run.clone(), batch.clone())),
            "batch {batch} of {run} has left and is not in the ledger"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_any_of_its_durable_writes_is_carried_on_with_nothing_lost() {
    let site = site("durable_writes").await;
    let mut whole = None;
    for write in 1..MANY {
        let inject = format!("inject=fdatasync,fsync:signal=KILL:when={write}");
        let tampering = ["-e", "trace=fdatasync,fsync", "-e", &inject];
        let run = tampered(&site, &["run", night::CAMPAIGN], &tampering);
        let mut run: Daemon = site.spawn(run);
        if run.ended().await == Some(0) {
            whole = Some(write);
            break;
        }
        if site.path().join("state.db").exists() && write > 1 {
            what_has_left_is_in_the_ledger(&site).await;
        }
        // Another process carries it on, if it was begun at all.
        let run = site.campaignd(&["run", night::CAMPAIGN]).await;
        assert_eq!(run.status.code(), Some(0), "write {write}: {run:?}");
    }
    assert!(whole.is_some_and(|writes| writes > 10), "{whole:?}");
    night::check(&site).await;
    let runs = site.sql("select * from campaignd.runs").await;
    assert!(runs.iter().all(|run| text(run, "status") == "finished"));
    let ids: BTreeSet<String> = site
        .receiver
        .requests()
        .iter()
        .map(|request| request.id().to_owned())
        .collect();
    assert_eq!(ids.len(), runs.len() * BATCHES);
}

/// The store's disk fails from some write on: sending stops, the log says
/// `says`, and the next start has lost nothing.
async fn sending_stops_and_is_taken_up(
    name: &str,
    (call, nth): (&str, u32),
    error: &str,
    says: &str,
) {
    let site = site(name).await;
    // A store that has been made, and a run that is none of the fault's.
    site.json(&["run", night::CAMPAIGN]).await;
    site.write("campaigns/hello.yaml", &night::campaign("* * * * * *", 7));
    let inject = format!("inject={call}:error={error}:when={nth}+");
    let trace = format!("trace={call}");
    let log = file(&site, "state.db-wal");
    let tampering = ["-P", &log, "-e", &trace, "-e", &inject];
    let mut daemon = site.spawn(tampered(&site, &["serve"], &tampering));
    // The run itself, and not only the look for what is due: the tampering
    // counts the writes of each thread, and a new connection has a new one.
    site.wait_for_log("cannot go on", 1).await;
    assert!(site.log().contains(says), "{}", site.log());
    // What was on the wire comes to its end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent = site.receiver.count();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(site.receiver.count(), sent, "sending has stopped");
    what_has_left_is_in_the_ledger(&site).await;
    let open = ledger(&site, "select * from runs where is_open = 1").await;
    assert_eq!(open.len(), 1, "it failed in the middle: {}", site.log());
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::finish(&site).await;
    let planned = number(&site, "select sum(planned) from campaignd.runs").await;
    let delivered = number(&site, "select sum(delivered) from campaignd.runs").await;
    assert!(planned > 0 && planned == delivered, "{planned} {delivered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_sending_and_the_log_says_to_make_room() {
    let says = "the disk is full; make room";
    sending_stops_and_is_taken_up("disk_full", ("pwrite64", 90), "ENOSPC", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_sync_stops_sending_and_the_log_says_where_to_look() {
    let says = "the disk does not answer as it should; look at the machine's own log";
    sending_stops_and_is_taken_up("disk_broken", ("fdatasync,fsync", 14), "EIO", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_store_that_cannot_be_written_is_said_at_start_and_nothing_is_sent() {
    let site = site("read_only").await;
    let store = file(&site, "state.db");
    let tampering = [
        "-P",
        &store,
        "-e",
        "trace=openat",
        "-e",
        "inject=openat:error=EROFS",
    ];
    let run = tampered(&site, &["run", night::CAMPAIGN], &tampering);
    let mut run = site.spawn(run);
    assert_eq!(run.ended().await, Some(5), "{}", site.log());
    let says = "look at the rights of the file and its folder";
    assert!(site.log().contains(says), "{}", site.log());
    assert_eq!(site.receiver.count(), 0);
}
