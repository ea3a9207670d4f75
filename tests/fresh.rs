//! Waiting for recent data, with the built program on SQLite and on a real
//! PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use support::oracle;
use support::site::Site;

async fn prepared(site: &Site, cron: &str, fresh_when: &str) {
    site.sql("create table shoppers (profile_id text)").await;
    site.sql("insert into shoppers values ('p-1'), ('p-2')")
        .await;
    site.sql("create table loads (at timestamp)").await;
    site.sql("insert into loads values ('2026-01-02 03:04:05')")
        .await;
    site.write(
        "campaigns/fresh.yaml",
        &format!(
            "name: fresh
connector: warehouse
schedule: {{ cron: '{cron}', timezone: UTC }}
fresh_when: {fresh_when}
audience:
  key: profile_id
  sql: select profile_id from shoppers
activation: {{ destination: sink }}
"
        ),
    );
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
}

async fn fails_as_stale_then_runs(site: &Site) {
    prepared(
        site,
        "0 0 1 1 *",
        "{ sql: select max(at) from loads, max_age: 6h }",
    )
    .await;
    let output = site.campaignd(&["run", "fresh"]).await;
    assert_eq!(output.status.code(), Some(4));
    let rows = site.sql("select * from campaignd.runs").await;
    assert_eq!(rows[0]["status"].as_deref(), Some("failed"));
    let error = rows[0]["error"].clone().unwrap();
    let says = "the data is stale: the newest is from 2026-01-02T03:04:05Z";
    assert!(error.starts_with(says), "{error}");
    assert_eq!(site.receiver.count(), 0);
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);

    site.sql("insert into loads values (current_timestamp)")
        .await;
    let run = rows[0]["run_id"].clone().unwrap();
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(site.receiver.members().len(), 2);
    oracle::check(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_stale_data_fails_the_run_and_fresh_data_lets_it_go() {
    fails_as_stale_then_runs(&Site::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_stale_data_fails_the_run_and_fresh_data_lets_it_go() {
    fails_as_stale_then_runs(&Site::new("fresh_stale").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_waits_for_data_that_comes_in_time() {
    let site = Site::sqlite().await;
    prepared(
        &site,
        "*/2 * * * * *",
        "{ sql: select max(at) from loads, max_age: 1h, wait: 4s }",
    )
    .await;
    let mut daemon = site.serve();
    site.wait_for_log("waits for fresh data", 1).await;
    let waiting = site.json(&["runs"]).await;
    assert_eq!(
        waiting.as_array().unwrap().last().unwrap()["state"],
        "waiting_fresh"
    );
    site.sql("insert into loads values (current_timestamp)")
        .await;
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_data_is_cancelled_at_once() {
    let site = Site::sqlite().await;
    prepared(
        &site,
        "*/2 * * * * *",
        "{ sql: select max(at) from loads, max_age: 1h, wait: 1h }",
    )
    .await;
    let mut daemon = site.serve();
    site.wait_for_log("waits for fresh data", 1).await;
    let waiting = site.json(&["runs"]).await;
    let run = waiting.as_array().unwrap().last().unwrap()["run_id"].clone();
    let output = site.campaignd(&["cancel", run.as_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    site.wait_for_row(&format!(
        "select * from campaignd.runs where run_id = {} and status = 'cancelled'",
        run.to_string().replace('"', "'")
    ))
    .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert_eq!(site.receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_timestamp_fails_the_run_and_says_so() {
    let site = Site::sqlite().await;
    prepared(&site, "0 0 1 1 *", "{ sql: select 7 as at, max_age: 1h }").await;
    let output = site.campaignd(&["run", "fresh"]).await;
    assert_eq!(output.status.code(), Some(4));
    let rows = site.sql("select error from campaignd.runs").await;
    let error = rows[0]["error"].clone().unwrap();
    assert!(
        error.starts_with("fresh_when.sql: it must return a timestamp"),
        "{error}"
    );
}

async fn templates_are_those_of_the_fire_time(site: &Site) {
    prepared(
        site,
        "0 0 1 1 *",
        "
  sql: >-
    select current_timestamp as at from loads where at < '{{ fire_time }}' and at > '{{ days_ago(1) }}'
    and at > '{{ hours_ago(9) }}' and '{{ date }}' = '{{ var('day') }}'
  max_age: 1h
vars: { day: \"2026-01-02\" }",
    )
    .await;
    let ask = async |fire_time: &str| {
        let asked = ["run", "fresh", "--fire-time", fire_time];
        site.campaignd(&asked).await.status.code()
    };
    assert_eq!(ask("2026-01-02T03:04:05Z").await, Some(4), "not before");
    assert_eq!(
        ask("2026-01-02T13:04:05Z").await,
        Some(4),
        "too long before"
    );
    assert_eq!(site.receiver.count(), 0);
    assert_eq!(ask("2026-01-02T12:00:00Z").await, Some(0));
    assert_eq!(site.receiver.members().len(), 2);
    oracle::check(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_how_recent_data_is_may_be_asked_relative_to_the_fire_time() {
    templates_are_those_of_the_fire_time(&Site::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_how_recent_data_is_may_be_asked_relative_to_the_fire_time() {
    templates_are_those_of_the_fire_time(&Site::new("fresh_templates").await).await;
}
