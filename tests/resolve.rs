//! Runs that have ended and are opened again: resumed, or a parked batch of
//! theirs decided by a person; with the built program, killed in between too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, TextRow, World};

crate::in_both_worlds! {
    Postgres
    a_parked_batch_that_its_receiver_has_is_resolved_as_delivered_with_and_without_a_daemon
    a_batch_resolved_as_not_delivered_is_sent_under_another_id_when_its_run_is_resumed
    a_run_that_was_given_up_on_is_resumed_under_the_same_ids
    a_cancelled_run_is_resumed_from_what_is_not_yet_delivered_through_kills
    a_run_whose_frozen_members_are_gone_is_not_resumed_and_says_so
    a_run_that_failed_before_it_was_staged_is_begun_again
    a_parked_batch_of_a_held_run_is_resolved_and_history_hears_of_it
}

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '0 9 1 1 *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
activation: { destination: sink, batch_size: 5 }
";

/// A site whose destination promises no dedupe window, so that what may have
/// arrived is parked, and is given up on quickly.
async fn site(world: World, name: &str, members: u32) -> Site {
    let site = Site::of(world, name).await;
    let people = format!(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, {members}) n"
    );
    site.sql(&people).await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let settings = site
        .settings()
        .replace("    dedupe_window: 24h\n", "")
        .replace("max: 1s }", "max: 100ms, give_up_after: 300ms }");
    site.write("campaignd.yaml", &settings);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

async fn only_run(site: &Site) -> TextRow {
    let mut runs = site.sql("select * from campaignd.runs").await;
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

async fn run_id(site: &Site) -> String {
    only_run(site).await["run_id"].clone().unwrap()
}

async fn counts(site: &Site, columns: &[&str]) -> Vec<u64> {
    let run = only_run(site).await;
    let count = |column: &&str| run[*column].as_deref().unwrap_or("").parse().unwrap();
    columns.iter().map(count).collect()
}

async fn status(site: &Site) -> String {
    only_run(site).await["status"].clone().unwrap()
}

async fn campaignd(site: &Site, code: i32, args: &[&str]) -> String {
    let output = site.campaignd(args).await;
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// A run of 20 members whose second batch was taken and not answered.
async fn with_a_parked_batch(world: World, name: &str) -> (Site, String) {
    let site = site(world, name, 20).await;
    site.receiver
        .rule(|request| match request.json()["data"]["batch"].as_u64() {
            Some(2) => Answer::close(),
            _ => Answer::status(200),
        });
    campaignd(&site, 4, &["run", "hello"]).await;
    assert_eq!(counts(&site, &["delivered", "unknown"]).await, [15, 5]);
    site.receiver.rule(|_| Answer::status(200));
    let run = run_id(&site).await;
    (site, run)
}

async fn a_parked_batch_that_its_receiver_has_is_resolved_as_delivered_with_and_without_a_daemon(
    world: World,
) {
    for with_daemon in [false, true] {
        let (site, run) = with_a_parked_batch(world, "resolve_delivered").await;
        let requests = site.receiver.count();
        let mut daemon = with_daemon.then(|| site.serve());
        if with_daemon {
            site.wait_for_log("ready; ", 1).await;
        }
        let told = campaignd(&site, 0, &["resolve", &run, "--batch", "2", "--delivered"]).await;
        assert!(told.contains("finished"), "{told}");
        assert_eq!(status(&site).await, "finished");
        assert_eq!(counts(&site, &["delivered", "unknown"]).await, [20, 0]);
        assert_eq!(site.receiver.count(), requests, "nothing is sent");
        let tables = "select table_name from information_schema.tables where table_schema = 'campaignd' and table_name like 'run!_%' escape '!'";
        assert_eq!(site.sql(tables).await, [], "{}", site.log());
        assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
        oracle::check(&site).await;
        let again = campaignd(&site, 2, &["resolve", &run, "--batch", "2", "--delivered"]).await;
        assert!(again.contains("batch 2"), "{again}");
        if let Some(daemon) = &mut daemon {
            daemon.signal("TERM").await;
            assert_eq!(daemon.ended().await, Some(0));
        }
    }
}

async fn a_batch_resolved_as_not_delivered_is_sent_under_another_id_when_its_run_is_resumed(
    world: World,
) {
    let (site, run) = with_a_parked_batch(world, "resolve_not_delivered").await;
    let parked = site.receiver.requests()[..]
        .iter()
        .find(|request| request.json()["data"]["batch"] == 2)
        .map(|request| request.id().to_owned());
    campaignd(
        &site,
        0,
        &["resolve", &run, "--batch", "2", "--not-delivered"],
    )
    .await;
    assert_eq!(status(&site).await, "incomplete");
    let columns = ["delivered", "unknown", "failed"];
    assert_eq!(counts(&site, &columns).await, [15, 0, 5]);
    oracle::check(&site).await;
    let requests = site.receiver.count();
    campaignd(&site, 0, &["resume", &run]).await;
    assert_eq!(status(&site).await, "finished");
    assert_eq!(counts(&site, &columns).await, [20, 0, 0]);
    let sent = site.receiver.requests().split_off(requests);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].json()["data"]["batch"], 2);
    assert_ne!(Some(sent[0].id().to_owned()), parked);
    oracle::check_with_ids(&site, 2).await;
}

async fn a_run_that_was_given_up_on_is_resumed_under_the_same_ids(world: World) {
    let site = site(world, "resume_incomplete", 20).await;
    site.receiver
        .rule(|request| match request.json()["data"]["batch"].as_u64() {
            Some(1 | 3) => Answer::status(429),
            _ => Answer::status(200),
        });
    campaignd(&site, 4, &["run", "hello"]).await;
    assert_eq!(status(&site).await, "incomplete");
    assert_eq!(counts(&site, &["delivered", "failed"]).await, [10, 10]);
    let run = run_id(&site).await;
    // Still no: it is given up on once more, not at the first no.
    let requests = site.receiver.count();
    campaignd(&site, 4, &["resume", &run]).await;
    assert!(site.receiver.count() >= requests + 4);
    assert_eq!(counts(&site, &["delivered", "failed"]).await, [10, 10]);
    oracle::check(&site).await;
    site.receiver.rule(|_| Answer::status(200));
    campaignd(&site, 0, &["resume", &run]).await;
    assert_eq!(status(&site).await, "finished");
    assert_eq!(counts(&site, &["delivered", "failed"]).await, [20, 0]);
    oracle::check(&site).await;
    let refused = campaignd(&site, 2, &["resume", &run]).await;
    assert!(refused.contains("finished"), "{refused}");
}

async fn a_cancelled_run_is_resumed_from_what_is_not_yet_delivered_through_kills(world: World) {
    let site = site(world, "resume_cancelled", 400).await;
    let slow = Duration::from_millis(60);
    site.receiver.rule(move |_| Answer::status(200).after(slow));
    let daemon = site.serve();
    site.wait_for_log("ready; ", 1).await;
    let due = CAMPAIGN.replace("0 9 1 1 *", "* * * * * *");
    site.write("campaigns/hello.yaml", &due);
    daemon.signal("HUP").await;
    site.receiver.wait_for(10).await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    daemon.signal("HUP").await;
    let run = site.receiver.requests()[0].json()["data"]["run_id"].clone();
    let run = run.as_str().unwrap().to_owned();
    campaignd(&site, 0, &["cancel", &run]).await;
    let row = |status: &str| {
        format!("select * from campaignd.runs where run_id = '{run}' and status = '{status}'")
    };
    site.wait_for_row(&row("cancelled")).await;
    oracle::check(&site).await;
    campaignd(&site, 0, &["resume", &run]).await;
    // Killed as soon as it is open again, and twice in the middle.
    site.wait_for_row(&row("open")).await;
    let mut daemon = Some(daemon);
    for _ in 0..3 {
        daemon.take().expect("there is one").kill().await;
        oracle::check(&site).await;
        daemon = Some(site.serve());
        site.receiver.wait_for(site.receiver.count() + 5).await;
    }
    let ended = site
        .wait_for_row(
            &row("incomplete").replace("'incomplete'", "'finished' or status = 'incomplete'"),
        )
        .await;
    let mut daemon = daemon.expect("there is one");
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let count = |column: &str| {
        ended[0][column]
            .as_deref()
            .unwrap_or("")
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(count("cancelled") + count("still_open"), 0, "{ended:?}");
    // What was on the wire at a kill is parked: nothing is promised here.
    assert_eq!(count("delivered") + count("unknown"), 400, "{ended:?}");
    oracle::check(&site).await;
}

async fn a_run_whose_frozen_members_are_gone_is_not_resumed_and_says_so(world: World) {
    let (site, run) = with_a_parked_batch(world, "resume_gone").await;
    campaignd(
        &site,
        0,
        &["resolve", &run, "--batch", "2", "--not-delivered"],
    )
    .await;
    let tables = "select table_name from information_schema.tables \
         where table_schema = 'campaignd' and table_name like 'run!_%' escape '!'";
    let table = site.sql(tables).await[0]["table_name"].clone().unwrap();
    site.sql(&format!("drop table campaignd.{table}")).await;
    let requests = site.receiver.count();
    let told = campaignd(&site, 4, &["resume", &run]).await;
    assert!(told.contains("start a new run"), "{told}");
    assert_eq!(site.receiver.count(), requests);
    assert_eq!(status(&site).await, "incomplete");
    oracle::check(&site).await;
}

async fn a_run_that_failed_before_it_was_staged_is_begun_again(world: World) {
    let site = site(world, "begin_again", 20).await;
    site.sql("alter table people rename to others").await;
    campaignd(&site, 4, &["run", "hello"]).await;
    assert_eq!(status(&site).await, "failed");
    site.sql("alter table others rename to people").await;
    let run = run_id(&site).await;
    campaignd(&site, 0, &["resume", &run]).await;
    assert_eq!(status(&site).await, "finished");
    assert_eq!(counts(&site, &["delivered"]).await, [20]);
    oracle::check(&site).await;
}

async fn a_parked_batch_of_a_held_run_is_resolved_and_history_hears_of_it(world: World) {
    let site = site(world, "resolve_held", 20).await;
    site.receiver
        .rule(|request| match request.json()["data"]["batch"].as_u64() {
            Some(1) => Answer::close(),
            Some(4) => Answer::status(401).after(Duration::from_millis(300)),
            _ => Answer::status(200),
        });
    campaignd(&site, 4, &["run", "hello"]).await;
    assert_eq!(status(&site).await, "held");
    assert_eq!(counts(&site, &["unknown", "still_open"]).await, [5, 5]);
    let run = run_id(&site).await;
    campaignd(&site, 0, &["resolve", &run, "--batch", "1", "--delivered"]).await;
    assert_eq!(status(&site).await, "held");
    assert_eq!(counts(&site, &["delivered", "unknown"]).await, [15, 0]);
    site.receiver.rule(|_| Answer::status(200));
    campaignd(&site, 0, &["resume", &run]).await;
    assert_eq!(status(&site).await, "finished");
    oracle::check(&site).await;
}
