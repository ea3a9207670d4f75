//! The receiver's faults: connections that break after the request was read,
//! a receiver that is away, a dedupe window that passes, and a daemon that is
//! told to stop while a receiver hangs.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::collections::BTreeMap;
use std::time::Duration;
use support::night::{self, NEVER, change_settings, furnish, ledger, number, start_run, text};
use support::receiver::{Answer, Receiver, Recorded};
use support::site::{Site, World};
use tokio::net::TcpListener;

crate::in_both_worlds! {
    Postgres
    what_broke_off_after_it_was_read_is_sent_again_to_who_remembers_ids
    what_broke_off_after_it_was_read_is_parked_where_ids_are_not_remembered
    a_receiver_that_is_away_for_a_while_loses_nothing_and_parks_nothing
    a_batch_whose_dedupe_window_passed_while_nothing_ran_is_parked_and_not_sent
    a_batch_still_inside_its_dedupe_window_is_sent_again_after_a_kill
    a_daemon_told_to_stop_under_load_ends_what_is_on_the_wire_and_repeats_nothing
    a_daemon_told_to_stop_while_its_receiver_hangs_ends_by_the_deadline_and_parks_nothing
}

const PEOPLE: u32 = 100;
/// Of seven members each.
const BATCHES: usize = 15;

async fn site(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    furnish(&site, PEOPLE, NEVER).await;
    site
}

fn batch(request: &Recorded) -> u64 {
    request.json()["data"]["batch"].as_u64().unwrap()
}

/// How often each batch was requested.
fn times(site: &Site) -> BTreeMap<u64, usize> {
    let mut times = BTreeMap::new();
    for request in site.receiver.requests() {
        *times.entry(batch(&request)).or_default() += 1;
    }
    times
}

async fn members(site: &Site, status: &str) -> u64 {
    let sql = format!("select count(*) from campaignd.contact_history where status = '{status}'");
    number(site, &sql).await
}

/// Batch 2 meets `fault` once; all else is taken.
fn break_once(site: &Site, fault: Answer) {
    let left = std::sync::atomic::AtomicBool::new(true);
    site.receiver.rule(move |request| {
        let is_it = batch(request) == 2 && left.swap(false, std::sync::atomic::Ordering::SeqCst);
        if is_it {
            fault.clone()
        } else {
            Answer::status(200)
        }
    });
}

fn broken_answers() -> [Answer; 3] {
    [
        Answer::reset(),
        Answer::close(),
        Answer::half_a_status_line(),
    ]
}

async fn what_broke_off_after_it_was_read_is_sent_again_to_who_remembers_ids(world: World) {
    for fault in broken_answers() {
        let site = site(world, "broken_resend").await;
        break_once(&site, fault);
        let run = site.json(&["run", night::CAMPAIGN]).await;
        assert_eq!(run["status"], "finished");
        night::check(&site).await;
        assert_eq!(members(&site, "delivered").await, u64::from(PEOPLE));
        let again: Vec<_> = times(&site).into_iter().filter(|(_, n)| *n > 1).collect();
        assert_eq!(again, [(2, 2)]);
    }
}

async fn what_broke_off_after_it_was_read_is_parked_where_ids_are_not_remembered(world: World) {
    for fault in broken_answers() {
        let site = site(world, "broken_park").await;
        change_settings(&site, "    dedupe_window: 24h\n", "");
        break_once(&site, fault);
        let output = site.campaignd(&["run", night::CAMPAIGN]).await;
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        night::check(&site).await;
        assert_eq!(members(&site, "unknown").await, 7);
        assert_eq!(members(&site, "delivered").await, u64::from(PEOPLE) - 7);
        assert_eq!(site.receiver.count(), BATCHES, "each batch went out once");
    }
}

/// Takes the receiver away; whoever connects is refused.
async fn take_away(site: &mut Site) -> Vec<Recorded> {
    let address = site.receiver.address();
    let earlier = site.receiver.requests();
    site.receiver = Receiver::start().await;
    for _ in 0..1_000 {
        // Free once the old receiver's task has seen its end.
        if TcpListener::bind(address).await.is_ok() {
            return earlier;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the receiver still listens");
}

async fn a_receiver_that_is_away_for_a_while_loses_nothing_and_parks_nothing(world: World) {
    let mut site = site(world, "away").await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 2");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(50)));
    let address = site.receiver.address();
    let mut run = start_run(&site);
    site.receiver.wait_for(4).await;
    let earlier = take_away(&mut site).await;
    let refused = "select batch from batches_now where state = 'waiting' and attempts >= 1";
    for _ in 0..600 {
        if !ledger(&site, refused).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!ledger(&site, refused).await.is_empty(), "{}", site.log());
    site.receiver = Receiver::start_at(address).await;
    site.receiver.remember(earlier);
    // It may be left alone for half a minute first.
    night::wait_until_nothing_is_open(&site).await;
    assert_eq!(run.ended().await, Some(0), "{}", site.log());
    night::check(&site).await;
    assert_eq!(members(&site, "delivered").await, u64::from(PEOPLE));
    assert_eq!(members(&site, "unknown").await, 0);
}

async fn a_batch_whose_dedupe_window_passed_while_nothing_ran_is_parked_and_not_sent(world: World) {
    let site = site(world, "window").await;
    // A minute of the window is kept back, and the time-out: four seconds stay.
    change_settings(&site, "dedupe_window: 24h", "dedupe_window: 68s");
    change_settings(&site, "timeout: 2s", "timeout: 4s");
    site.receiver.rule(|request| match batch(request) {
        3 => Answer::hang(),
        _ => Answer::status(200),
    });
    let run = start_run(&site);
    site.receiver.wait_for(BATCHES).await;
    let accepted = "select batch from batches_now where state = 'accepted'";
    for _ in 0..200 {
        if ledger(&site, accepted).await.len() == BATCHES - 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    night::kill(run).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    site.receiver.rule(|_| Answer::status(200));
    night::finish(&site).await;
    assert_eq!(times(&site)[&3], 1, "it was not sent again");
    assert_eq!(members(&site, "unknown").await, 7);
    assert_eq!(members(&site, "delivered").await, u64::from(PEOPLE) - 7);
}

async fn a_batch_still_inside_its_dedupe_window_is_sent_again_after_a_kill(world: World) {
    let site = site(world, "inside").await;
    site.receiver.rule(|request| match batch(request) {
        3 => Answer::hang(),
        _ => Answer::status(200),
    });
    let run = start_run(&site);
    site.receiver.wait_for(BATCHES).await;
    night::kill(run).await;
    site.receiver.rule(|_| Answer::status(200));
    night::finish(&site).await;
    assert!(times(&site)[&3] >= 2);
    assert_eq!(members(&site, "delivered").await, u64::from(PEOPLE));
}

async fn a_daemon_told_to_stop_under_load_ends_what_is_on_the_wire_and_repeats_nothing(
    world: World,
) {
    let site = Site::of(world, "told_to_stop").await;
    furnish(&site, 300, "*/2 * * * * *").await;
    change_settings(&site, "timeout: 2s", "timeout: 5s\n    max_in_flight: 4");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(100)));
    for _ in 0..3 {
        let before = site.receiver.count();
        let mut daemon = site.serve();
        site.receiver.wait_for(before + 10).await;
        daemon.signal("TERM").await;
        assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        let open = "select * from batches_now where state in ('sending', 'ambiguous', 'parked')";
        assert_eq!(ledger(&site, open).await, []);
    }
    night::finish(&site).await;
    let requests = site.receiver.requests();
    let ids: std::collections::BTreeSet<_> = requests.iter().map(Recorded::id).collect();
    assert_eq!(ids.len(), requests.len(), "nothing went out twice");
}

async fn a_daemon_told_to_stop_while_its_receiver_hangs_ends_by_the_deadline_and_parks_nothing(
    world: World,
) {
    let site = Site::of(world, "hanging").await;
    furnish(&site, PEOPLE, "*/2 * * * * *").await;
    change_settings(&site, "timeout: 2s", "timeout: 2m");
    change_settings(&site, "log:", "shutdown_grace: 1s\nlog:");
    site.receiver.rule(|_| Answer::hang());
    let mut daemon = site.serve();
    site.receiver.wait_for(2).await;
    daemon.signal("TERM").await;
    // Long before the time-out of the requests.
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    site.receiver.rule(|_| Answer::status(200));
    night::finish(&site).await;
    let parked = "select * from batches_now where state = 'parked'";
    assert_eq!(ledger(&site, parked).await, []);
    let runs = site
        .sql("select * from campaignd.runs where planned > 0")
        .await;
    assert!(runs.iter().all(|run| text(run, "status") == "finished"));
}
