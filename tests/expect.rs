//! An audience that is not what its campaign expects holds the run, with the
//! built program on SQLite and on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use support::oracle;
use support::site::Site;

async fn people(site: &Site, count: u32) {
    site.sql(&format!(
        "insert into shoppers select 'p-' || (n + 1000 * {count}) from (with recursive c(n) as \
         (select 1 union all select n + 1 from c where n < {count}) select n from c) as numbers"
    ))
    .await;
}

fn campaign(cron: &str, expect: &str) -> String {
    format!(
        "name: expected
connector: warehouse
schedule: {{ cron: '{cron}', timezone: UTC }}
audience:
  key: profile_id
  sql: select profile_id from shoppers
  expect: {expect}
activation: {{ destination: sink, batch_size: 10 }}
"
    )
}

async fn prepared(site: &Site, cron: &str, expect: &str) {
    site.sql("create table shoppers (profile_id text)").await;
    site.write("campaigns/expected.yaml", &campaign(cron, expect));
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
}

/// The run that is held, and nothing of it but its row.
async fn held(site: &Site) -> String {
    let rows = site
        .wait_for_row("select * from campaignd.runs where status = 'held'")
        .await;
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
    assert_eq!(
        site.sql("select * from campaignd.contact_history where status <> 'delivered'")
            .await,
        []
    );
    rows[0]["run_id"].clone().unwrap()
}

async fn too_many(site: &Site) {
    prepared(site, "0 0 1 1 *", "{ max: 20 }").await;
    people(site, 25).await;
    let plan = site.json(&["plan", "expected"]).await;
    let output = site.campaignd(&["run", "expected"]).await;
    assert_eq!(output.status.code(), Some(4));
    let run = held(site).await;
    assert_eq!(site.receiver.count(), 0);
    let row = &site.sql("select * from campaignd.runs").await[0];
    let shown = |column: &str| row[column].as_deref().unwrap_or("");
    assert_eq!(["audience", "planned", "still_open"].map(shown), ["25"; 3]);
    let says = "the audience is 25; expected are at most 20";
    assert!(shown("error").starts_with(says));
    assert_eq!(plan["would_be_held"], says);

    // Staged anew: what changed meanwhile counts.
    people(site, 30).await;
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(site.receiver.members().len(), 55);
    oracle::check(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_run_outside_is_held_and_a_resume_stages_it_anew() {
    too_many(&Site::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_run_outside_is_held_and_a_resume_stages_it_anew() {
    too_many(&Site::new("expect_max").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_held_and_cancelled_ends_without_a_request() {
    let site = Site::sqlite().await;
    prepared(&site, "0 0 1 1 *", "{ min: 20 }").await;
    people(&site, 5).await;
    site.campaignd(&["run", "expected"]).await;
    let run = held(&site).await;
    let output = site.campaignd(&["cancel", &run]).await;
    assert!(output.status.success(), "{output:?}");
    let rows = site.sql("select status from campaignd.runs").await;
    assert_eq!(rows[0]["status"].as_deref(), Some("cancelled"));
    assert_eq!(site.receiver.count(), 0);
    let owed = "select * from campaignd.runs where planned + still_open > 0";
    assert_eq!(site.sql(owed).await, [], "nothing of it was ever planned");
    // Nothing of it was sent, so it is begun again from the start.
    people(&site, 20).await;
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(site.receiver.members().len(), 25);
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_run_that_has_grown_too_much_is_held_until_it_is_resumed() {
    let site = Site::sqlite().await;
    prepared(&site, "*/3 * * * * *", "{ max_change: 50% }").await;
    people(&site, 10).await;
    let mut daemon = site.serve();
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    people(&site, 60).await;
    let run = held(&site).await;
    let output = site.campaignd(&["resume", &run]).await;
    // Another run of the campaign may be open at this moment.
    let mut resumed = output.status.success();
    for _ in 0..100 {
        if resumed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        resumed = site.campaignd(&["resume", &run]).await.status.success();
    }
    assert!(resumed);
    site.wait_for_row(&format!(
        "select * from campaignd.runs where run_id = '{run}' and status = 'finished' and audience = 70"
    ))
    .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
}
