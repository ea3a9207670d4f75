//! A thousand campaigns that are due at the same second.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, in its helpers too"
)]

use crate::support;

use std::time::Duration;
use support::oracle;
use support::site::{Daemon, Site, TextRow, sqlite_rows};

const CAMPAIGNS: usize = 1_000;
const MAX_RUNS: usize = 6;
const MAX_QUERIES: usize = 3;

/// What the process may come to, in KiB, with `memory: 16MiB`: a thousand
/// campaigns, six runs, and a debug build that takes 96,000.
const MAX_MEMORY_KIB: u64 = 160 * 1_024;

/// Every fifth is urgent. Each asks for its own three people.
fn campaign(number: usize) -> String {
    let priority = if number.is_multiple_of(5) { 90 } else { 10 };
    format!(
        "name: rush-{number}
connector: warehouse
priority: {priority}
schedule: {{ cron: '30 4 * * *', timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id from shoppers where n = {number}' }}
activation: {{ destination: sink, batch_size: 100 }}
"
    )
}

async fn ledger(site: &Site, sql: &str) -> Vec<TextRow> {
    sqlite_rows(&site.path().join("state.db"), sql).await
}

fn number(row: &TextRow, column: &str) -> i64 {
    row[column].as_deref().unwrap().parse().unwrap()
}

async fn furnished() -> Site {
    let site = Site::new("spike").await;
    let people = format!(
        "create table shoppers as
         select n, 'p-' || n || '-' || k as profile_id
         from generate_series(0, {CAMPAIGNS}) n cross join generate_series(1, 3) k"
    );
    site.sql(&people).await;
    let limits = format!("limits: {{ max_runs: {MAX_RUNS}, memory: 16MiB }}\n");
    let settings = site.settings().replace(
        "schema: campaignd",
        &format!("schema: campaignd, max_queries: {MAX_QUERIES}"),
    );
    let settings = settings.replace("log: {", &format!("{limits}log: {{"));
    site.write("campaignd.yaml", &settings);
    for n in 0..CAMPAIGNS {
        site.write(&format!("campaigns/rush-{n}.yaml"), &campaign(n));
    }
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

/// The most memory the process has had, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// The most that overlap of what lasts from one instant to another.
fn most_at_a_time(spans: &[(i64, i64)]) -> usize {
    let overlap = |at: i64| {
        spans
            .iter()
            .filter(move |(from, to)| (*from..*to).contains(&at))
    };
    let counts = spans.iter().map(|(from, _)| overlap(*from).count());
    counts.max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_campaigns_due_at_once_all_run_within_the_limits_the_urgent_first() {
    let site = furnished().await;
    let mut daemon = site.serve();
    site.wait_for_log("ready", 1).await;
    let cursors = format!("select count(*) as n from cursors having count(*) = {CAMPAIGNS}");
    for _ in 0..600 {
        if !ledger(&site, &cursors).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0));
    let a_day = 86_400 * 1_000_000_u64;
    let back = format!("update cursors set seen_until = seen_until - {a_day}");
    ledger(&site, &back).await;

    let mut daemon = site.serve();
    // Statements of runs; settling and signs of life have connections of
    // their own.
    let asking = "select count(*) as n from pg_stat_activity
                  where datname = current_database() and state = 'active'
                  and query ilike '%create table%shoppers%' and pid <> pg_backend_pid()";
    let finished = "select count(*) as n from runs where state = 'finished'";
    let (mut most, mut done) = (0, 0);
    for _ in 0..3_000 {
        most = most.max(number(&site.sql(asking).await[0], "n"));
        done = number(&ledger(&site, finished).await[0], "n");
        if done == CAMPAIGNS as i64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let peak = peak(&daemon);
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0));
    assert_eq!(done, CAMPAIGNS as i64, "no fire time is lost");
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
    assert!(
        (1..=MAX_QUERIES as i64).contains(&most),
        "{most} statements"
    );

    let runs = ledger(
        &site,
        "select campaign, claimed_at, started_at, finished_at from runs order by started_at",
    )
    .await;
    assert_eq!(runs.len(), CAMPAIGNS, "one run a campaign");
    let spans = runs
        .iter()
        .map(|run| (number(run, "started_at"), number(run, "finished_at")));
    assert!(most_at_a_time(&spans.collect::<Vec<_>>()) <= MAX_RUNS);

    // Who came before all stood in the line could not be passed by.
    let claimed = runs
        .iter()
        .map(|run| number(run, "claimed_at"))
        .max()
        .unwrap();
    let in_line = runs
        .iter()
        .filter(|run| number(run, "started_at") > claimed);
    let urgent: Vec<bool> = in_line
        .map(|run| run["campaign"].as_deref().unwrap())
        .map(|name| name.trim_start_matches("rush-").parse::<usize>().unwrap())
        .map(|number| number.is_multiple_of(5))
        .collect();
    assert!(
        urgent.len() >= CAMPAIGNS / 2,
        "{} stood in line",
        urgent.len()
    );
    assert!(urgent.contains(&true), "an urgent one among them");
    let last_urgent = urgent.iter().rposition(|urgent| *urgent).unwrap_or(0);
    let before = urgent[..last_urgent].iter().filter(|urgent| !**urgent);
    assert!(before.count() <= 2 * MAX_RUNS, "{urgent:?}");
    oracle::check(&site).await;
}
