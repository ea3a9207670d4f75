//! The emergency stop, with the built program: durable, effective at once, and
//! lifted again without loss.

use crate::support;

use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, World};

crate::in_both_worlds! {
    Postgres
    a_pause_stops_every_request_at_once_outlives_the_process_and_is_lifted_again
    a_pause_without_a_daemon_holds_for_the_next_one
    a_run_in_the_foreground_is_paused_and_cancelled_from_beside_it
}

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '* * * * * *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
activation: { destination: sink, batch_size: 5 }
";

/// A daemon whose receiver takes a tenth of a second, in the middle of a run.
async fn sending(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    site.sql(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, 1000) n",
    )
    .await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(100)));
    site
}

async fn verb(site: &Site, args: &[&str]) -> String {
    let output = site.campaignd(args).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}\n{}", site.log());
    told
}

/// Requests that arrive within two seconds: of those on the wire when the
/// pause was acknowledged, and of no other.
async fn arrivals_after(site: &Site) -> usize {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let in_flight_are_in = site.receiver.count();
    tokio::time::sleep(Duration::from_secs(2)).await;
    site.receiver.count() - in_flight_are_in
}

async fn finishes(site: &Site) {
    site.wait_for_row("select 1 from campaignd.runs where status = 'finished'")
        .await;
}

async fn a_pause_stops_every_request_at_once_outlives_the_process_and_is_lifted_again(
    world: World,
) {
    for scope in [&["--all"][..], &["hello"], &["--destination", "sink"]] {
        let site = sending(world, "paused").await;
        let daemon = site.serve();
        site.receiver.wait_for(10).await;
        let told = verb(&site, &[&["pause"], scope].concat()).await;
        assert!(told.contains("paused"), "{told}");
        assert_eq!(arrivals_after(&site).await, 0, "{scope:?}");

        daemon.kill().await;
        let before = site.receiver.count();
        let mut daemon = site.serve();
        site.wait_for_log("ready; ", 2).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(site.receiver.count(), before, "{scope:?}: after a restart");

        verb(&site, &[&["unpause"], scope].concat()).await;
        finishes(&site).await;
        daemon.signal("TERM").await;
        assert_eq!(daemon.ended().await, Some(0));
        oracle::check(&site).await;
    }
}

async fn a_pause_without_a_daemon_holds_for_the_next_one(world: World) {
    let site = sending(world, "paused_before").await;
    verb(&site, &["pause", "--all"]).await;
    let mut daemon = site.serve();
    site.wait_for_log("ready; ", 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(site.receiver.count(), 0);
    verb(&site, &["unpause", "--all"]).await;
    finishes(&site).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0));
    oracle::check(&site).await;
}

async fn a_run_in_the_foreground_is_paused_and_cancelled_from_beside_it(world: World) {
    let site = sending(world, "foreground").await;
    let mut run = site.start(&["run", "hello"]);
    site.receiver.wait_for(10).await;
    verb(&site, &["pause", "--all"]).await;
    assert_eq!(arrivals_after(&site).await, 0);
    let told = verb(&site, &["unpause", "hello"]).await;
    assert_eq!(
        told.trim(),
        "campaign:hello was not paused; still paused: all"
    );
    // What needs no say of the run is done as without it.
    assert!(
        verb(&site, &["status"])
            .await
            .contains("everything is paused")
    );
    assert_eq!(site.json(&["count", "hello"]).await["audience"], 1_000);
    let before = site.receiver.count();
    verb(&site, &["unpause", "--all"]).await;
    site.receiver.wait_for(before + 10).await;
    let runs = site.json(&["runs"]).await;
    let id = runs[0]["run_id"].as_str().unwrap_or_default();
    let nobody = site.campaignd(&["cancel", "hello@20200101T000000Z"]).await;
    assert!(!nobody.status.success());
    verb(&site, &["cancel", id]).await;
    assert_eq!(run.ended().await, Some(4), "{}", site.log());
    let ended = site.json(&["runs", "show", id]).await;
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
    assert!(!site.path().join("control.sock").exists());
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_cannot_be_paused() {
    let site = Site::sqlite().await;
    let output = site.campaignd(&["pause", "--destination", "nowhere"]).await;
    assert_eq!(output.status.code(), Some(2));
    let output = site.campaignd(&["pause"]).await;
    assert_eq!(output.status.code(), Some(2), "a scope must be named");
    let output = site.campaignd(&["pause", "winbakc"]).await;
    assert_eq!(
        output.status.code(),
        Some(2),
        "a slip of the pen stops nothing"
    );
}
