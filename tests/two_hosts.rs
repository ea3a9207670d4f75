//! Two daemons at once: on one ledger, where leases decide who carries what;
//! and with a ledger each on one warehouse, where `open_runs` does.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::run::{Clock as _, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::oracle;
use support::postgres::ConnDetails;
use support::receiver::{Answer, Recorded};
use support::site::{Daemon, Site, TextRow, World, postgres_rows, sqlite_rows};

crate::in_both_worlds! {
    Postgres
    on_one_ledger_each_fire_time_is_one_run_carried_by_one_host
    a_host_that_is_killed_has_its_run_carried_on_by_the_other
    a_host_frozen_past_its_lease_begins_no_new_batch
    daemons_that_share_only_the_warehouse_send_each_fire_time_once
    a_daemon_that_comes_an_hour_late_finds_that_another_has_carried_the_run
}

/// The hosts, as their files and the header of their requests name them.
const HOSTS: [&str; 2] = ["ada", "bob"];

fn campaign(schedule: &str) -> String {
    format!(
        "name: hello
connector: warehouse
schedule: {{ {schedule}, timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id, n from people' }}
activation: {{ destination: sink, batch_size: 7 }}
"
    )
}

/// A warehouse with 350 people, and two hosts' files with these state stores.
async fn site(world: World, name: &str, state: impl Fn(&Site, &str) -> String) -> Site {
    let site = Site::of(world, name).await;
    site.sql(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, 350) n",
    )
    .await;
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    for host in HOSTS {
        let text = site.settings();
        let text = text.replace("url: 'sqlite://./state.db'", &state(&site, host));
        let sink = format!("timeout: 2s\n    max_in_flight: 2\n    headers: {{ X-Host: {host} }}");
        site.write(&format!("{host}.yaml"), &text.replace("timeout: 2s", &sink));
    }
    site
}

/// Two hosts on one ledger, and the ledger's database. A lease lasts seven
/// seconds: twice the destination's time-out, and margins.
async fn one_ledger(world: World, name: &str) -> (Site, ConnDetails) {
    let database = std::cell::OnceCell::new();
    let state = |site: &Site, _: &str| {
        let place: &ConnDetails = database.get_or_init(|| site.another_database("ledger"));
        let ConnDetails {
            port,
            user,
            database,
            ..
        } = place;
        format!("url: 'postgres://{user}@127.0.0.1:{port}/{database}', lease: 2s")
    };
    let site = site(world, name, state).await;
    (site, database.into_inner().unwrap())
}

/// A campaign that fires in a moment, and then a day later.
fn fires_once() -> String {
    let at = SystemClock.now() + Duration::from_secs(2);
    campaign(&format!("cron: '{}'", at.strftime("%-S %-M %-H * * *")))
}

/// Returns once `found` finds something; fails after a minute.
async fn wait_for<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1_200 {
        if let Some(found) = found().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not after a minute: {what}");
}

fn log(site: &Site, host: &str) -> String {
    std::fs::read_to_string(site.path().join(format!("{host}.log"))).unwrap_or_default()
}

fn logs(site: &Site) -> String {
    HOSTS
        .map(|host| log(site, host))
        .join("\n-- the other --\n")
}

async fn logged(site: &Site, host: &str, text: &str, times: usize) {
    for _ in 0..1_200 {
        if log(site, host).matches(text).count() >= times {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!(
        "not after a minute: `{text}` in the log of {host}:\n{}",
        log(site, host)
    );
}

fn sent_by<'a>(requests: &'a [Recorded], host: &str) -> Vec<&'a Recorded> {
    let is_theirs = |request: &&Recorded| request.header("x-host") == Some(host);
    requests.iter().filter(is_theirs).collect()
}

async fn ledger(database: &ConnDetails, sql: &str) -> Vec<TextRow> {
    postgres_rows(database, &sql.replace("from ", "from campaignd_ledger.")).await
}

fn cell<'a>(row: &'a TextRow, column: &str) -> &'a str {
    row[column].as_deref().unwrap_or("")
}

async fn finished(site: &Site) {
    wait_for("a finished run", async || {
        let sql = "select 1 as x from campaignd.runs where status = 'finished'";
        site.sql(sql).await.pop()
    })
    .await;
}

async fn stop(mut daemons: Vec<Daemon>, site: &Site) {
    for daemon in &daemons {
        daemon.signal("TERM").await;
    }
    for daemon in &mut daemons {
        assert_eq!(daemon.ended().await, Some(0), "{}", logs(site));
    }
}

async fn on_one_ledger_each_fire_time_is_one_run_carried_by_one_host(world: World) {
    let (site, database) = one_ledger(world, "shared").await;
    site.write("campaigns/hello.yaml", &campaign("cron: '*/3 * * * * *'"));
    let daemons = HOSTS.map(|host| site.serve_as(host));
    let ended = wait_for("four finished runs", async || {
        let sql = "select run_id from campaignd.runs where status = 'finished'";
        let rows = site.sql(sql).await;
        (rows.len() >= 4).then_some(rows)
    });
    ended.await;
    stop(daemons.into(), &site).await;
    let last = campaign("cron: '*/3 * * * * *'").replace("schedule:", "enabled: false\nschedule:");
    site.write("campaigns/hello.yaml", &last);
    let daemon = site.serve_as(HOSTS[0]);
    logged(&site, HOSTS[0], "ready; ", 2).await;
    wait_for("no open run", async || {
        let open = ledger(&database, "select run_id from runs where is_open").await;
        open.is_empty().then_some(())
    })
    .await;
    stop(vec![daemon], &site).await;
    oracle::check(&site).await;
    // However many looked, each fire time was carried once: nobody's lease
    // lapsed, so only the stop made a second term.
    let runs = ledger(&database, "select run_id, fire_time, state, term from runs").await;
    let times: BTreeSet<&str> = runs.iter().map(|run| cell(run, "fire_time")).collect();
    assert_eq!(times.len(), runs.len());
    // Whoever looks from one of the hosts sees them all.
    let settings = std::fs::read_to_string(site.path().join("ada.yaml")).unwrap();
    site.write("campaignd.yaml", &settings);
    let shown = site.json(&["runs", "--limit", "100"]).await;
    assert_eq!(shown.as_array().unwrap().len(), runs.len());
    let again = runs.iter().filter(|run| cell(run, "term") == "2").count();
    assert!(again <= 1, "{runs:?}");
    let ids: Vec<_> = site.receiver.requests();
    let distinct: BTreeSet<&str> = ids.iter().map(Recorded::id).collect();
    let finished = runs.iter().filter(|run| cell(run, "state") == "finished");
    assert_eq!(distinct.len(), 50 * finished.count());
}

async fn a_host_that_is_killed_has_its_run_carried_on_by_the_other(world: World) {
    let (site, database) = one_ledger(world, "killed").await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(150)));
    site.write("campaigns/hello.yaml", &fires_once());
    let ada = site.serve_as("ada");
    wait_for("ten requests", async || {
        (site.receiver.count() >= 10).then_some(())
    })
    .await;
    let bob = site.serve_as("bob");
    logged(&site, "bob", "ready; ", 1).await;
    ada.kill().await;
    finished(&site).await;
    stop(vec![bob], &site).await;
    oracle::check(&site).await;
    let runs = ledger(&database, "select term, state from runs").await;
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (cell(&runs[0], "term"), cell(&runs[0], "state")),
        ("2", "finished")
    );
    let requests = site.receiver.requests();
    assert!(!sent_by(&requests, "bob").is_empty());
    let ids: BTreeSet<&str> = requests.iter().map(Recorded::id).collect();
    assert_eq!(ids.len(), 50);
    // What the first had on its way, two at a time, or had no time to write
    // down is all that was sent twice.
    assert!(requests.len() <= 50 + 8, "{}", requests.len());
}

async fn a_host_frozen_past_its_lease_begins_no_new_batch(world: World) {
    let (site, database) = one_ledger(world, "frozen").await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(400)));
    site.write("campaigns/hello.yaml", &fires_once());
    let ada = site.serve_as("ada");
    wait_for("six requests", async || {
        (site.receiver.count() >= 6).then_some(())
    })
    .await;
    let bob = site.serve_as("bob");
    logged(&site, "bob", "ready; ", 1).await;
    ada.signal("STOP").await;
    // What it had begun when it stopped: at most this may still leave.
    let begun: BTreeSet<String> = ledger(&database, "select batch from batches")
        .await
        .iter()
        .map(|row| cell(row, "batch").to_owned())
        .collect();
    wait_for("a request of the other host", async || {
        (sent_by(&site.receiver.requests(), "bob").len() >= 3).then_some(())
    })
    .await;
    let before = site.receiver.count();
    ada.signal("CONT").await;
    // It learns that the lease is lost when it renews it, or before that from
    // the first outcome that the ledger does not take.
    logged(&site, "ada", "is carried by another host", 1).await;
    finished(&site).await;
    stop(vec![ada, bob], &site).await;
    oracle::check(&site).await;
    let requests = site.receiver.requests();
    for late in sent_by(&requests[before..], "ada") {
        let batch = late.json()["data"]["batch"].to_string();
        assert!(begun.contains(&batch), "the late host began batch {batch}");
    }
    let late = sent_by(&requests[before..], "ada").len();
    assert!(late <= 2, "{late} requests after it woke");
    let terms = ledger(&database, "select term, state from runs").await;
    assert_eq!(
        (cell(&terms[0], "term"), cell(&terms[0], "state")),
        ("2", "finished")
    );
}

async fn daemons_that_share_only_the_warehouse_send_each_fire_time_once(world: World) {
    let state = |_: &Site, host: &str| format!("url: 'sqlite://./{host}.db'");
    let site = site(world, "warehouse_only", state).await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(50)));
    site.write("campaigns/hello.yaml", &campaign("cron: '*/5 * * * * *'"));
    let daemons = HOSTS.map(|host| site.serve_as(host));
    let enough = wait_for("three finished runs", async || {
        let sql = "select run_id from campaignd.runs where status = 'finished'";
        (site.sql(sql).await.len() >= 3).then_some(())
    });
    enough.await;
    let last = campaign("cron: '*/5 * * * * *'").replace("schedule:", "enabled: false\nschedule:");
    site.write("campaigns/hello.yaml", &last);
    for daemon in &daemons {
        daemon.signal("HUP").await;
    }
    let open = "select run_id from runs where is_open = 1";
    for host in HOSTS {
        let store = site.path().join(format!("{host}.db"));
        wait_for("no open run", async || {
            sqlite_rows(&store, open).await.is_empty().then_some(())
        })
        .await;
    }
    stop(daemons.into(), &site).await;
    oracle::check(&site).await;
    let mut carried: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for host in HOSTS {
        let store = site.path().join(format!("{host}.db"));
        for run in sqlite_rows(&store, "select run_id, state, error from runs").await {
            match cell(&run, "state") {
                "finished" => {
                    let hosts = carried.entry(cell(&run, "run_id").to_owned()).or_default();
                    hosts.push(host);
                }
                "skipped" => {}
                state => panic!("{run:?} is {state}"),
            }
        }
    }
    assert!(carried.len() >= 3);
    for request in site.receiver.requests() {
        let run = request.json()["data"]["run_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let host = request.header("x-host").unwrap().to_owned();
        assert_eq!(carried[&run], [host.as_str()], "{run}");
    }
    let left = site.sql("select run_id from campaignd.open_runs").await;
    assert_eq!(left, []);
}

/// A daemon that has looked at the schedule, stopped, with its last look put
/// an hour back: at its next start one fire time is due.
async fn an_hour_ago(site: &Site, host: &str) {
    let store = site.path().join(format!("{host}.db"));
    let daemon = site.serve_as(host);
    wait_for("a look at the schedule", async || {
        let has_table = "select 1 from sqlite_master where name = 'cursors'";
        if !store.exists() || sqlite_rows(&store, has_table).await.is_empty() {
            return None;
        }
        let looks = sqlite_rows(&store, "select seen_until from cursors").await;
        (!looks.is_empty()).then_some(())
    })
    .await;
    stop(vec![daemon], site).await;
    let back = "update cursors set seen_until = seen_until - 3600000000";
    sqlite_rows(&store, back).await;
}

async fn a_daemon_that_comes_an_hour_late_finds_that_another_has_carried_the_run(world: World) {
    let state = |_: &Site, host: &str| format!("url: 'sqlite://./{host}.db'");
    let site = site(world, "hour_late", state).await;
    site.write("campaigns/hello.yaml", &campaign("cron: '0 * * * *'"));
    for host in HOSTS {
        an_hour_ago(&site, host).await;
    }
    let first = site.serve_as(HOSTS[0]);
    finished(&site).await;
    stop(vec![first], &site).await;
    let requests = site.receiver.count();
    let late = site.serve_as(HOSTS[1]);
    let store = site.path().join(format!("{}.db", HOSTS[1]));
    let passed_over = wait_for("the fire time in the late daemon's store", async || {
        let runs = sqlite_rows(
            &store,
            "select run_id, error from runs where state = 'skipped'",
        );
        runs.await.pop()
    })
    .await;
    stop(vec![late], &site).await;
    let error = cell(&passed_over, "error").to_owned();
    assert!(error.contains("an earlier run that is finished"), "{error}");
    assert_eq!(site.receiver.count(), requests, "it sends nothing");
    let runs = site.sql("select run_id, status from campaignd.runs").await;
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(cell(&runs[0], "run_id"), cell(&passed_over, "run_id"));
    oracle::check(&site).await;
}
