//! Several large runs at once within `limits.memory`, and again after a kill.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, in its helpers too"
)]

use crate::support;

use std::collections::BTreeSet;
use std::time::Duration;
use support::night::{self, change_settings, ledger, number, text};
use support::site::{Daemon, Site};

const RUNS: u32 = 6;
/// Of each run: 600 bytes each and 15 MB a run, so 90 MB in all.
const PEOPLE: u32 = 25_000;
const BATCH: u32 = 500;

/// What the process may come to, in KiB, with `memory: 16MiB`.
const MAX_MEMORY_KIB: u64 = 112 * 1_024;

async fn furnished() -> Site {
    let site = Site::new("spike_memory").await;
    let people = format!(
        "create table people as
         select 'p-' || n as profile_id, md5(n::text) as a, repeat(md5(n::text), 8) as b,
                repeat('é', 100) as c, n * 1.25 as d, n as e
         from generate_series(1, {PEOPLE}) n"
    );
    site.sql(&people).await;
    for number in 0..RUNS {
        let campaign = night::campaign("30 4 * * *", BATCH)
            .replace("name: hello", &format!("name: large-{number}"))
            .replace("profile_id, n from", "profile_id, a, b, c, d, e from");
        site.write(&format!("campaigns/large-{number}.yaml"), &campaign);
    }
    let limits = format!("limits: {{ max_runs: {RUNS}, memory: 16MiB }}\nlog:");
    change_settings(&site, "log:", &limits);
    change_settings(&site, "timeout: 2s", "timeout: 30s");
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

/// All campaigns are due at the same instant, which has just passed.
async fn due_at_once(site: &Site) {
    let mut daemon = site.serve();
    site.wait_for_log("ready", 1).await;
    let known = format!("select count(*) from cursors having count(*) = {RUNS}");
    for _ in 0..600 {
        if !ledger(site, &known).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let a_day = 86_400 * 1_000_000_u64;
    let back = format!("update cursors set seen_until = seen_until - {a_day}");
    ledger(site, &back).await;
}

/// The most memory the process has had, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_runs_side_by_side_and_resumed_stay_within_the_memory_there_is() {
    let site = furnished().await;
    due_at_once(&site).await;
    let batches = usize::try_from(RUNS * PEOPLE / BATCH).unwrap();

    let daemon = site.serve();
    site.receiver.wait_for(batches / 2).await;
    let before = peak(&daemon);
    night::kill(daemon).await;
    let sending = "select run_id from runs where state = 'sending'";
    assert!(ledger(&site, sending).await.len() > 1, "several at once");

    let mut daemon = site.serve();
    let finished = format!(
        "select count(*) from campaignd.runs where status = 'finished' having count(*) = {RUNS}"
    );
    site.wait_for_row(&finished).await;
    let after = peak(&daemon);
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    eprintln!("at most {before} KiB before the kill, {after} KiB after it");
    assert!(before < MAX_MEMORY_KIB, "{before} KiB before the kill");
    assert!(after < MAX_MEMORY_KIB, "{after} KiB after it");

    everybody_is_accounted_for_once(&site).await;
}

/// By what the warehouse says, and what the receiver got.
async fn everybody_is_accounted_for_once(site: &Site) {
    let all = u64::from(RUNS * PEOPLE);
    let delivered = "select count(*) from campaignd.contact_history where status = 'delivered'";
    assert_eq!(number(site, delivered).await, all);
    let people = "select count(*) from
        (select distinct run_id, profile_id from campaignd.contact_history) h";
    assert_eq!(number(site, people).await, all);
    let of_batches = "select sum(members) from campaignd.deliveries where status = 'delivered'";
    assert_eq!(number(site, of_batches).await, all);
    let open = site.sql("select run_id from campaignd.open_runs").await;
    assert_eq!(open, []);

    let settled = site
        .sql("select message_id from campaignd.deliveries")
        .await;
    let settled: BTreeSet<&str> = settled.iter().map(|row| text(row, "message_id")).collect();
    let requests = site.receiver.requests();
    let received: BTreeSet<&str> = requests.iter().map(|request| request.id()).collect();
    assert_eq!(
        settled.len(),
        usize::try_from(RUNS * PEOPLE / BATCH).unwrap()
    );
    assert_eq!(settled, received);
    for pair in requests.iter().zip(requests.iter().skip(1)) {
        let (one, other) = pair;
        assert!(one.id() != other.id() || one.body == other.body);
    }
}
