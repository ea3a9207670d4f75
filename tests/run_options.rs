//! `run --canary`: some members first. `run --missed`: a fire time after all.

use crate::support;

use std::process::Stdio;
use std::time::Duration;
use support::night::{self, CAMPAIGN, NEVER, campaign, furnish, kill, text};
use support::receiver::Answer;
use support::site::{Site, World};
use tokio::io::AsyncWriteExt as _;

crate::in_both_worlds! { Postgres
    a_canary_is_sent_alone_and_resume_sends_the_others
}

async fn furnished(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    furnish(&site, 70, NEVER).await;
    site
}

/// Members of each request, in the order they came.
fn sizes(site: &Site) -> Vec<usize> {
    let requests = site.receiver.requests();
    let members = |body: serde_json::Value| body["data"]["members"].as_array().map(Vec::len);
    requests
        .iter()
        .filter_map(|request| members(request.json()))
        .collect()
}

/// The id of the one run that is held for its canary.
async fn held(site: &Site) -> String {
    let held = "select run_id, error from campaignd.runs where status = 'held'";
    let row = site.wait_for_row(held).await.remove(0);
    let why = text(&row, "error");
    assert!(why.starts_with("the canary was sent"), "{why}");
    text(&row, "run_id").to_owned()
}

/// With and without a daemon; ten members are a batch of three and one of
/// seven.
async fn a_canary_is_sent_alone_and_resume_sends_the_others(world: World) {
    for with_daemon in [true, false] {
        let site = furnished(world, "canary").await;
        let daemon = with_daemon.then(|| site.serve());
        if with_daemon {
            site.wait_for_log("ready;", 1).await;
        }
        let output = site.campaignd(&["run", CAMPAIGN, "--canary", "10"]).await;
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let run = held(&site).await;
        let mut first = sizes(&site);
        first.sort_unstable();
        assert_eq!(first, [3, 7]);
        let sent = "select * from campaignd.contact_history where status = 'delivered'";
        assert_eq!(site.sql(sent).await.len(), 10);

        let output = site.campaignd(&["resume", &run]).await;
        assert!(output.status.success(), "{output:?}");
        let whole = "select * from campaignd.runs where status = 'finished' and delivered = 70";
        site.wait_for_row(whole).await;
        assert_eq!(sizes(&site).len(), 11);
        assert_eq!(sizes(&site).iter().sum::<usize>(), 70);
        let shown = site.json(&["runs", "show", &run]).await;
        assert_eq!(shown["error"], serde_json::Value::Null, "it is over");
        if let Some(mut daemon) = daemon {
            daemon.signal("TERM").await;
            assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        }
        night::check(&site).await;
        if world == World::Redshift {
            site.check_gate();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_is_killed_in_the_middle_is_carried_on_and_still_held() {
    let site = furnished(World::Postgres, "canary_killed").await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(300)));
    let run = site.start(&["run", CAMPAIGN, "--canary", "16"]);
    site.receiver.wait_for(1).await;
    kill(run).await;
    let mut daemon = site.serve();
    let run = held(&site).await;
    let ids = || -> std::collections::BTreeSet<String> {
        let requests = site.receiver.requests();
        let id = |body: serde_json::Value| body["data"]["batch"].to_string();
        requests.iter().map(|request| id(request.json())).collect()
    };
    assert_eq!(ids(), ["1", "2", "3"].map(str::to_owned).into());
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    let whole = "select * from campaignd.runs where status = 'finished' and delivered = 70";
    site.wait_for_row(whole).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_canary_that_is_resumed_sends_the_others_without_asking_again() {
    let site = Site::sqlite().await;
    furnish(&site, 70, NEVER).await;
    site.campaignd(&["run", CAMPAIGN, "--canary", "10"]).await;
    let run = held(&site).await;
    let output = site.campaignd(&["cancel", &run]).await;
    assert!(output.status.success(), "{output:?}");
    let why = "select error from campaignd.runs";
    let row = site.sql(why).await.remove(0);
    assert_eq!(text(&row, "error"), "the run was cancelled");
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sizes(&site).iter().sum::<usize>(), 70);
    assert_eq!(text(&site.sql(why).await[0], "error"), "");
    night::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_as_large_as_the_audience_is_the_whole_run() {
    let site = furnished(World::Postgres, "canary_whole").await;
    let run = site.json(&["run", CAMPAIGN, "--canary", "70"]).await;
    assert_eq!(run["status"], "finished");
    assert_eq!(run["delivered"], 70);
    night::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_on_the_terminal_sends_the_others_and_anything_else_does_not() {
    for (with_daemon, answer, status, delivered) in [
        (false, "y\n", "finished", "70"),
        (true, "yes\n", "finished", "70"),
        (true, "n\n", "held", "3"),
    ] {
        let site = furnished(World::Postgres, "canary_asked").await;
        let daemon = with_daemon.then(|| site.serve());
        if with_daemon {
            site.wait_for_log("ready;", 1).await;
        }
        answer_on_terminal(&site, answer).await;
        let row = site
            .sql("select * from campaignd.runs where trigger = 'manual'")
            .await
            .remove(0);
        let found = (text(&row, "status"), text(&row, "delivered"));
        assert_eq!(found, (status, delivered), "{}", site.log());
        if let Some(mut daemon) = daemon {
            daemon.signal("TERM").await;
            assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        }
        support::oracle::check(&site).await;
    }
}

/// Runs the campaign with a canary of three on a terminal, and types `answer`.
async fn answer_on_terminal(site: &Site, answer: &str) {
    let program = env!("CARGO_BIN_EXE_campaignd");
    let line = format!("{program} run {CAMPAIGN} --canary 3 --config campaignd.yaml");
    let mut terminal = tokio::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(site.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("script of util-linux");
    let mut keyboard = terminal.stdin.take().expect("it is piped");
    keyboard.write_all(answer.as_bytes()).await.expect("typed");
    keyboard.flush().await.expect("typed");
    let ended = tokio::time::timeout(Duration::from_mins(1), terminal.wait()).await;
    ended.expect("it ends").expect("it is ours");
    drop(keyboard);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_fire_time_is_carried_under_its_own_id_with_and_without_a_daemon() {
    for with_daemon in [true, false] {
        let site = furnished(World::Postgres, "missed").await;
        let skipping = campaign("* * * * * *", 7).replace(
            "timezone: UTC",
            "timezone: UTC, blackout: [ { from: 2000-01-01, to: 2999-12-31 } ]",
        );
        site.write("campaigns/hello.yaml", &skipping);
        let mut daemon = site.serve();
        let skipped = "select run_id, fire_time from campaignd.runs where status = 'skipped'";
        let row = site.wait_for_row(skipped).await.remove(0);
        let run = text(&row, "run_id").to_owned();
        daemon.signal("TERM").await;
        assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        site.write("campaigns/hello.yaml", &campaign(NEVER, 7));
        let daemon = with_daemon.then(|| site.serve());
        if with_daemon {
            site.wait_for_log("ready;", 2).await;
        }

        let at = run.split_once('@').unwrap().1;
        let time = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &at[..4],
            &at[4..6],
            &at[6..8],
            &at[9..11],
            &at[11..13],
            &at[13..15]
        );
        let carried = site.json(&["run", CAMPAIGN, "--missed", &time]).await;
        assert_eq!(carried["run_id"], run.as_str());
        assert_eq!(carried["delivered"], 70);
        let rows = format!("select status from campaignd.runs where run_id = '{run}'");
        let rows = site.sql(&rows).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(text(&rows[0], "status"), "finished");

        // Once is enough, and what never was is not made up.
        for time in [time.as_str(), "2001-01-01T00:00:00Z"] {
            let output = site.campaignd(&["run", CAMPAIGN, "--missed", time]).await;
            assert_eq!(output.status.code(), Some(2), "{output:?}");
        }
        if let Some(mut daemon) = daemon {
            daemon.signal("TERM").await;
            assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        }
        night::check(&site).await;
    }
}
