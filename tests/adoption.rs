//! Runs whose daemon was lost, with its disk or without: taken over once they
//! have been silent for long enough, and nothing of them is sent again.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::ledger::SqliteLedger;
use campaignd::run::{BatchState, Ledger as _};
use std::process::Stdio;
use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, World};
use tokio::process::{Child, Command};

const CAMPAIGN: &str = "name: hello
connector: warehouse
enabled: false
schedule: { cron: '0 9 * * *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
activation: { destination: sink, batch_size: 10 }
";

const PEOPLE: &str = "select 'p-' || n as profile_id, n from generate_series(1, 300) n";

/// A site whose runs are taken over after five seconds of silence.
async fn site(world: World, name: &str, people: &str) -> Site {
    let site = Site::of(world, name).await;
    site.sql(people).await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let settings = site.settings() + "adopt_after: 5s\n";
    site.write("campaignd.yaml", &settings);
    site.write("other.yaml", &settings.replace("state.db", "other.db"));
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site
}

/// A manual run in a process of its own.
fn run_hello(site: &Site) -> Child {
    let mut command = site.command(&["run", "hello"]);
    command.stderr(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// A second daemon, which shares nothing with the first but the warehouse.
fn serve_other(site: &Site) -> Child {
    let log = std::fs::File::create(site.path().join("other.log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(["serve", "--config", "other.yaml"])
        .current_dir(site.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().await;
    assert!(status.unwrap().success());
}

fn lose_the_state_store(site: &Site) {
    for entry in std::fs::read_dir(site.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("state.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

async fn tables_left(site: &Site) -> Vec<String> {
    let rows = site
        .sql("select tablename from pg_tables where schemaname = 'campaignd' and tablename ~ '^(stage|admit|run)_'")
        .await;
    rows.into_iter()
        .map(|row| row["tablename"].clone().unwrap())
        .collect()
}

crate::in_both_worlds! {
    Postgres
    a_run_whose_ledger_is_lost_is_parked_and_not_sent_again
    a_run_that_was_lost_while_staging_fails_and_leaves_no_table
    a_live_run_is_not_taken_over_however_long_it_takes
    a_daemon_that_wakes_after_its_run_was_taken_over_sends_nothing_more
    a_held_run_is_shown_to_be_alive_by_its_daemon
}

async fn a_run_whose_ledger_is_lost_is_parked_and_not_sent_again(world: World) {
    let site = site(
        world,
        "ledger_lost",
        &format!("create table people as {PEOPLE}"),
    )
    .await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(200)));
    let mut lost = run_hello(&site);
    site.receiver.wait_for(12).await;
    lost.kill().await.unwrap();
    lose_the_state_store(&site);
    let mut daemon = site.serve();
    let runs = site
        .wait_for_row("select * from campaignd.runs where status <> 'open'")
        .await;
    assert_eq!(runs[0]["status"].as_deref(), Some("incomplete"));
    assert_eq!(runs[0]["unknown"].as_deref(), Some("300"));
    let error = runs[0]["error"].as_deref().unwrap();
    assert!(
        error.contains("taken over from a daemon that was lost"),
        "{error}"
    );
    site.wait_for_log("taken over from a daemon that was lost", 1)
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;

    assert!(site.receiver.count() < 30, "{}", site.receiver.count());
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
    assert_eq!(tables_left(&site).await.len(), 1, "kept for a person");
    let ledger = SqliteLedger::open_read_only(&site.path().join("state.db")).await;
    let ledger = ledger.unwrap();
    let id = runs[0]["run_id"].as_deref().unwrap().parse().unwrap();
    let record = ledger.run(&id).await.unwrap().unwrap();
    assert_eq!(record.tally.unwrap().unknown, 300);
    let batches = ledger.batches(&id).await.unwrap();
    assert_eq!(batches.len(), 30);
    assert!(
        batches
            .iter()
            .all(|batch| batch.state == BatchState::Parked && batch.settled)
    );
}

async fn a_run_that_was_lost_while_staging_fails_and_leaves_no_table(world: World) {
    let slow = format!(
        "create table everybody as {PEOPLE};
         create view people as select e.* from everybody e, (select pg_sleep(3)) s"
    );
    let site = site(world, "lost_staging", &slow).await;
    let mut lost = run_hello(&site);
    site.wait_for_row("select * from campaignd.open_runs").await;
    lost.kill().await.unwrap();
    lose_the_state_store(&site);
    let mut daemon = site.serve();
    let runs = site.wait_for_row("select * from campaignd.runs").await;
    assert_eq!(runs[0]["status"].as_deref(), Some("failed"));
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
    assert_eq!(site.receiver.count(), 0);
    assert_eq!(tables_left(&site).await, [""; 0]);
}

async fn a_live_run_is_not_taken_over_however_long_it_takes(world: World) {
    let site = site(
        world,
        "live_run",
        &format!("create table people as {PEOPLE}"),
    )
    .await;
    // Thirty batches, eight at a time: sixteen seconds.
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(1_900)));
    let settings = std::fs::read_to_string(site.path().join("campaignd.yaml")).unwrap();
    let slow = settings.replace("timeout: 2s", "timeout: 2s\n    max_in_flight: 3");
    site.write("campaignd.yaml", &slow);
    let _other = serve_other(&site);
    let mut run = run_hello(&site);
    assert_eq!(run.wait().await.unwrap().code(), Some(0));
    oracle::check(&site).await;
    let runs = site
        .sql("select status, delivered from campaignd.runs")
        .await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["status"].as_deref(), Some("finished"));
    assert_eq!(runs[0]["delivered"].as_deref(), Some("300"));
    assert_eq!(site.receiver.count(), 30);
}

async fn a_daemon_that_wakes_after_its_run_was_taken_over_sends_nothing_more(world: World) {
    let site = site(world, "woken", &format!("create table people as {PEOPLE}")).await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(1_900)));
    let mut frozen = site.command(&["run", "hello"]);
    let log = std::fs::File::create(site.path().join("frozen.log")).unwrap();
    let mut frozen = frozen.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    // Eight at a time: each of the second eight is on its way for long.
    site.receiver.wait_for(16).await;
    signal(&frozen, "STOP").await;
    let _other = serve_other(&site);
    site.wait_for_row("select * from campaignd.runs where status = 'incomplete'")
        .await;
    let before = site.receiver.count();
    signal(&frozen, "CONT").await;
    let ended = tokio::time::timeout(Duration::from_secs(60), frozen.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(4));
    oracle::check(&site).await;
    assert_eq!(site.receiver.count(), before, "nothing after it woke");
}

async fn a_held_run_is_shown_to_be_alive_by_its_daemon(world: World) {
    let site = site(
        world,
        "held_alive",
        &format!("create table people as {PEOPLE}"),
    )
    .await;
    let every_second = CAMPAIGN
        .replace("enabled: false\n", "")
        .replace("'0 9 * * *'", "'*/2 * * * * *'");
    site.write("campaigns/hello.yaml", &every_second);
    site.receiver.rule(|_| Answer::status(401));
    let mut daemon = site.serve();
    site.wait_for_row("select * from campaignd.runs where status = 'held'")
        .await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    daemon.signal("HUP").await;
    let _other = serve_other(&site);
    // Held for longer than it takes to be taken over, and seen since.
    site.wait_for_row(
        "select * from campaignd.open_runs o join campaignd.runs r on r.run_id = o.run_id
         where r.status = 'held' and o.seen_at > o.opened_at + interval '8 seconds'",
    )
    .await;
    let parked = site
        .sql("select * from campaignd.runs where status = 'incomplete'")
        .await;
    assert_eq!(parked, []);
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
}
