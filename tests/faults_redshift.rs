//! Redshift's slowness and silence, made by the gate: commits that queue, one
//! slot for all queries, inserts that cost a second, sessions that are cut
//! when idle, and packets that vanish.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::time::Duration;
use support::gate::{Act, Logged};
use support::night::{self, NEVER, change_settings, furnish, number, start_run};
use support::receiver::Answer;
use support::site::{Site, World};

crate::in_both_worlds! {
    Gate
    commits_that_take_long_and_queue_cost_only_time
    two_campaigns_get_by_with_one_slot
    a_slow_receiver_holds_no_slot_of_the_warehouse
    inserts_that_cost_much_are_few
    a_session_that_was_cut_while_idle_is_made_anew
    a_statement_that_vanishes_is_given_up_and_repeated
    sessions_that_fall_silent_between_two_batches_are_replaced
}

const PEOPLE: u32 = 100;
/// Of seven members each.
const BATCHES: usize = 15;

async fn site(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    furnish(&site, PEOPLE, NEVER).await;
    site
}

async fn everybody_was_contacted_once(site: &Site) {
    night::check(site).await;
    let delivered = "select sum(delivered) from campaignd.runs";
    assert_eq!(number(site, delivered).await, u64::from(PEOPLE));
    assert_eq!(site.receiver.count(), BATCHES);
}

async fn run_whole(site: &Site) {
    let run = site.json(&["run", night::CAMPAIGN]).await;
    assert_eq!(run["status"], "finished");
    everybody_was_contacted_once(site).await;
}

fn ended(site: &Site, step: &str) -> Vec<Logged> {
    let log = site.gate().log();
    let of_step = |ended: &Logged| ended.passing.step == step;
    log.into_iter().filter(of_step).collect()
}

async fn commits_that_take_long_and_queue_cost_only_time(world: World) {
    let site = site(world, "commit_queue").await;
    site.gate().slow_commits(Duration::from_millis(1_500));
    site.write("campaigns/second.yaml", &second());
    let first = async { site.campaignd(&["run", night::CAMPAIGN]).await };
    first_and_second(&site, first).await;
    let commits = ended(&site, "commit");
    let floor = Duration::from_millis(1_500);
    assert!(commits.iter().all(|commit| commit.time >= floor));
}

/// The campaign under another name.
fn second() -> String {
    night::campaign(NEVER, 7).replace("name: hello", "name: second")
}

/// Two campaigns at once, each in a process of its own with its own ledger;
/// everybody is contacted once by each.
async fn first_and_second(site: &Site, first: impl Future<Output = std::process::Output>) {
    let settings = std::fs::read_to_string(site.path().join("campaignd.yaml")).unwrap();
    site.write("other.yaml", &settings.replace("state.db", "other.db"));
    let mut other = tokio::process::Command::new(env!("CARGO_BIN_EXE_campaignd"));
    let other = other
        .args(["run", "second", "--config", "other.yaml"])
        .current_dir(site.path())
        .kill_on_drop(true)
        .output();
    let (first, other) = tokio::join!(first, other);
    let other = other.unwrap();
    assert!(first.status.success(), "{first:?}");
    assert!(other.status.success(), "{other:?}");
    night::check(site).await;
    let delivered = "select sum(delivered) from campaignd.runs";
    assert_eq!(number(site, delivered).await, 2 * u64::from(PEOPLE));
    assert_eq!(site.receiver.count(), 2 * BATCHES);
}

async fn two_campaigns_get_by_with_one_slot(world: World) {
    let site = site(world, "one_slot").await;
    site.gate().queue(1);
    site.write("campaigns/second.yaml", &second());
    let first = async { site.campaignd(&["run", night::CAMPAIGN]).await };
    first_and_second(&site, first).await;
}

async fn a_slow_receiver_holds_no_slot_of_the_warehouse(world: World) {
    let quick = held_with(world, "slot_quick", Duration::ZERO).await;
    let answer = Duration::from_millis(200);
    let slow = held_with(world, "slot_slow", answer).await;
    eprintln!("slot held, receiver at once: {quick:?}; after {answer:?}: {slow:?}");
    // The receiver took fifteen times as long; a slow machine adds less.
    let more = slow.pages.saturating_sub(quick.pages);
    assert!(more < answer, "{quick:?} {slow:?}");
    let more = slow.all.saturating_sub(quick.all);
    assert!(more < answer * 5, "{quick:?} {slow:?}");
}

/// How long a run's statements held a slot of the warehouse.
#[derive(Debug)]
#[expect(dead_code, reason = "what is only printed")]
struct SlotHeld {
    /// Of its pages.
    pages: Duration,
    /// The bytes of the largest page, and of all.
    largest: usize,
    bytes: usize,
    all: Duration,
}

/// Bytes of a member: fifteen batches of seven fit a page of [`PAGE`], and no
/// buffer of a socket.
const WIDE: usize = 120_000;
/// More than all buffers between the gate and the daemon hold of an answer
/// that nobody reads: `a_reader_that_stops_is_seen_to_hold_its_slot`.
const PAGE: usize = 8_000_000;

/// Of a run to a receiver that takes so long, one request at a time.
async fn held_with(world: World, name: &str, answer: Duration) -> SlotHeld {
    let site = site(world, name).await;
    let widen = format!(
        "alter table people add column wide varchar; update people set wide = repeat('x', {WIDE})"
    );
    site.sql(&widen).await;
    let campaign =
        night::campaign(NEVER, 7).replace("profile_id, n from", "profile_id, n, wide from");
    site.write("campaigns/hello.yaml", &campaign);
    // What does not fit into a run's share of memory is read once more.
    let room = "limits: { memory: 2GiB }\ndestinations:";
    change_settings(&site, "destinations:", room);
    site.gate().queue(1);
    change_settings(
        &site,
        "timeout: 2s",
        "timeout: 2s\n    max_in_flight: 1\n    max_body: 2MiB",
    );
    site.receiver
        .rule(move |_| Answer::status(200).after(answer));
    let before = site.gate().log().len();
    let mut run = start_run(&site);
    site.receiver.wait_for(2).await;
    let pages = ended(&site, "page");
    let rows: usize = pages.iter().map(|page| page.rows).sum();
    assert_eq!(rows, 100, "all of it is read before the second batch");
    assert_eq!(run.wait().await, Some(0), "{}", site.log());
    everybody_was_contacted_once(&site).await;
    let is_bare = |page: &Logged| !page.passing.transaction.contains(&"begin".to_owned());
    assert!(pages.iter().all(is_bare), "{pages:?}");
    let largest = pages.iter().map(|page| page.bytes).max().unwrap_or(0);
    assert!(largest > PAGE, "{largest}");
    let log = site.gate().log().split_off(before);
    SlotHeld {
        pages: pages.iter().map(|page| page.slot_held).sum(),
        largest,
        bytes: pages.iter().map(|page| page.bytes).sum(),
        all: log.iter().map(|ended| ended.slot_held).sum(),
    }
}

async fn inserts_that_cost_much_are_few(world: World) {
    let site = site(world, "slow_inserts").await;
    site.gate().slow_inserts(Duration::from_millis(500));
    run_whole(&site).await;
    let inserts = site.gate().inserts();
    // A few for each step of a run; one for each member would be a hundred.
    assert!(inserts < 2 * BATCHES, "{inserts} inserts");
}

async fn a_session_that_was_cut_while_idle_is_made_anew(world: World) {
    let site = site(world, "idle_cut").await;
    site.gate().cut_idle(Duration::from_millis(300));
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 1");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(400)));
    run_whole(&site).await;
}

/// The daemon waits for an answer no longer than its statements may take, and
/// ten seconds.
async fn give_up_soon(site: &Site) {
    change_settings(site, "tls: disable", "tls: disable, statement_timeout: 1s");
}

async fn a_statement_that_vanishes_is_given_up_and_repeated(world: World) {
    // Beside each other, since it is waiting that takes the time.
    let each = ["freeze", "settle"].map(|step| async move {
        let site = site(world, "vanished").await;
        give_up_soon(&site).await;
        let left = std::sync::atomic::AtomicBool::new(true);
        site.gate().rule(move |passing| {
            let is_it =
                passing.step == step && left.swap(false, std::sync::atomic::Ordering::SeqCst);
            if is_it { Act::Vanish } else { Act::Pass }
        });
        run_whole(&site).await;
        let log = site.gate().log();
        let vanished = |ended: &&Logged| matches!(ended.act, Act::Vanish);
        assert_eq!(log.iter().filter(vanished).count(), 1);
    });
    let [freeze, settle] = each;
    tokio::join!(freeze, settle);
}

async fn sessions_that_fall_silent_between_two_batches_are_replaced(world: World) {
    let site = site(world, "silent_sessions").await;
    give_up_soon(&site).await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 1");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(300)));
    let mut run = start_run(&site);
    site.receiver.wait_for(5).await;
    site.gate().vanish();
    let ended = tokio::time::timeout(Duration::from_secs(120), run.wait()).await;
    assert_eq!(ended.unwrap(), Some(0), "{}", site.log());
    everybody_was_contacted_once(&site).await;
}
