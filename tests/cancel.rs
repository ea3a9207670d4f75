//! A run that a person cancels, with the built program: what is on the wire
//! ends, what was not sent is recorded as cancelled, and it stays so.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, TextRow, World};

crate::in_both_worlds! {
    Postgres
    a_run_cancelled_in_the_middle_ends_with_the_rest_cancelled_even_after_a_kill
    a_held_run_is_cancelled_without_a_daemon_and_its_members_are_accounted_for
    a_held_run_goes_on_once_its_destination_is_mended_with_and_without_a_daemon
    a_run_cancelled_while_it_is_frozen_ends_and_the_statement_with_it
}

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '0 9 1 1 *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
activation: { destination: sink, batch_size: 5 }
";

async fn site(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    site.sql(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, 1000) n",
    )
    .await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site
}

/// A daemon that sends, slowly, the run it found in the ledger.
async fn sending(world: World, name: &str) -> (Site, String) {
    let site = site(world, name).await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(100)));
    let due = CAMPAIGN.replace("0 9 1 1 *", "* * * * * *");
    site.write("campaigns/hello.yaml", &due);
    (site, "select * from campaignd.runs".to_owned())
}

/// A query that would take years, and returns nobody.
const ENDLESS: &str = "select a.profile_id, a.n from people a, people b, people c, people d, people e \
                       where a.n + b.n + c.n + d.n + e.n < 0";

/// Waits until the audience of a run is being frozen.
async fn freezing(site: &Site, is_server: bool) -> String {
    let registered = "select run_id from campaignd.open_runs where state = 'staging'";
    let row = site.wait_for_row(registered).await.remove(0);
    if is_server {
        site.wait_for_row(UNDER_WAY).await;
    }
    row["run_id"].clone().unwrap()
}

const UNDER_WAY: &str = "select pid from pg_stat_activity where state = 'active' \
                         and query like '%campaignd freeze%' and pid <> pg_backend_pid()";

async fn endless(site: &Site) {
    let campaign = CAMPAIGN.replace("select profile_id, n from people", ENDLESS);
    site.write("campaigns/hello.yaml", &campaign);
}

/// The run is cancelled, and nothing of it is left in the warehouse.
async fn nothing_is_left_of(site: &Site, run: &str) {
    let ended = format!("select * from campaignd.runs where run_id = '{run}'");
    let row = site.sql(&ended).await.remove(0);
    assert_eq!(row["status"].as_deref(), Some("cancelled"), "{row:?}");
    assert_eq!(row["error"].as_deref(), Some("the run was cancelled"));
    assert_eq!(
        [number(&row, "planned"), number(&row, "still_open")],
        [0, 0]
    );
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
    assert_eq!(site.receiver.count(), 0);
}

async fn a_run_cancelled_while_it_is_frozen_ends_and_the_statement_with_it(world: World) {
    let site = site(world, "cancelled_freezing").await;
    endless(&site).await;
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let mut follower = site.start(&["run", "hello"]);
    let run = freezing(&site, true).await;
    let output = site.campaignd(&["cancel", &run]).await;
    assert!(output.status.success(), "{output:?}");
    let ended = "select * from campaignd.runs where status = 'cancelled'";
    site.wait_for_row(ended).await;
    assert_eq!(site.sql(UNDER_WAY).await, [], "{}", site.log());
    nothing_is_left_of(&site, &run).await;
    let tables = "select relname from pg_class where relname like 'stage%'";
    assert_eq!(site.sql(tables).await, []);
    assert_eq!(follower.ended().await, Some(4));

    // Begun again, it freezes what there is then.
    site.sql("delete from people where n > 10").await;
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    if world == World::Redshift {
        site.check_gate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_run_is_cancelled_while_it_is_frozen_and_after_a_kill_without_a_daemon() {
    let site = Site::sqlite().await;
    site.sql(
        "create table people as with recursive c(n) as (select 1 union all select n + 1 from c \
         where n < 1000) select 'p-' || n as profile_id, n from c",
    )
    .await;
    endless(&site).await;
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let mut follower = site.start(&["run", "hello"]);
    let run = freezing(&site, false).await;
    let output = site.campaignd(&["cancel", &run]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(follower.ended().await, Some(4));
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    nothing_is_left_of(&site, &run).await;

    // Nobody else would ever end it: what it did is not begun again for that.
    let alone = site.start(&["run", "hello", "--fire-time", "2026-01-02T03:04:05Z"]);
    let run = freezing(&site, false).await;
    alone.kill().await;
    let output = site.campaignd(&["cancel", &run]).await;
    assert!(output.status.success(), "{output:?}");
    nothing_is_left_of(&site, &run).await;
}

fn number(row: &TextRow, column: &str) -> u64 {
    row[column]
        .as_deref()
        .unwrap_or("")
        .parse()
        .expect("a count")
}

async fn a_run_cancelled_in_the_middle_ends_with_the_rest_cancelled_even_after_a_kill(
    world: World,
) {
    for kills in [false, true] {
        let (site, runs) = sending(world, "cancelled").await;
        let mut daemon = site.serve();
        site.receiver.wait_for(10).await;
        let run = site.sql(&runs).await[0]["run_id"].clone().unwrap();
        let output = site.campaignd(&["cancel", &run]).await;
        assert!(output.status.success(), "{output:?}");
        let acknowledged = site.receiver.count();
        // No further fire time.
        site.write("campaigns/hello.yaml", CAMPAIGN);
        if kills {
            daemon.kill().await;
            daemon = site.serve();
        } else {
            daemon.signal("HUP").await;
        }
        let ended = format!("{runs} where run_id = '{run}' and status = 'cancelled'");
        let row = site.wait_for_row(&ended).await.remove(0);
        daemon.signal("TERM").await;
        assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        assert_eq!(number(&row, "still_open"), 0);
        assert!(number(&row, "cancelled") > 500, "{row:?}");
        let of_run = |n: &usize| {
            let sent = site.receiver.requests();
            sent.iter()
                .skip(*n)
                .filter(|request| request.json()["data"]["run_id"] == run.as_str())
                .count()
        };
        // What was on the wire, or comes again under the same id.
        assert!(of_run(&acknowledged) <= 8, "{}", of_run(&acknowledged));
        oracle::check(&site).await;
        let output = site.campaignd(&["cancel", &run]).await;
        assert_eq!(output.status.code(), Some(2), "it has ended: {output:?}");
    }
}

async fn a_held_run_is_cancelled_without_a_daemon_and_its_members_are_accounted_for(world: World) {
    let site = site(world, "held_cancelled").await;
    site.receiver.rule(|_| Answer::status(401));
    let output = site.campaignd(&["run", "hello"]).await;
    assert_eq!(output.status.code(), Some(4));
    let requests = site.receiver.count();
    let run = site.sql("select run_id from campaignd.runs").await[0]["run_id"].clone();
    let output = site.campaignd(&["cancel", &run.unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    let row = site.sql("select * from campaignd.runs").await.remove(0);
    assert_eq!(row["status"].as_deref(), Some("cancelled"));
    assert_eq!(number(&row, "cancelled"), 1_000);
    assert_eq!(site.receiver.count(), requests);
    oracle::check(&site).await;
    let open = site.sql("select * from campaignd.open_runs").await;
    assert_eq!(open, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_run_is_cancelled_although_its_destination_is_gone_from_the_file() {
    for with_daemon in [false, true] {
        let site = Site::sqlite().await;
        site.sql("create table people as select 'p-1' as profile_id, 1 as n")
            .await;
        site.write("campaigns/hello.yaml", CAMPAIGN);
        site.receiver.rule(|_| Answer::status(401));
        let output = site.campaignd(&["run", "hello"]).await;
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let run = site.sql("select run_id from campaignd.runs").await[0]["run_id"].clone();
        std::fs::remove_file(site.path().join("campaigns/hello.yaml")).unwrap();
        site.write(
            "campaignd.yaml",
            &site.settings().replace("  sink:", "  other:"),
        );
        let mut daemon = with_daemon.then(|| site.serve());
        if with_daemon {
            site.wait_for_log("ready;", 1).await;
        }
        let output = site.campaignd(&["cancel", &run.unwrap()]).await;
        assert!(output.status.success(), "{output:?}");
        let ended = "select * from campaignd.runs where status = 'cancelled' and cancelled = 1";
        site.wait_for_row(ended).await;
        if let Some(daemon) = &mut daemon {
            daemon.signal("TERM").await;
            assert_eq!(daemon.ended().await, Some(0));
        }
        oracle::check(&site).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_there_cannot_be_cancelled() {
    let site = Site::sqlite().await;
    let output = site.campaignd(&["cancel", "hello@20261122T140000Z"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

async fn a_held_run_goes_on_once_its_destination_is_mended_with_and_without_a_daemon(world: World) {
    for with_daemon in [false, true] {
        let site = site(world, "held_resumed").await;
        site.receiver.rule(|_| Answer::status(401));
        let output = site.campaignd(&["run", "hello"]).await;
        assert_eq!(output.status.code(), Some(4));
        let run = site.sql("select run_id from campaignd.runs").await[0]["run_id"].clone();
        site.receiver.rule(|_| Answer::status(200));
        let mut daemon = with_daemon.then(|| site.serve());
        if with_daemon {
            site.wait_for_log("ready; ", 1).await;
        }
        let output = site
            .campaignd(&["resume", run.as_deref().unwrap_or("")])
            .await;
        assert!(output.status.success(), "{output:?}\n{}", site.log());
        let ended = "select * from campaignd.runs where status = 'finished'";
        let row = site.wait_for_row(ended).await.remove(0);
        assert_eq!(number(&row, "delivered"), 1_000);
        if let Some(daemon) = &mut daemon {
            daemon.signal("TERM").await;
            assert_eq!(daemon.ended().await, Some(0));
        }
        oracle::check(&site).await;
    }
}
