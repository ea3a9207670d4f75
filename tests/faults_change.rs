//! Everything around a run changes in its middle, and then the process dies:
//! what is sent again is what was sent.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::night::{self, NEVER, change_settings, furnish, number, start_run};
use support::receiver::Answer;
use support::site::{Site, World};

crate::in_both_worlds! {
    Postgres
    a_run_whose_world_changed_in_the_middle_sends_the_same_bytes_under_the_same_ids
}

const PEOPLE: u32 = 100;
/// Of seven members each.
const BATCHES: usize = 15;

/// Everything a body could be made of is another than before.
async fn change_everything(site: &Site) {
    site.sql("update people set n = n + 1000").await;
    site.sql("delete from people where n % 3 = 0").await;
    site.sql("insert into people values ('p-new', 1)").await;
    let edited = night::campaign(NEVER, 3).replace(
        "select profile_id, n from people",
        "select n, profile_id from people where n > 5",
    ) + "contact_history: { attributes: { offer: another } }\n";
    site.write("campaigns/hello.yaml", &edited);
    change_settings(site, "channel: email", "channel: sms\n    max_body: 1KiB");
}

/// Kills a run while some of its batches are taken, some may have arrived and
/// some have not been sent; changes everything; finishes it.
async fn changed_in_the_middle(site: &Site) -> usize {
    site.receiver.rule(|request| match request.number {
        n if n > 8 => Answer::hang(),
        n if n % 2 == 0 => Answer::status(503),
        _ => Answer::status(200).after(Duration::from_millis(20)),
    });
    let run = start_run(site);
    site.receiver.wait_for(9).await;
    night::kill(run).await;
    let before = site.receiver.count();
    change_everything(site).await;
    site.receiver.rule(|_| Answer::status(200));
    let ready = site.log().matches("ready;").count();
    let mut daemon = site.serve();
    site.wait_for_log("ready;", ready + 1).await;
    night::wait_until_nothing_is_open(site).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(site).await;
    before
}

async fn a_run_whose_world_changed_in_the_middle_sends_the_same_bytes_under_the_same_ids(
    world: World,
) {
    let site = Site::of(world, "changed").await;
    furnish(&site, PEOPLE, NEVER).await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 4");
    let before = changed_in_the_middle(&site).await;

    let requests = site.receiver.requests();
    let mut bodies: BTreeMap<&str, BTreeSet<&[u8]>> = BTreeMap::new();
    for request in &requests {
        bodies
            .entry(request.id())
            .or_default()
            .insert(&request.body);
    }
    assert_eq!(bodies.len(), BATCHES);
    assert!(bodies.values().all(|bodies| bodies.len() == 1));
    let first: BTreeSet<_> = requests[..before]
        .iter()
        .map(|request| request.id())
        .collect();
    let again = requests[before..].iter().filter(|r| first.contains(r.id()));
    assert!(again.count() >= 1, "something was sent again");
    let mut keys = BTreeSet::new();
    for member in site.receiver.members() {
        let n = member["n"].as_u64().unwrap();
        assert_eq!(member["profile_id"], format!("p-{n}"), "as it was frozen");
        keys.insert(n);
    }
    assert_eq!(keys.len(), PEOPLE as usize);
    let delivered = "select sum(delivered) from campaignd.runs";
    assert_eq!(number(&site, delivered).await, u64::from(PEOPLE));
    let channels = site
        .sql("select distinct channel from campaignd.contact_history")
        .await;
    assert_eq!(channels.len(), 1);
    assert_eq!(night::text(&channels[0], "channel"), "email");
}
