//! What a held run of which something was sent means for its campaign, with
//! the built program.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::collections::BTreeMap;
use support::night::{self, CAMPAIGN, NEVER, campaign, furnish, ledger, text};
use support::site::{Daemon, Site};

const EVERY_SECOND: &str = "* * * * * *";

/// A daemon with a run that is held after ten of its thirty members, and a
/// campaign that fires each second from then on.
async fn held_and_firing(overlap: &str) -> (Site, Daemon, String) {
    let site = Site::sqlite().await;
    furnish(&site, 30, NEVER).await;
    let daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let output = site.campaignd(&["run", CAMPAIGN, "--canary", "10"]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let held = "select run_id from campaignd.runs where status = 'held'";
    let run = text(&site.sql(held).await[0], "run_id").to_owned();
    let terms = format!("timezone: UTC, overlap: {overlap}");
    let firing = campaign(EVERY_SECOND, 7).replace("timezone: UTC", &terms);
    site.write("campaigns/hello.yaml", &firing);
    daemon.signal("HUP").await;
    let skipped = format!(
        "select * from campaignd.runs where status = 'skipped' and error like '%{run} was held%'"
    );
    site.wait_for_row(&skipped).await;
    (site, daemon, run)
}

async fn fires_no_more(site: &Site, daemon: &Daemon) {
    site.write("campaigns/hello.yaml", &campaign(NEVER, 7));
    let seen = site.log().matches("the folder was read again").count();
    daemon.signal("HUP").await;
    site.wait_for_log("the folder was read again", seen + 1)
        .await;
}

/// How many members were sent how often.
fn times(site: &Site) -> BTreeMap<u32, usize> {
    let mut heard: BTreeMap<String, u32> = BTreeMap::new();
    for member in site.receiver.members() {
        let key = member["profile_id"].as_str().unwrap().to_owned();
        *heard.entry(key).or_default() += 1;
    }
    let mut times = BTreeMap::new();
    for count in heard.into_values() {
        *times.entry(count).or_default() += 1;
    }
    times
}

async fn ends(mut daemon: Daemon, site: &Site) {
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fire_times_are_skipped_while_a_canary_waits_and_nobody_hears_of_two_runs() {
    let (site, daemon, run) = held_and_firing("skip").await;
    assert_eq!(times(&site), BTreeMap::from([(1, 10)]));
    let status = site.campaignd(&["status"]).await;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let says = format!("{run} is held since ");
    assert!(
        status.contains(&says) && status.contains("begins no other run"),
        "{status}"
    );
    let manual = site.campaignd(&["run", CAMPAIGN]).await;
    assert_eq!(manual.status.code(), Some(2), "{manual:?}");
    fires_no_more(&site, &daemon).await;

    let output = site.campaignd(&["cancel", &run]).await;
    assert!(output.status.success(), "{output:?}");
    let ended = "select * from campaignd.runs where status = 'cancelled' and cancelled = 20";
    site.wait_for_row(ended).await;
    let status = site.json(&["status", CAMPAIGN]).await;
    assert_eq!(status[0]["held"], serde_json::json!([]));
    let manual = site.json(&["run", CAMPAIGN]).await;
    assert_eq!(manual["delivered"], 30);
    assert_eq!(times(&site), BTreeMap::from([(1, 20), (2, 10)]));
    ends(daemon, &site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_fire_time_waits_for_a_held_run_and_follows_it_when_it_is_resumed() {
    let (site, daemon, run) = held_and_firing("queue").await;
    fires_no_more(&site, &daemon).await;
    let queued = "select run_id from runs where state = 'queued'";
    assert_eq!(ledger(&site, queued).await.len(), 1, "one is queued");
    assert_eq!(times(&site), BTreeMap::from([(1, 10)]));
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    let both = "select count(*) from campaignd.runs where status = 'finished' having count(*) = 2";
    site.wait_for_row(both).await;
    assert_eq!(times(&site), BTreeMap::from([(2, 30)]));
    let order = "select run_id from campaignd.runs where status = 'finished' order by finished_at";
    assert_eq!(text(&site.sql(order).await[0], "run_id"), run);
    ends(daemon, &site).await;
}
