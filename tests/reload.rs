//! `SIGHUP`: the operator's file read again while runs are under way.

use crate::support;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Executor as _};
use std::time::Duration;
use support::night::{self, CAMPAIGN, NEVER, campaign, change_settings, furnish, text};
use support::receiver::{Answer, Receiver};
use support::site::{Daemon, Site};

async fn served(name: &str) -> (Site, Daemon) {
    let site = Site::new(name).await;
    furnish(&site, 70, NEVER).await;
    let daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    (site, daemon)
}

async fn hang_up(site: &Site, daemon: &Daemon) {
    let again = "the folder was read again";
    let before = site.log().matches(again).count();
    daemon.signal("HUP").await;
    site.wait_for_log(again, before + 1).await;
}

async fn end(site: &Site, mut daemon: Daemon) {
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(site).await;
}

/// Waits until the process takes hangups itself, instead of being ended.
async fn takes_hangups(daemon: &Daemon) {
    let path = format!("/proc/{}/status", daemon.pid());
    for _ in 0..600 {
        let status = std::fs::read_to_string(&path).expect("it runs");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16);
        if caught.expect("a mask") & 1 == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("hangups still end it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_before_the_daemon_is_ready_is_answered_when_it_is() {
    let (site, mut daemon) = served("early").await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    // The start waits for the state store.
    let options = SqliteConnectOptions::new().filename(site.path().join("state.db"));
    let mut other = SqliteConnection::connect_with(&options)
        .await
        .expect("open");
    other.execute("begin immediate").await.expect("a lock");
    let daemon = site.serve();
    takes_hangups(&daemon).await;
    daemon.signal("HUP").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(site.log().matches("ready;").count(), 1, "{}", site.log());
    other
        .execute("rollback")
        .await
        .expect("the lock is given back");
    other.close().await.expect("closed");
    site.wait_for_log("ready;", 2).await;
    site.wait_for_log("the folder was read again", 1).await;
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_destination_holds_for_the_next_run_and_not_for_the_one_under_way() {
    let (site, daemon) = served("moved").await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(200)));
    let new = Receiver::start().await;
    let mut first = site.start(&["run", CAMPAIGN]);
    site.receiver.wait_for(2).await;
    change_settings(&site, &site.receiver.url(), &new.url());
    hang_up(&site, &daemon).await;
    assert_eq!(first.ended().await, Some(0), "{}", site.log());
    assert_eq!((site.receiver.count(), new.count()), (10, 0));
    let second = site.json(&["run", CAMPAIGN]).await;
    assert_eq!(second["status"], "finished");
    assert_eq!((site.receiver.count(), new.count()), (10, 10));
    daemon.signal("TERM").await;
    let mut daemon = daemon;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let owed = "select * from campaignd.runs where delivered <> 70";
    assert_eq!(site.sql(owed).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_and_a_destination_that_are_added_serve_campaigns_that_name_them() {
    let (site, daemon) = served("added").await;
    let settings = site.settings();
    let (head, destinations) = settings.split_once("destinations:\n").expect("there are");
    let connector = head
        .lines()
        .find_map(|line| line.strip_prefix("  warehouse:"))
        .expect("a connector");
    let (sink, rest) = destinations.split_once("log:").expect("log comes last");
    let other = sink.replace("sink:", "other:");
    site.write(
        "campaignd.yaml",
        &format!("{head}  second:{connector}\ndestinations:\n{sink}{other}limits: {{ max_runs: 1, memory: 64MiB }}\nlog:{rest}"),
    );
    let named = campaign(NEVER, 7)
        .replace("name: hello", "name: more")
        .replace("connector: warehouse", "connector: second")
        .replace("destination: sink", "destination: other");
    site.write("campaigns/more.yaml", &named);
    hang_up(&site, &daemon).await;
    let run = site.json(&["run", "more"]).await;
    assert_eq!(run["connector"], "second");
    assert_eq!(run["delivered"], 70);
    assert_eq!(site.json(&["run", CAMPAIGN]).await["delivered"], 70);
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_last_good_one_in_force_and_every_problem_in_the_log() {
    let (site, daemon) = served("broken").await;
    let good = site.settings();
    let broken = good
        .replace("timeout: 2s", "timeout: soon")
        .replace("dedupe_window: 24h", "dedupe_windw: 24h");
    site.write("campaignd.yaml", &broken);
    hang_up(&site, &daemon).await;
    let log = site.log();
    assert!(
        log.contains("its last good version stays in force"),
        "{log}"
    );
    assert!(
        log.contains("dedupe_windw") && log.contains("sink.timeout`"),
        "{log}"
    );
    // The command reads the file too.
    site.write("campaignd.yaml", &good);
    assert_eq!(site.json(&["run", CAMPAIGN]).await["delivered"], 70);

    // One whose secrets are not there is as bad.
    let secretless = good.replace(
        "channel: email",
        "channel: email\n    auth: { bearer: '${env:NOT_THERE}' }",
    );
    site.write("campaignd.yaml", &secretless);
    hang_up(&site, &daemon).await;
    site.wait_for_log("its last good version stays in force", 2)
        .await;
    assert!(site.log().contains("NOT_THERE"), "{}", site.log());
    assert_eq!(site.json(&["run", CAMPAIGN]).await["delivered"], 70);
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_in_flight_is_reported_and_stays() {
    let (site, daemon) = served("fixed").await;
    let changed = site
        .settings()
        .replace("sqlite://./state.db", "sqlite://./other.db")
        .replace("log:", "control: ./elsewhere.sock\nlog:");
    let good = site.settings();
    site.write("campaignd.yaml", &changed);
    hang_up(&site, &daemon).await;
    let log = site.log();
    for key in ["state", "control"] {
        let said = format!("`{key}` has changed and stays as it was; restart the daemon for it");
        assert!(log.contains(&said), "{log}");
    }
    assert!(!site.path().join("other.db").exists());
    site.write("campaignd.yaml", &good);
    assert_eq!(site.json(&["run", CAMPAIGN]).await["delivered"], 70);
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fire_times_of_a_campaign_whose_destination_was_taken_away_are_recorded() {
    let (site, daemon) = served("taken_away").await;
    site.write("campaigns/hello.yaml", &campaign("* * * * * *", 7));
    hang_up(&site, &daemon).await;
    site.wait_for_row("select 1 from campaignd.runs where status = 'finished'")
        .await;
    // The campaign's last good version stays in force, and names what is gone.
    change_settings(&site, "  sink:", "  drain:");
    hang_up(&site, &daemon).await;
    let missed = "select error from campaignd.runs where status = 'missed'";
    let rows = site.wait_for_row(missed).await;
    assert_eq!(
        text(&rows[0], "error"),
        "destination `sink` is not in campaignd.yaml"
    );
    end(&site, daemon).await;
}
