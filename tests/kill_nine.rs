//! The daemon killed at any moment, over and over: nothing is lost, and
//! nothing goes out under a second id or with other bytes.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use campaignd::ledger::SqliteLedger;
use campaignd::run::Ledger as _;
use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::Site;

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '*/2 * * * * *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
activation: { destination: sink, batch_size: 7 }
";

/// Milliseconds after which the daemon is killed, one start after the other;
/// the same in every run.
fn moments() -> impl Iterator<Item = u64> {
    let next = |seed: &u64| Some(seed.wrapping_mul(6_364_136_223_846_793_005) + 1_442_695);
    std::iter::successors(Some(20_261_122), next).map(|seed| 150 + (seed >> 33) % 1_200)
}

fn times_ready(site: &Site) -> usize {
    site.log().matches("ready; ").count()
}

/// Waits until the daemon that was started last is ready, and no run is open
/// in the ledger; a minute at most.
async fn wait_until_nothing_is_open(site: &Site, ready_before: usize) {
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ledger = SqliteLedger::open_read_only(&site.path().join("state.db")).await;
        let open = ledger.unwrap().open_runs().await.unwrap();
        if open.is_empty() && times_ready(site) > ready_before {
            return;
        }
    }
    panic!("a run is still open after a minute: {}", site.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_moment_loses_nothing_and_sends_nothing_anew() {
    let site = Site::new("kill_nine").await;
    site.sql(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, 500) n",
    )
    .await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site.receiver.rule(|request| {
        let answer = Answer::status(if request.number % 11 == 0 { 503 } else { 200 });
        answer.after(Duration::from_millis(15))
    });
    for moment in moments().take(12) {
        let mut daemon = site.serve();
        tokio::time::sleep(Duration::from_millis(moment)).await;
        daemon.signal("KILL").await;
        assert_eq!(daemon.ended().await, None);
    }
    // No further fire time, and time for what is open.
    let last = CAMPAIGN.replace("connector:", "enabled: false\nconnector:");
    site.write("campaigns/hello.yaml", &last);
    let ready_before = times_ready(&site);
    let mut daemon = site.serve();
    wait_until_nothing_is_open(&site, ready_before).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
    let runs = site
        .sql("select * from campaignd.runs where status not in ('finished', 'missed', 'skipped')")
        .await;
    assert_eq!(runs, []);
    let left = site
        .sql("select tablename from pg_tables where schemaname = 'campaignd' and tablename ~ '^(stage|admit|run)_'")
        .await;
    assert_eq!(left, []);
    assert!(site.receiver.count() > 72, "{}", site.receiver.count());
}
