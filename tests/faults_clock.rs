//! The clock steps back while nothing is running, and with it the dedupe
//! window would look open again.

use crate::support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::night::{self, NEVER, change_settings, furnish, ledger, number, start_run, text};
use support::receiver::Answer;
use support::site::{Site, World};

crate::in_both_worlds! {
    Postgres
    a_clock_that_was_set_back_while_nothing_ran_does_not_open_the_window_again
    with_the_clock_as_it_was_the_same_batches_are_sent_again_under_their_ids
}

/// Batches of seven: four are accepted, one or two are on their way at the
/// kill, and the ledger may have others as sent that wait for their turn on the
/// wire.
const PEOPLE: u32 = 70;
const ACCEPTED: usize = 4;

/// A site whose run was killed with a request on its way, or two.
async fn killed(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    furnish(&site, PEOPLE, NEVER).await;
    change_settings(&site, "timeout: 2s", "timeout: 60s\n    max_in_flight: 2");
    let seen = AtomicUsize::new(0);
    site.receiver.rule(
        move |_| match seen.fetch_add(1, Ordering::SeqCst) < ACCEPTED {
            true => Answer::status(200),
            false => Answer::hang(),
        },
    );
    let run = start_run(&site);
    site.receiver.wait_for(ACCEPTED + 1).await;
    // The wire is free again before an answer is written down.
    let all_accepted = async {
        while accepted(&site).await < ACCEPTED {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), all_accepted);
    assert!(in_time.await.is_ok(), "{}", site.log());
    night::kill(run).await;
    assert!(sending(&site).await >= site.receiver.count() - ACCEPTED);
    site.receiver.rule(|_| Answer::status(200));
    site
}

/// Batches whose answer the ledger has.
async fn accepted(site: &Site) -> usize {
    let accepted = "select batch from batches_now where state = 'accepted'";
    ledger(site, accepted).await.len()
}

/// Batches that may have arrived.
async fn sending(site: &Site) -> usize {
    let sending = "select batch from batches_now where state = 'sending'";
    ledger(site, sending).await.len()
}

/// As if the clock had gone on for a day and an hour, past the window of 24 h,
/// before the process died, and had been set back since: what the ledger wrote
/// last lies in the future. First attempts stay where they were.
async fn clock_was_set_back(site: &Site) {
    let ahead: i64 = 25 * 3_600 * 1_000_000;
    let sql = format!(
        "update journal set accepted = (select json_group_array(\
         json_set(value, '$[2]', (value ->> 2) + {ahead})) from json_each(accepted))"
    );
    ledger(site, &sql).await;
    let sql = "update batches set ended_at = ended_at + ";
    let sql = format!("{sql}{ahead} where state = 'accepted'");
    ledger(site, &sql).await;
}

fn ids(site: &Site) -> Vec<String> {
    let requests = site.receiver.requests();
    requests.iter().map(|r| r.id().to_owned()).collect()
}

async fn a_clock_that_was_set_back_while_nothing_ran_does_not_open_the_window_again(world: World) {
    let site = killed(world, "set_back").await;
    clock_was_set_back(&site).await;
    let ambiguous = sending(&site).await;
    let before = ids(&site);
    night::finish(&site).await;
    let again = ids(&site);
    let again = again[before.len()..]
        .iter()
        .filter(|id| before.contains(id));
    assert_eq!(again.count(), 0, "what may have arrived is not sent again");
    let parked = ledger(
        &site,
        "select error from batches_now where state = 'parked'",
    )
    .await;
    assert_eq!(parked.len(), ambiguous, "{}", site.log());
    assert!(text(&parked[0], "error").contains("may not be sent again"));
    let unknown = "select sum(unknown) from campaignd.runs where status = 'incomplete'";
    assert_eq!(number(&site, unknown).await, 7 * ambiguous as u64);
}

async fn with_the_clock_as_it_was_the_same_batches_are_sent_again_under_their_ids(world: World) {
    let site = killed(world, "not_set_back").await;
    let before = ids(&site);
    night::finish(&site).await;
    let again = ids(&site);
    let again = again[before.len()..]
        .iter()
        .filter(|id| before.contains(id));
    assert_eq!(again.count(), before.len() - ACCEPTED);
    let delivered = "select sum(delivered) from campaignd.runs where status = 'finished'";
    assert_eq!(number(&site, delivered).await, u64::from(PEOPLE));
}
