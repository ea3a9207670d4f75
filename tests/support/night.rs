//! A bad night: one campaign, something that goes wrong in the middle, and
//! the morning after, when everything is counted.

use super::oracle;
use super::site::{Daemon, Site, TextRow, sqlite_rows};
use std::time::Duration;

/// The campaign's name.
pub const CAMPAIGN: &str = "hello";

/// The campaign, by its cron and how many members go into a batch.
pub fn campaign(cron: &str, batch_size: u32) -> String {
    format!(
        "name: {CAMPAIGN}
connector: warehouse
schedule: {{ cron: '{cron}', timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id, n from people' }}
activation: {{ destination: sink, batch_size: {batch_size} }}
"
    )
}

/// A cron that does not fire while a test lasts.
pub const NEVER: &str = "0 0 0 29 2 *";

/// So many people to contact, the daemon's tables, and the campaign, seven
/// members a batch.
pub async fn furnish(site: &Site, people: u32, cron: &str) {
    // Runs on PostgreSQL and on SQLite.
    site.sql(&format!(
        "create table people as
         with recursive n(n) as (select 1 union all select n + 1 from n where n < {people})
         select 'p-' || n as profile_id, n from n"
    ))
    .await;
    site.write("campaigns/hello.yaml", &campaign(cron, 7));
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
}

/// Changes the operator's file.
pub fn change_settings(site: &Site, from: &str, to: &str) {
    let path = site.path().join("campaignd.yaml");
    let settings = std::fs::read_to_string(path).unwrap();
    assert!(settings.contains(from), "{from}");
    site.write("campaignd.yaml", &settings.replace(from, to));
}

/// Rows of the state store.
pub async fn ledger(site: &Site, sql: &str) -> Vec<TextRow> {
    sqlite_rows(&site.path().join("state.db"), sql).await
}

/// A cell, empty where it is null.
pub fn text<'a>(row: &'a TextRow, column: &str) -> &'a str {
    row[column].as_deref().unwrap_or("")
}

/// The one number a statement in the warehouse returns.
pub async fn number(site: &Site, sql: &str) -> u64 {
    let rows = site.sql(sql).await;
    let cell = rows[0].values().next().unwrap().as_deref();
    cell.unwrap_or("0").parse().unwrap()
}

/// Starts a manual run in the foreground.
pub fn start_run(site: &Site) -> Daemon {
    site.start(&["run", CAMPAIGN])
}

/// Kills `daemon` in the middle of whatever it does.
pub async fn kill(mut daemon: Daemon) {
    daemon.signal("KILL").await;
    assert_eq!(daemon.ended().await, None);
}

/// The morning: a daemon that begins no further run carries on what is open,
/// two minutes at most, and everything is counted.
pub async fn finish(site: &Site) {
    let last = campaign(NEVER, 7).replace("connector:", "enabled: false\nconnector:");
    site.write("campaigns/hello.yaml", &last);
    let ready = site.log().matches("ready;").count();
    let mut daemon = site.serve();
    site.wait_for_log("ready;", ready + 1).await;
    wait_until_nothing_is_open(site).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    check(site).await;
}

/// Returns once the ledger has no open run.
pub async fn wait_until_nothing_is_open(site: &Site) {
    for _ in 0..1_200 {
        let open = ledger(site, "select run_id from runs where is_open = 1").await;
        if open.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a run is still open after two minutes: {}", site.log());
}

/// The oracle, and that nothing is left over: every run has ended, with a row
/// of history for each planned member.
pub async fn check(site: &Site) {
    oracle::check(site).await;
    let open = site.sql("select * from campaignd.open_runs").await;
    assert_eq!(open, [], "{}", site.log());
    let owed = "select * from campaignd.runs where still_open > 0 or status = 'open'";
    assert_eq!(site.sql(owed).await, [], "{}", site.log());
}
