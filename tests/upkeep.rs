//! What has been kept long enough goes by itself while the daemon runs, also
//! where history is apart, and withheld members are counts where that is said.

#![cfg(test)]

use crate::support;

use std::time::Duration;
use support::night::{CAMPAIGN, NEVER, change_settings, check, furnish, ledger, number, text};
use support::receiver::Answer;
use support::site::{Site, World};

crate::in_both_worlds! {
    Postgres
    a_daemon_removes_what_is_old_when_it_starts
    a_daemon_removes_what_is_old_on_both_sides
    withheld_members_are_counts_where_that_is_said
}

/// A run that fails, and so keeps its table, and is put back by so many days.
async fn failed_days_ago(site: &Site, days: u32) -> String {
    let output = site.campaignd(&["run", CAMPAIGN]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let newest = "select run_id from campaignd.runs order by started_at desc limit 1";
    let run = text(&site.sql(newest).await[0], "run_id").to_owned();
    put_back(site, &run, days).await;
    run
}

async fn put_back(site: &Site, run: &str, days: u32) {
    let back = format!(
        "update campaignd.runs set started_at = started_at - interval '{days} days', \
         finished_at = finished_at - interval '{days} days' where run_id = '{run}'"
    );
    site.sql(&back).await;
}

async fn tables(site: &Site) -> u64 {
    let sql = "select count(*) from pg_tables where schemaname = 'campaignd' \
               and tablename like 'run\\_________________'";
    number(site, sql).await
}

async fn rows_of(site: &Site, run: &str) -> Vec<u64> {
    let mut counts = Vec::new();
    for table in ["contact_history", "deliveries", "runs"] {
        let sql = format!("select count(*) from campaignd.{table} where run_id = '{run}'");
        counts.push(number(site, &sql).await);
    }
    counts
}

async fn runs_known(site: &Site) -> Vec<String> {
    let runs = ledger(site, "select run_id from runs order by seq").await;
    let ids = runs.iter().map(|row| text(row, "run_id").to_owned());
    ids.collect()
}

async fn upkeep(site: Site) {
    furnish(&site, 14, NEVER).await;
    change_settings(&site, "max: 1s }", "max: 100ms, give_up_after: 300ms }");
    site.receiver.rule(|_| Answer::status(429));
    let ancient = failed_days_ago(&site, 10).await;
    let old = failed_days_ago(&site, 9).await;
    let young = failed_days_ago(&site, 5).await;
    assert_eq!(tables(&site).await, 3);
    let mut daemon = site.serve();
    site.wait_for_log("removed from `warehouse`", 1).await;
    assert_eq!(tables(&site).await, 1);
    for run in [&ancient, &old, &young] {
        assert_eq!(rows_of(&site, run).await, [14, 2, 1]);
    }
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    // What is young can still be sent, what is old says why it cannot.
    site.receiver.rule(|_| Answer::status(200));
    let resumed = site.campaignd(&["resume", &young]).await;
    assert!(resumed.status.success(), "{resumed:?}");
    // The state store forgets as well, save the newest that ended so.
    put_back(&site, &ancient, 392).await;
    let back = "update runs set claimed_at = claimed_at - 31 * 86400000000, \
                finished_at = finished_at - 31 * 86400000000";
    ledger(&site, back).await;
    let mut daemon = site.serve();
    let left = [old.clone(), young.clone()];
    for _ in 0..300 {
        let rows = rows_of(&site, &ancient).await;
        if runs_known(&site).await == left && rows == [0, 0, 0] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(runs_known(&site).await, left, "{}", site.log());
    assert_eq!(rows_of(&site, &ancient).await, [0, 0, 0]);
    assert_eq!(rows_of(&site, &old).await, [14, 2, 1]);
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let refused = site.campaignd(&["resume", &old]).await;
    let said = String::from_utf8([refused.stdout, refused.stderr].concat()).unwrap();
    assert!(said.contains("stage_retention"), "{said}");
    site.check_gate();
}

async fn a_daemon_removes_what_is_old_when_it_starts(world: World) {
    upkeep(Site::of(world, "upkeep").await).await;
}

async fn a_daemon_removes_what_is_old_on_both_sides(world: World) {
    upkeep(Site::apart(world, "upkeep_apart").await).await;
}

async fn withheld_members_are_counts_where_that_is_said(world: World) {
    let site = Site::of(world, "withheld_counts").await;
    let settings = site.settings() + "keep: { withheld: counts }\n";
    site.write("campaignd.yaml", &settings);
    furnish(&site, 20, NEVER).await;
    site.sql("create table blocked as select profile_id from people where n <= 5")
        .await;
    let path = site.path().join("campaigns/hello.yaml");
    let campaign = std::fs::read_to_string(path).unwrap();
    let policy = "policy: { limit: 10, suppress: blocked }\n";
    site.write("campaigns/hello.yaml", &(campaign + policy));
    let result = site.json(&["run", CAMPAIGN]).await;
    assert_eq!(result["delivered"], 10);
    let runs = site.sql("select * from campaignd.runs").await;
    assert_eq!(text(&runs[0], "suppressed"), "5");
    assert_eq!(text(&runs[0], "over_limit"), "5");
    assert_eq!(rows_of(&site, text(&runs[0], "run_id")).await, [10, 2, 1]);
    check(&site).await;
    site.check_gate();
}
