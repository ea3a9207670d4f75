//! Faults 15 and 16a with the built program: refused and oversized batches are
//! cut, only who is to blame is refused, and a destination that refuses
//! everything is not asked for ever.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use std::collections::BTreeSet;
use std::time::Duration;
use support::oracle;
use support::receiver::{Answer, Recorded};
use support::site::{Site, TextRow, World};

crate::in_both_worlds! {
    Postgres
    a_destination_that_refuses_everything_is_paused_within_its_budget_and_goes_on_when_mended
    many_refused_side_by_side_cost_no_more_than_one
    a_first_batch_refused_to_the_last_member_does_not_slow_the_others
    one_poisoned_member_costs_no_other_member_anything_even_through_a_kill
    a_body_that_is_too_large_for_the_receiver_is_cut_until_it_is_not
    a_body_over_max_body_is_cut_before_it_is_sent_the_same_way_each_time
    a_member_that_is_larger_than_max_body_travels_alone
    a_batch_that_may_have_arrived_is_never_cut
}

const ANSWERED_AFTER: Duration = Duration::from_millis(20);

async fn site(world: World, name: &str, members: u32, batch_size: u32) -> Site {
    let site = Site::of(world, name).await;
    let people = format!(
        "create table people as select 'p-' || n as profile_id, n, repeat('x', 40) as note \
         from generate_series(1, {members}) n"
    );
    site.sql(&people).await;
    let campaign = format!(
        "name: hello
connector: warehouse
schedule: {{ cron: '0 9 1 1 *', timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id, n, note from people' }}
activation: {{ destination: sink, batch_size: {batch_size} }}
"
    );
    site.write("campaigns/hello.yaml", &campaign);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

async fn run(site: &Site, code: i32) -> TextRow {
    let output = site.campaignd(&["run", "hello"]).await;
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    oracle::check(site).await;
    site.sql("select * from campaignd.runs").await.remove(0)
}

fn count(row: &TextRow, column: &str) -> u64 {
    row[column].as_deref().unwrap_or("").parse().unwrap()
}

fn keys(request: &Recorded) -> Vec<String> {
    let members = request.members();
    let keys = members.iter().map(|member| &member["profile_id"]);
    keys.map(|key| key.as_str().unwrap().to_owned()).collect()
}

fn is_poisoned(request: &Recorded) -> bool {
    keys(request).iter().any(|key| key == "p-123")
}

async fn one_poisoned_member_costs_no_other_member_anything_even_through_a_kill(world: World) {
    for kills in [0, 3] {
        let site = site(world, "poison", 1_000, 200).await;
        let slow = std::time::Duration::from_millis(40);
        site.receiver.rule(move |request| {
            Answer::status(if is_poisoned(request) { 422 } else { 200 }).after(slow)
        });
        for _ in 0..kills {
            let runner = site.start(&["run", "hello"]);
            site.receiver.wait_for(site.receiver.count() + 1).await;
            runner.kill().await;
        }
        if kills > 0 {
            let mut daemon = site.serve();
            site.wait_for_row("select * from campaignd.runs where status <> 'open'")
                .await;
            daemon.signal("TERM").await;
            assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
            oracle::check(&site).await;
        } else {
            // Not everybody is delivered.
            run(&site, 4).await;
        }
        let refused = "select profile_id from campaignd.contact_history where status = 'rejected'";
        for row in site.sql(refused).await {
            assert_eq!(row["profile_id"].as_deref(), Some("p-123"));
        }
        // Only the poisoned batch can have been on the wire at a kill and
        // refused later: then a person decides, and it is never cut.
        for run in site.sql("select * from campaignd.runs").await {
            let (delivered, unknown) = (count(&run, "delivered"), count(&run, "unknown"));
            match unknown {
                0 => assert_eq!((delivered, count(&run, "rejected")), (999, 1)),
                _ => assert!(kills > 0 && unknown <= 200 && delivered + unknown >= 999),
            }
        }
    }
}

async fn a_body_that_is_too_large_for_the_receiver_is_cut_until_it_is_not(world: World) {
    let site = site(world, "too_large", 300, 100).await;
    site.receiver
        .rule(|request| Answer::status(if request.body.len() > 3_000 { 413 } else { 200 }));
    let row = run(&site, 0).await;
    assert_eq!(
        (count(&row, "delivered"), count(&row, "rejected")),
        (300, 0)
    );
    let parts = "select part from campaignd.deliveries where part = ''";
    assert_eq!(site.sql(parts).await, []);
}

async fn a_body_over_max_body_is_cut_before_it_is_sent_the_same_way_each_time(world: World) {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let site = site(world, "max_body", 300, 100).await;
        let settings = site
            .settings()
            .replace("    timeout: 2s", "    max_body: 2KiB\n    timeout: 2s");
        site.write("campaignd.yaml", &settings);
        let row = run(&site, 0).await;
        assert_eq!(count(&row, "delivered"), 300);
        let requests = site.receiver.requests();
        assert!(requests.iter().all(|request| request.body.len() <= 2_048));
        let paths: BTreeSet<String> = requests
            .iter()
            .map(|request| {
                format!(
                    "{}.{}",
                    request.json()["data"]["batch"],
                    request.json()["data"]["part"]
                )
            })
            .collect();
        ids.push(paths);
    }
    assert_eq!(ids[0], ids[1]);
}

async fn a_member_that_is_larger_than_max_body_travels_alone(world: World) {
    let site = site(world, "alone", 10, 10).await;
    site.sql("update people set note = repeat('y', 3000) where n = 4")
        .await;
    let settings = site
        .settings()
        .replace("    timeout: 2s", "    max_body: 1KiB\n    timeout: 2s");
    site.write("campaignd.yaml", &settings);
    site.receiver
        .rule(|request| Answer::status(if request.body.len() > 1_024 { 413 } else { 200 }));
    let row = run(&site, 4).await;
    assert_eq!((count(&row, "delivered"), count(&row, "rejected")), (9, 1));
}

async fn a_destination_that_refuses_everything_is_paused_within_its_budget_and_goes_on_when_mended(
    world: World,
) {
    let site = site(world, "refuses_all", 3_000, 512).await;
    let settings = site
        .settings()
        .replace("    timeout: 2s", "    max_in_flight: 1\n    timeout: 2s");
    site.write("campaignd.yaml", &settings);
    site.receiver.rule(|_| Answer::status(400));
    let row = run(&site, 4).await;
    assert_eq!(row["status"].as_deref(), Some("held"));
    assert!(
        row["error"]
            .as_deref()
            .unwrap()
            .contains("refuses whatever"),
        "{row:?}"
    );
    // The six batches, and the budget of the first refused.
    let requests = site.receiver.requests();
    let first = requests[0].json()["data"]["batch"].clone();
    let extra = requests
        .iter()
        .filter(|request| request.json()["data"]["batch"] == first)
        .count();
    assert!(extra <= 1 + 2 * 9 + 8, "{extra}");
    assert!(count(&row, "rejected") <= 20, "{row:?}");
    // Another run of that destination waits.
    site.receiver.rule(|_| Answer::status(200));
    let id = row["run_id"].clone().unwrap();
    let output = site.campaignd(&["resume", &id]).await;
    let rejected = count(&row, "rejected");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let row = site.sql("select * from campaignd.runs").await.remove(0);
    assert_eq!(count(&row, "delivered"), 3_000 - rejected);
    oracle::check(&site).await;
}

/// The batches that were under way when the first was refused wait until it
/// has been looked through, whole or cut.
async fn many_refused_side_by_side_cost_no_more_than_one(world: World) {
    for size in [100, 4] {
        let site = site(world, &format!("side_by_side_{size}"), 3_000, size).await;
        site.receiver.rule(|_| Answer::status(422));
        let row = run(&site, 4).await;
        let error = row["error"].as_deref().unwrap();
        assert!(error.contains("refuses whatever"), "{row:?}");
        let requests = site.receiver.requests();
        let parts = requests
            .iter()
            .filter(|request| request.json()["data"]["part"] != "")
            .count();
        assert!(parts <= 2 * size.ilog2() as usize + 8, "{parts}");
        // Twice as many deliveries as may be in flight: eight.
        assert!(requests.len() - parts <= 17, "{}", requests.len());
    }
}

/// Nothing of it was accepted, and the others still go out side by side.
async fn a_first_batch_refused_to_the_last_member_does_not_slow_the_others(world: World) {
    let site = site(world, "first_refused", 400, 2).await;
    site.receiver.rule(|request| {
        let is_first = request.json()["data"]["batch"] == 1;
        let status = if is_first { 422 } else { 200 };
        Answer::status(status).after(ANSWERED_AFTER)
    });
    let row = run(&site, 4).await;
    assert_eq!(
        (count(&row, "delivered"), count(&row, "rejected")),
        (398, 2)
    );
    // One after the other they could not come quicker than they are answered.
    let mut came: Vec<_> = site.receiver.requests().iter().map(|r| r.at).collect();
    came.sort_unstable();
    let gaps = came[100..]
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]));
    let side_by_side = gaps.filter(|gap| gap.as_ref().is_ok_and(|gap| *gap < ANSWERED_AFTER));
    assert!(side_by_side.count() > 10);
}

async fn a_batch_that_may_have_arrived_is_never_cut(world: World) {
    let site = site(world, "ambiguous", 40, 20).await;
    // First nothing is heard of either, then both are refused.
    site.receiver.rule(|_| Answer::status(422));
    site.receiver.script([Answer::close(), Answer::close()]);
    let row = run(&site, 4).await;
    assert_eq!(
        (count(&row, "unknown"), count(&row, "rejected")),
        (40, 0),
        "{row:?}"
    );
    let parts: BTreeSet<String> = site
        .receiver
        .requests()
        .iter()
        .map(|request| request.json()["data"]["part"].to_string())
        .collect();
    assert_eq!(parts.len(), 1, "{parts:?}");
}
