//! A warehouse that is asked for more than it has: the limit on statements
//! comes down, every run ends whole all the same, and the limit comes back.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, in its helpers too"
)]

use crate::support;

use campaignd::run::{Clock as _, SystemClock};
use std::time::{Duration, SystemTime};
use support::gate::{Act, Logged};
use support::night::{self, change_settings, ledger, number};
use support::site::{Daemon, Site};

const CAMPAIGNS: usize = 12;
const PEOPLE: usize = 21;
const MAX_QUERIES: u32 = 6;

/// What the log says when the limit has come down to `limit`.
fn strained(limit: u32) -> String {
    format!("under strain: at most {limit} of its statements at a time")
}

/// All campaigns are due at the same instant, which has just passed.
async fn due_at_once(site: &Site) {
    let people = format!(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, {PEOPLE}) n"
    );
    site.sql(&people).await;
    for number in 0..CAMPAIGNS {
        let campaign = night::campaign("30 4 * * *", 7);
        let campaign = campaign.replace("name: hello", &format!("name: rush-{number}"));
        site.write(&format!("campaigns/rush-{number}.yaml"), &campaign);
    }
    let limits = format!("limits: {{ max_runs: {CAMPAIGNS} }}\nlog:");
    change_settings(site, "log:", &limits);
    let queries = format!("tls: disable, max_queries: {MAX_QUERIES}");
    change_settings(site, "tls: disable", &queries);
    let mut daemon = site.serve();
    site.wait_for_log("ready", 1).await;
    let known = format!("select count(*) from cursors having count(*) = {CAMPAIGNS}");
    for _ in 0..600 {
        if !ledger(site, &known).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop(site, &mut daemon).await;
    let a_day = 86_400 * 1_000_000_u64;
    let back = format!("update cursors set seen_until = seen_until - {a_day}");
    ledger(site, &back).await;
}

async fn bootstrap(site: &Site) {
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
}

async fn stop(site: &Site, daemon: &mut Daemon) {
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
}

/// Waits until every run has ended, and counts everything.
async fn all_end_whole(site: &Site, daemon: &mut Daemon) {
    let finished = format!(
        "select count(*) from campaignd.runs where status = 'finished'
         having count(*) = {CAMPAIGNS}"
    );
    site.wait_for_row(&finished).await;
    stop(site, daemon).await;
    night::check(site).await;
    let delivered = "select count(*) from campaignd.contact_history where status = 'delivered'";
    let all = u64::try_from(CAMPAIGNS * PEOPLE).unwrap();
    assert_eq!(number(site, delivered).await, all);
    let received = site.receiver.members().len();
    assert_eq!(received, CAMPAIGNS * PEOPLE, "each of them once");
}

/// Whether it is asked under the limit: settling and signs of life are not.
fn is_limited(ended: &&Logged) -> bool {
    let steps = ["probe", "freeze", "count", "number", "lay", "page"];
    steps.contains(&&*ended.passing.step)
}

/// The most statements under the limit at a time, of those that came after
/// `since`.
fn most_at_a_time(log: &[Logged], since: SystemTime) -> usize {
    let later = |ended: &&Logged| ended.began >= since;
    let spans = || log.iter().filter(is_limited).filter(later);
    let at_a_time = |at: SystemTime| {
        let lasts = |ended: &&Logged| ended.began <= at && at < ended.began + ended.time;
        spans().filter(lasts).count()
    };
    spans()
        .map(|ended| at_a_time(ended.began))
        .max()
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_refuses_brings_the_limit_down_and_every_run_ends_whole() {
    let site = Site::on_redshift("strain_queue").await;
    bootstrap(&site).await;
    due_at_once(&site).await;
    let patience = Duration::from_millis(300);
    let others = site.gate().queue_taken(2, patience).await;
    let mut daemon = site.serve();
    site.wait_for_log(&strained(1), 1).await;
    let since = SystemTime::from(SystemClock.now());
    drop(others);
    all_end_whole(&site, &mut daemon).await;

    let log = site.gate().log();
    let refused = log
        .iter()
        .filter(|ended| matches!(ended.act, Act::Refuse(_)));
    assert!(refused.count() >= 2, "6 to 3, and 3 to 1");
    // One more for each minute that it has taken since.
    let minutes = since.elapsed().unwrap().as_secs() / 60;
    let most = most_at_a_time(&log, since);
    assert!(
        (1..=1 + minutes as usize).contains(&most),
        "{most} at a time"
    );
    assert!(site.log().contains("connector warehouse is under strain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_refused_bring_the_limit_down_and_every_run_ends_whole() {
    let site = Site::new("strain_logins").await;
    let database = site.database().database.clone();
    site.sql("create role campaigner login connection limit 3")
        .await;
    site.sql(&format!(
        "grant create on database {database} to campaigner"
    ))
    .await;
    change_settings(&site, "user: postgres", "user: campaigner");
    bootstrap(&site).await;
    due_at_once(&site).await;
    site.sql("grant select on people to campaigner").await;
    let mut daemon = site.serve();
    site.wait_for_log(&strained(3), 1).await;
    all_end_whole(&site, &mut daemon).await;
    let said = "too many connections for role";
    assert!(site.log().contains(said), "{}", site.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_grows_slow_brings_the_limit_down() {
    let site = Site::behind_gate("strain_pages").await;
    bootstrap(&site).await;
    due_at_once(&site).await;
    site.gate().rule(|passing| {
        let is_it = passing.step == "page" && passing.number == CAMPAIGNS - 2;
        if is_it {
            Act::Delay(Duration::from_secs(3))
        } else {
            Act::Pass
        }
    });
    let mut daemon = site.serve();
    site.wait_for_log(&strained(3), 1).await;
    all_end_whole(&site, &mut daemon).await;
}
