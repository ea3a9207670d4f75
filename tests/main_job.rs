//! The main job with the built program, a real PostgreSQL and a real HTTP
//! receiver: a campaign file in, rows of contact history out.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use serde_json::json;
use std::collections::BTreeSet;
use support::oracle;
use support::receiver::Answer;
use support::site::{SIGNING_SECRET, Site, World};

/// 1,200 people with a good key; besides, two rows without a key, one with a
/// key of 257 bytes and one that repeats a key.
const AUDIENCE: &str = "
    create table shoppers as
    select 'p-' || n as profile_id, 'p' || n || '@example.com' as email,
           n as visits, n * 1.5 as spent, n % 2 = 0 as is_member,
           timestamp '2026-01-02 03:04:05' as seen_at, point(n, n) as place
    from generate_series(1, 1200) n
    union all select null, 'nobody@example.com', 0, 0, false, null, null
    union all select null, 'nobody@example.com', 0, 0, false, null, null
    union all select repeat('k', 257), 'long@example.com', 0, 0, false, null, null
    union all select 'p-7', 'again@example.com', 0, 0, false, null, null";

fn campaign(cron: &str) -> String {
    format!(
        "name: shoppers-hello
connector: warehouse
schedule: {{ cron: '{cron}', timezone: UTC }}
audience:
  key: profile_id
  sql: |
    select profile_id, email, visits, spent, is_member, seen_at, place
    from shoppers
activation: {{ destination: sink, batch_size: 500 }}
contact_history: {{ attributes: {{ offer: hello }} }}
"
    )
}

async fn site(world: World, name: &str, cron: &str) -> Site {
    let site = Site::of(world, name).await;
    site.sql(AUDIENCE).await;
    site.write("campaigns/shoppers-hello.yaml", &campaign(cron));
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    site
}

crate::in_both_worlds! {
    Postgres
    a_campaign_file_fired_by_its_cron_ends_as_rows_of_contact_history
    a_manual_run_sends_each_value_as_the_interface_says
    a_batch_that_is_turned_away_comes_again_with_the_same_id_and_bytes
    an_empty_audience_finishes_with_zero
    a_failing_query_fails_the_run_with_its_message_and_place
    a_refused_batch_is_recorded_as_rejected
    a_misconfigured_destination_holds_the_run_and_loses_nothing
}

async fn a_campaign_file_fired_by_its_cron_ends_as_rows_of_contact_history(world: World) {
    let site = site(world, "fired_by_cron", "*/5 * * * * *").await;
    let mut daemon = site.serve();
    let runs = site
        .wait_for_row("select * from campaignd.runs where status = 'finished' order by fire_time")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;

    let run = &runs[0];
    let shown = |column: &str| run[column].as_deref().unwrap_or("");
    assert_eq!(shown("trigger"), "scheduled");
    assert_eq!(shown("campaign"), "shoppers-hello");
    let counts = [
        "audience",
        "no_key",
        "bad_key",
        "duplicate",
        "planned",
        "delivered",
    ];
    assert_eq!(counts.map(shown), ["1204", "2", "1", "1", "1200", "1200"]);
    let left = site
        .sql("select tablename from pg_tables where schemaname = 'campaignd' and tablename ~ '^(stage|admit|run)_'")
        .await;
    assert_eq!(left, [], "the run's tables are dropped");
    let first: Vec<_> = site
        .receiver
        .requests()
        .into_iter()
        .filter(|request| request.json()["data"]["run_id"] == shown("run_id"))
        .collect();
    assert_eq!(first.len(), 3, "1,200 members in batches of 500");
    assert!(
        first
            .iter()
            .all(|request| request.is_signed_with(SIGNING_SECRET))
    );
    let keys: BTreeSet<String> = first
        .iter()
        .flat_map(|request| request.members())
        .map(|member| member["profile_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 1_200);
}

async fn a_manual_run_sends_each_value_as_the_interface_says(world: World) {
    let site = site(world, "manual_run", "0 9 * * *").await;
    let run = site
        .json(&[
            "run",
            "shoppers-hello",
            "--fire-time",
            "2026-11-22T14:00:00Z",
        ])
        .await;
    assert_eq!(run["run_id"], "shoppers-hello@20261122T140000Z-manual-1");
    assert_eq!(run["status"], "finished");
    assert_eq!(run["delivered"], 1_200);
    oracle::check(&site).await;

    let requests = site.receiver.requests();
    let body = requests[0].json();
    assert_eq!(body["type"], "campaign.activation");
    assert_eq!(body["timestamp"], "2026-11-22T14:00:00Z");
    assert_eq!(body["data"]["batches"], 3);
    assert_eq!(body["data"]["attributes"], json!({"offer": "hello"}));
    let members: Vec<_> = requests
        .iter()
        .flat_map(|request| request.members())
        .collect();
    let seventh = members
        .iter()
        .find(|m| m["profile_id"] == "p-1000")
        .unwrap();
    assert_eq!(
        *seventh,
        json!({"profile_id": "p-1000", "email": "p1000@example.com", "visits": 1000, "spent": 1500.0,
               "is_member": true, "seen_at": "2026-01-02T03:04:05Z", "place": "(1000,1000)"})
    );
    let history = site
        .sql("select attributes, channel, contacted_at from campaignd.contact_history limit 1")
        .await;
    assert_eq!(
        history[0]["attributes"].as_deref(),
        Some(r#"{"offer":"hello"}"#)
    );
    assert_eq!(history[0]["channel"].as_deref(), Some("email"));
    assert!(history[0]["contacted_at"].is_some());
}

async fn a_batch_that_is_turned_away_comes_again_with_the_same_id_and_bytes(world: World) {
    let site = site(world, "turned_away", "0 9 * * *").await;
    site.receiver.script([
        Answer::status(429),
        Answer::status(503),
        Answer::status(200),
    ]);
    let run = site.json(&["run", "shoppers-hello"]).await;
    assert_eq!(run["delivered"], 1_200);
    assert_eq!(site.receiver.count(), 5, "three batches, two of them twice");
    oracle::check(&site).await;
}

async fn an_empty_audience_finishes_with_zero(world: World) {
    let site = site(world, "empty_audience", "0 9 * * *").await;
    site.sql("delete from shoppers").await;
    let run = site.json(&["run", "shoppers-hello"]).await;
    assert_eq!(run["status"], "finished");
    assert_eq!(run["audience"], 0);
    assert_eq!(site.receiver.count(), 0);
    oracle::check(&site).await;
}

async fn a_failing_query_fails_the_run_with_its_message_and_place(world: World) {
    let site = site(world, "failing_query", "0 9 * * *").await;
    site.sql("alter table shoppers rename column visits to visit_count")
        .await;
    let output = site
        .campaignd(&["run", "shoppers-hello", "--format", "json"])
        .await;
    assert_eq!(output.status.code(), Some(4));
    let runs = site.sql("select status, error from campaignd.runs").await;
    assert_eq!(runs[0]["status"].as_deref(), Some("failed"));
    let error = runs[0]["error"].as_deref().unwrap();
    assert!(
        error.contains("visits") && error.contains("line 1, column 27"),
        "{error}"
    );
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
    assert_eq!(site.receiver.count(), 0);
}

async fn a_refused_batch_is_recorded_as_rejected(world: World) {
    let site = site(world, "refused", "0 9 * * *").await;
    site.receiver.rule(|request| {
        let refused = request.json()["data"]["batch"] == 2;
        Answer::status(if refused { 422 } else { 200 })
    });
    let output = site.campaignd(&["run", "shoppers-hello"]).await;
    assert_eq!(output.status.code(), Some(4));
    oracle::check(&site).await;
    let runs = site
        .sql("select delivered, rejected from campaignd.runs")
        .await;
    // Each refused by itself, and then something else is wrong.
    assert_eq!(runs[0]["rejected"].as_deref(), Some("0"));
}

async fn a_misconfigured_destination_holds_the_run_and_loses_nothing(world: World) {
    let site = site(world, "misconfigured", "0 9 * * *").await;
    site.receiver.rule(|_| Answer::status(401));
    let output = site.campaignd(&["run", "shoppers-hello"]).await;
    assert_eq!(output.status.code(), Some(4));
    oracle::check(&site).await;
    let runs = site
        .sql("select status, still_open from campaignd.runs")
        .await;
    assert_eq!(runs[0]["status"].as_deref(), Some("held"));
    assert_eq!(runs[0]["still_open"].as_deref(), Some("1200"));
}
