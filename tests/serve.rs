//! The daemon as a process: signals, restarts, limits, systemd, and what it
//! lets out.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, in its helpers too"
)]

use crate::support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use support::oracle;
use support::receiver::{Answer, Receiver, Recorded};
use support::site::{SIGNING_SECRET, Site, TextRow, sqlite_rows};
use tokio::net::UnixDatagram;

/// 1,200 people; runs on PostgreSQL and on SQLite.
const AUDIENCE: &str = "
    create table shoppers as
    with recursive n(n) as (select 1 union all select n + 1 from n where n < 1200)
    select 'p-' || n as profile_id, 'p' || n || '@example.com' as email from n";

const EVERY_SECOND: &str = "* * * * * *";
const EVERY_TWO_SECONDS: &str = "*/2 * * * * *";

/// Twelve batches a run.
fn campaign(name: &str, cron: &str) -> String {
    format!(
        "name: {name}
connector: warehouse
schedule: {{ cron: '{cron}', timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id, email from shoppers' }}
activation: {{ destination: sink, batch_size: 100 }}
"
    )
}

/// The site with its shoppers, its tables and one campaign.
async fn furnished(site: Site, cron: &str) -> Site {
    site.sql(AUDIENCE).await;
    site.write("campaigns/hello.yaml", &campaign("hello", cron));
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

fn change_settings(site: &Site, from: &str, to: &str) {
    let path = site.path().join("campaignd.yaml");
    let settings = std::fs::read_to_string(path).unwrap();
    assert!(settings.contains(from), "{from}");
    site.write("campaignd.yaml", &settings.replace(from, to));
}

async fn ledger(site: &Site, sql: &str) -> Vec<TextRow> {
    sqlite_rows(&site.path().join("state.db"), sql).await
}

fn text<'a>(row: &'a TextRow, column: &str) -> &'a str {
    row[column].as_deref().unwrap_or("")
}

/// How many finished runs the campaign has.
async fn finished(site: &Site, name: &str) -> usize {
    let sql =
        format!("select * from campaignd.runs where campaign = '{name}' and status = 'finished'");
    site.sql(&sql).await.len()
}

/// Waits until the campaign has `more` finished runs than now.
async fn wait_for_more(site: &Site, name: &str, more: usize) {
    let now = finished(site, name).await;
    let at_least = now + more;
    let sql = format!(
        "select campaign from campaignd.runs where campaign = '{name}' and status = 'finished'
         group by campaign having count(*) >= {at_least}"
    );
    site.wait_for_row(&sql).await;
}

async fn wait_for_end_of(site: &Site, run: &str) {
    let sql =
        format!("select * from campaignd.runs where run_id = '{run}' and status = 'finished'");
    site.wait_for_row(&sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_takes_new_files_keeps_good_versions_and_drops_what_is_gone() {
    let site = furnished(Site::sqlite().await, EVERY_SECOND).await;
    let mut daemon = site.serve();
    wait_for_more(&site, "hello", 1).await;

    site.write("campaigns/second.yaml", &campaign("second", EVERY_SECOND));
    daemon.signal("HUP").await;
    wait_for_more(&site, "second", 1).await;

    let broken = campaign("second", EVERY_SECOND).replace("batch_size: 100", "batch_size: 0");
    site.write("campaigns/second.yaml", &broken);
    daemon.signal("HUP").await;
    site.wait_for_log("1 of 2 campaign files are refused", 1)
        .await;
    wait_for_more(&site, "second", 2).await;

    std::fs::remove_file(site.path().join("campaigns/hello.yaml")).unwrap();
    daemon.signal("HUP").await;
    site.wait_for_log("campaigns: 1", 2).await;
    let claimed = "select * from runs where campaign = 'hello'";
    let before = ledger(&site, claimed).await.len();
    wait_for_more(&site, "second", 3).await;
    assert_eq!(ledger(&site, claimed).await.len(), before);

    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_leaves_a_run_that_waits_for_its_receiver_to_the_next_start() {
    let site = furnished(Site::sqlite().await, EVERY_TWO_SECONDS).await;
    site.receiver.rule(|_| Answer::hang());
    let mut daemon = site.serve();
    site.receiver.wait_for(4).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let open = ledger(&site, "select run_id from runs where is_open = 1").await;
    assert_eq!(open.len(), 1, "{open:?}");
    let run = text(&open[0], "run_id").to_owned();
    let before: BTreeSet<String> = ids(&site.receiver.requests());

    site.receiver.rule(|_| Answer::status(200));
    let first_again = site.receiver.count();
    let mut daemon = site.serve();
    wait_for_end_of(&site, &run).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let after = ids(&site.receiver.requests()[first_again..]);
    assert!(before.is_subset(&after), "what may have arrived came again");
    oracle::check(&site).await;
}

fn ids(requests: &[Recorded]) -> BTreeSet<String> {
    requests.iter().map(|r| r.id().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_with_its_grace_whatever_the_receiver_does() {
    let site = furnished(Site::sqlite().await, EVERY_TWO_SECONDS).await;
    change_settings(&site, "timeout: 2s", "timeout: 5m");
    change_settings(&site, "log:", "shutdown_grace: 1s\nlog:");
    site.receiver.rule(|_| Answer::hang());
    let mut daemon = site.serve();
    site.receiver.wait_for(2).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let sql = "select run_id from runs where is_open = 1";
    let run = text(&ledger(&site, sql).await[0], "run_id").to_owned();

    site.receiver.rule(|_| Answer::status(200));
    let mut daemon = site.serve();
    wait_for_end_of(&site, &run).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
}

async fn killed_again_and_again(site: Site) {
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 2");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(100)));
    for more in [1, 3, 6] {
        let seen = site.receiver.count();
        let daemon = site.serve();
        site.receiver.wait_for(seen + more).await;
        daemon.kill().await;
    }
    let sql = "select run_id from runs where state not in ('skipped', 'missed') order by seq";
    let run = text(&ledger(&site, sql).await[0], "run_id").to_owned();
    let mut daemon = site.serve();
    wait_for_end_of(&site, &run).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let requests = site.receiver.requests();
    let of_run = |r: &&Recorded| r.json()["data"]["run_id"] == run.as_str();
    let times = requests.iter().filter(of_run).count();
    assert!(times > 12, "a batch that may have arrived comes again");
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_in_mid_run_finishes_it_at_the_next_start() {
    killed_again_and_again(furnished(Site::sqlite().await, EVERY_TWO_SECONDS).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_in_mid_run_finishes_it_on_postgresql_too() {
    let site = Site::new("killed").await;
    killed_again_and_again(furnished(site, EVERY_TWO_SECONDS).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_cuts_its_connections_costs_time_and_nothing_else() {
    let site = furnished(Site::new("cut_off").await, "0 0 1 1 *").await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 1");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(50)));
    // Slow, so that the freeze is cut as well.
    let slow = campaign("slow", EVERY_TWO_SECONDS).replace(
        "from shoppers",
        "from shoppers cross join (select pg_sleep(0.2)) pause",
    );
    site.write("campaigns/slow.yaml", &slow);
    let mut daemon = site.serve();
    let cut = "select pg_terminate_backend(pid) as cut from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    let freezing = "select pid from pg_stat_activity
                    where query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid()";
    site.wait_for_row(freezing).await;
    site.sql(cut).await;
    for requests in [1, 6, 12] {
        site.receiver.wait_for(requests).await;
        site.sql(cut).await;
    }
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert!(site.log().contains("the warehouse did not answer"));
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_is_waited_for_and_gets_everything() {
    let mut site = furnished(Site::sqlite().await, EVERY_TWO_SECONDS).await;
    let address = site.receiver.address();
    site.receiver = Receiver::start().await;
    let mut daemon = site.serve();
    wait_for_refused(&site).await;
    site.receiver = Receiver::start_at(address).await;
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
}

/// Waits until the ledger has a batch that found nobody listening.
async fn wait_for_refused(site: &Site) {
    site.wait_for_log("ready", 1).await;
    let sql = "select batch from batches_now where state = 'waiting' and error like '%refuses connections'";
    for _ in 0..600 {
        if !ledger(site, sql).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing was refused:\n{}", site.log());
}

/// The most requests that were open at a time, each having been open at least
/// for `each`.
fn most_at_a_time(requests: &[&Recorded], each: Duration) -> usize {
    let open_at = |r: &&Recorded| {
        let others = requests.iter();
        let open = others.filter(|o| o.at <= r.at && o.at + each > r.at);
        open.count()
    };
    requests.iter().map(open_at).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_that_send_at_once_stay_within_the_limits_of_requests() {
    let each = Duration::from_millis(200);
    let site = furnished(Site::sqlite().await, EVERY_TWO_SECONDS).await;
    let url = site.receiver.url();
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 3");
    let other = format!(
        "destinations:\n  other: {{ url: '{url}/other', signing_secrets: ['{SIGNING_SECRET}'], \
         max_in_flight: 3, dedupe_window: 1h, allow_http: true, allow_private_network: true }}\n"
    );
    change_settings(&site, "destinations:\n", &other);
    change_settings(&site, "log:", "limits: { max_in_flight: 4 }\nlog:");
    let second = campaign("second", EVERY_TWO_SECONDS).replace("sink", "other");
    site.write("campaigns/second.yaml", &second);
    site.receiver.rule(move |_| Answer::status(200).after(each));
    let mut daemon = site.serve();
    site.wait_for_row(
        "select * from campaignd.runs where campaign = 'hello' and status = 'finished'",
    )
    .await;
    site.wait_for_row(
        "select * from campaignd.runs where campaign = 'second' and status = 'finished'",
    )
    .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let requests = site.receiver.requests();
    let all: Vec<&Recorded> = requests.iter().collect();
    assert_eq!(most_at_a_time(&all, each), 4, "all destinations together");
    let (other, sink): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|r| r.request_line.contains("/other"));
    assert!(most_at_a_time(&sink, each) <= 3, "sink");
    assert!(most_at_a_time(&other, each) <= 3, "other");
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_that_fire_at_once_ask_no_more_than_max_queries_at_a_time() {
    let site = furnished(Site::new("max_queries").await, "0 0 1 1 *").await;
    change_settings(
        &site,
        "schema: campaignd",
        "schema: campaignd, max_queries: 2",
    );
    for n in 1..=5 {
        let name = format!("slow-{n}");
        let slow = campaign(&name, EVERY_TWO_SECONDS).replace(
            "from shoppers",
            "from shoppers cross join (select pg_sleep(0.3)) pause",
        );
        site.write(&format!("campaigns/{name}.yaml"), &slow);
    }
    let mut daemon = site.serve();
    let asking = "select pid from pg_stat_activity
                  where state = 'active' and query like '%pg_sleep%' and pid <> pg_backend_pid()";
    let all_finished = "select count(distinct campaign) as done from campaignd.runs
                        where status = 'finished'";
    let mut most = 0;
    for _ in 0..2_000 {
        most = most.max(site.sql(asking).await.len());
        if text(&site.sql(all_finished).await[0], "done") == "5" {
            break;
        }
    }
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert_eq!(most, 2, "{}", site.log());
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fire_time_that_finds_the_last_run_open_is_recorded_as_skipped() {
    let site = furnished(Site::sqlite().await, EVERY_SECOND).await;
    change_settings(&site, "timeout: 2s", "timeout: 20s");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_secs(2)));
    let mut daemon = site.serve();
    let skipped = site
        .wait_for_row("select * from campaignd.runs where status = 'skipped'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let error = text(&skipped[0], "error");
    assert!(error.contains("was still open"), "{error}");
    let shown = site.json(&["runs", "hello"]).await;
    let states = shown.as_array().unwrap().iter().map(|run| &run["status"]);
    assert!(states.into_iter().any(|status| status == "skipped"));
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_downtime_the_newest_fire_time_runs_and_the_others_are_missed() {
    let site = furnished(Site::sqlite().await, "30 4 * * *").await;
    let mut daemon = site.serve();
    site.wait_for_log("ready", 1).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let five_days = 5 * 86_400 * 1_000_000_u64;
    let back = format!("update cursors set seen_until = seen_until - {five_days}");
    ledger(&site, &back).await;

    let mut daemon = site.serve();
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    site.wait_for_row("select * from campaignd.runs where status = 'missed'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let runs = site
        .sql("select * from campaignd.runs order by fire_time")
        .await;
    let statuses: Vec<&str> = runs.iter().map(|run| text(run, "status")).collect();
    assert_eq!(
        statuses,
        ["missed", "missed", "missed", "missed", "finished"]
    );
    let reason = text(&runs[0], "error");
    assert!(reason.contains("while nothing was running"), "{reason}");
    assert_eq!(site.receiver.count(), 12, "one run's batches");
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_readiness_life_and_the_end() {
    let site = furnished(Site::sqlite().await, "0 0 1 1 *").await;
    let path = site.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut daemon = site.serve_with(&[
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "4000000"),
    ]);
    assert_eq!(heard(&socket).await, "READY=1");
    for _ in 0..3 {
        assert_eq!(heard(&socket).await, "WATCHDOG=1");
    }
    daemon.signal("TERM").await;
    while heard(&socket).await != "STOPPING=1" {}
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
}

/// The next notification, half a minute at most.
async fn heard(socket: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let receiving = socket.recv(&mut message);
    let length = tokio::time::timeout(Duration::from_secs(30), receiving);
    let length = length.await.expect("systemd is told").unwrap();
    String::from_utf8_lossy(&message[..length])
        .trim_end()
        .to_owned()
}

/// In every column of every member: none may be found in what the daemon
/// writes.
const CANARIES: [&str; 5] = ["canary-key", "canary@", "918273645", "1907-03-05", "c4n4ry"];

const CANARY_AUDIENCE: &str = "
    create table canaries as
    select 'canary-key-' || n as profile_id, 'canary@' || n as email, 918273645 as visits,
           timestamp '1907-03-05 01:02:03' as seen_at, '{\"x\":\"c4n4ry\"}'::jsonb as extra
    from generate_series(1, 300) n
    union all select repeat('canary-key', 30), 'canary@long', 918273645, null, null
    union all select null, 'canary@nobody', 918273645, null, null";

#[tokio::test(flavor = "multi_thread")]
async fn no_member_value_and_no_secret_reaches_a_log_or_the_state_store() {
    let site = furnished(Site::new("canaries").await, "0 0 1 1 *").await;
    change_settings(&site, "level: debug", "level: trace");
    site.sql(CANARY_AUDIENCE).await;
    let canaries = campaign("canaries", EVERY_TWO_SECONDS).replace(
        "select profile_id, email from shoppers",
        "select profile_id, email, visits, seen_at, extra from canaries",
    );
    site.write("campaigns/canaries.yaml", &canaries);
    let failing = canaries
        .replace("name: canaries", "name: failing")
        .replace("email,", "cast(email as int) as email,");
    site.write("campaigns/failing.yaml", &failing);
    // The receiver repeats what it was sent, resets, and refuses.
    site.receiver.rule(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        match request.number % 4 {
            0 => Answer::reply(422, &[("x-echo", "canary-key-1")], &body),
            1 => Answer::reset(),
            2 => Answer::reply(429, &[("retry-after", "canary-key-1")], &body),
            _ => Answer::reply(200, &[], &body),
        }
    });
    let mut daemon = site.serve();
    site.wait_for_row(
        "select * from campaignd.runs where campaign = 'canaries' and status in ('finished', 'incomplete')",
    )
    .await;
    site.wait_for_row("select * from campaignd.runs where status = 'failed'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    for args in [
        ["run", "failing"],
        ["run", "canaries"],
        ["runs", "--limit=9"],
    ] {
        let output = site.campaignd(&args).await;
        site.write(
            &format!("{}-{}.out", args[0], args[1]),
            &format!("{output:?}"),
        );
    }

    for line in site.log().lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|line| line.is_object()), "{line}");
    }
    let searched = search(site.path());
    assert!(searched.contains("daemon.log") && searched.contains("state.db"));
    oracle::check(&site).await;
}

/// Looks for the canaries in every file below `folder` and, but in the
/// operator's file, for the signing secret. Returns the files' names.
fn search(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(search(&path));
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        let mut forbidden = CANARIES.to_vec();
        if name != "campaignd.yaml" {
            forbidden.push(SIGNING_SECRET.trim_start_matches("whsec_"));
        }
        for word in forbidden {
            let found = bytes.windows(word.len()).any(|at| at == word.as_bytes());
            assert!(!found, "{word} is in {name}");
        }
        names.insert(name);
    }
    names
}
