//! Members are erased from all that is kept behind a connector, with the
//! built program.

#![cfg(test)]

use crate::support;

use serde_json::Value;
use std::process::Output;
use support::night::{CAMPAIGN, NEVER, change_settings, furnish, ledger, number, start_run, text};
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, World};

crate::in_both_worlds! {
    Postgres
    erased_members_are_gone_from_history_and_no_table_of_a_run_has_them
    nothing_is_erased_while_a_run_is_open
    where_history_is_apart_both_sides_are_erased
}

const HISTORY: &str = "select count(*) from campaignd.contact_history";

/// A run that has delivered everything, then one that has delivered nothing
/// and keeps its table.
async fn two_runs(site: &Site) {
    change_settings(site, "max: 1s }", "max: 100ms, give_up_after: 300ms }");
    site.json(&["run", CAMPAIGN]).await;
    site.receiver.rule(|_| Answer::status(429));
    let output = site.campaignd(&["run", CAMPAIGN]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

async fn erase(site: &Site) -> Value {
    let erased = ["erase", "warehouse", "--keys", "keys.txt"];
    site.json(&erased).await
}

fn rows(erased: &Value) -> Vec<u64> {
    let tables = erased["tables"].as_array().unwrap();
    tables.iter().map(|t| t["rows"].as_u64().unwrap()).collect()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

async fn erased_members_are_gone_from_history_and_no_table_of_a_run_has_them(world: World) {
    let site = Site::of(world, "erase").await;
    furnish(&site, 30, NEVER).await;
    two_runs(&site).await;
    assert_eq!(number(&site, HISTORY).await, 60);
    site.write("keys.txt", "p-3  \r\np-17\n\nstranger\np-3\n");
    let erased = erase(&site).await;
    assert_eq!(erased["keys"], 3);
    assert_eq!(rows(&erased), [4, 2], "{erased}");
    assert_eq!(erased["tables"][0]["table"], "contact_history");
    assert_eq!(erased["tables"][1]["dropped"], true);
    assert_eq!(number(&site, HISTORY).await, 56);
    let left = format!("{HISTORY} where profile_id in ('p-3', 'p-17')");
    assert_eq!(number(&site, &left).await, 0);
    // Once more, and beside a daemon, there is nothing to do.
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let again = site
        .campaignd(&["erase", "warehouse", "--keys", "keys.txt"])
        .await;
    assert!(again.status.success(), "{again:?}");
    assert_eq!(
        said(&again),
        "erased from `warehouse`: 3 keys\ncontact_history: 0 rows\n"
    );
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let noted = ledger(
        &site,
        "select target, outcome from actions where verb = 'erase'",
    )
    .await;
    assert_eq!(noted.len(), 2);
    for row in &noted {
        assert_eq!(text(row, "target"), "warehouse: 3 keys");
        assert_eq!(text(row, "outcome"), "done");
    }
    assert!(!site.log().contains("p-17"));
    // The run whose table is gone is not sent by what is left of it.
    let run = "select run_id from campaignd.runs where status = 'incomplete'";
    let run = text(&site.sql(run).await[0], "run_id").to_owned();
    let resumed = site.campaignd(&["resume", &run]).await;
    assert!(said(&resumed).contains("erased"), "{resumed:?}");
    site.check_gate();
}

async fn nothing_is_erased_while_a_run_is_open(world: World) {
    let site = Site::of(world, "erase_open").await;
    furnish(&site, 30, NEVER).await;
    site.json(&["run", CAMPAIGN]).await;
    site.receiver.rule(|_| Answer::status(429));
    let sent = site.receiver.count();
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let mut run = start_run(&site);
    site.receiver.wait_for(sent + 1).await;
    site.write("keys.txt", "p-3\n");
    for how in ["keys.txt", "nowhere.txt"] {
        let output = site.campaignd(&["erase", "warehouse", "--keys", how]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let wanted = match how {
            "keys.txt" => "hello@",
            _ => "nowhere.txt cannot be read",
        };
        assert!(said(&output).contains(wanted), "{output:?}");
    }
    assert_eq!(number(&site, HISTORY).await, 30);
    site.receiver.rule(|_| Answer::status(200));
    assert_eq!(run.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
    assert_eq!(rows(&erase(&site).await), [2]);
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    site.check_gate();
}

async fn where_history_is_apart_both_sides_are_erased(world: World) {
    let site = Site::apart(world, "erase_apart").await;
    furnish(&site, 30, NEVER).await;
    two_runs(&site).await;
    site.write("keys.txt", "p-3\n");
    let erased = erase(&site).await;
    assert_eq!(rows(&erased), [2, 1], "{erased}");
    assert_eq!(number(&site, HISTORY).await, 58);
    let left = "select tablename from pg_tables where schemaname = 'campaignd'";
    assert_eq!(site.sql(left).await, []);
    assert_eq!(rows(&erase(&site).await), [0]);
    site.check_gate();
}
