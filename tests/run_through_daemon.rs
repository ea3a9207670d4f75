//! `campaignd run` beside a running daemon, which carries the run under its
//! own limits; and who asked for what.

use crate::support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::time::Duration;
use support::night::{self, CAMPAIGN, NEVER, change_settings, furnish, ledger, text};
use support::receiver::Answer;
use support::site::{Daemon, Site};

const PEOPLE: u32 = 140;

async fn served(name: &str) -> (Site, Daemon) {
    let site = Site::new(name).await;
    furnish(&site, PEOPLE, NEVER).await;
    let daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    (site, daemon)
}

async fn end(site: &Site, mut daemon: Daemon) {
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The commands of one verb, oldest first, as `target: outcome`.
async fn actions(site: &Site, verb: &str) -> Vec<String> {
    let sql = format!("select * from actions where verb = '{verb}' order by at");
    let rows = ledger(site, &sql).await;
    let me = std::process::Command::new("id").arg("-un").output();
    let me = String::from_utf8(me.expect("id runs").stdout).expect("a name");
    rows.iter()
        .map(|row| {
            assert_eq!(text(row, "who"), me.trim());
            format!("{}: {}", text(row, "target"), text(row, "outcome"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_beside_a_daemon_ends_as_one_without_it() {
    let (site, daemon) = served("beside").await;
    let output = site.campaignd(&["run", CAMPAIGN, "--format", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let beside: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(beside["status"], "finished");
    assert_eq!(beside["delivered"], PEOPLE);
    assert_eq!(beside["trigger"], "manual");
    // Progress is lines of JSON, and not many.
    let lines: Vec<serde_json::Value> = said(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert!((1..=25).contains(&lines.len()), "{lines:?}");
    let last = lines.last().expect("a line");
    assert_eq!(last["state"], "finished");
    assert_eq!(last["ended"], PEOPLE);
    end(&site, daemon).await;

    let alone = site.json(&["run", CAMPAIGN]).await;
    let keys = |object: &serde_json::Value| -> Vec<String> {
        let object = object.as_object().expect("an object");
        object.keys().cloned().collect()
    };
    assert_eq!(keys(&alone), keys(&beside));
    assert_eq!(actions(&site, "run").await, vec!["hello: done"; 2]);
    night::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_beside_a_daemon_that_is_held_ends_with_4() {
    let (site, daemon) = served("beside_held").await;
    site.receiver.rule(|_| Answer::status(401));
    let output = site.campaignd(&["run", CAMPAIGN]).await;
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(
        said(&output).contains("is held with 140"),
        "{}",
        said(&output)
    );

    let status = site.json(&["status"]).await;
    assert_eq!(status[0]["paused"][0]["scope"], "refusing:sink");
    assert_eq!(status[0]["paused"][0]["by"], "campaignd");
    site.receiver.rule(|_| Answer::status(200));
    let run = site.json(&["runs"]).await[0]["run_id"].clone();
    let run = run.as_str().expect("a run");
    let output = site.campaignd(&["resume", run]).await;
    assert!(output.status.success(), "{}", said(&output));
    site.wait_for_row("select 1 from campaignd.runs where status = 'finished'")
        .await;
    let output = site.campaignd(&["resume", run]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    end(&site, daemon).await;
    let resumed = actions(&site, "resume").await;
    assert_eq!(resumed[0], format!("{run}: done"));
    assert!(
        resumed[1].starts_with(&format!("{run}: refused: ")),
        "{resumed:?}"
    );
    night::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_watching_does_not_stop_the_run() {
    let (site, daemon) = served("left").await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(300)));
    let mut watching = site.start(&["run", CAMPAIGN]);
    site.receiver.wait_for(2).await;
    // Another one of the same campaign is refused meanwhile.
    let second = site.campaignd(&["run", CAMPAIGN]).await;
    assert_eq!(second.status.code(), Some(2), "{}", said(&second));
    assert!(said(&second).contains("is open"), "{}", said(&second));
    watching.signal("INT").await;
    assert_eq!(watching.ended().await, Some(4));
    assert!(site.log().contains("goes on in the daemon; `campaignd"));
    site.wait_for_row("select 1 from campaignd.runs where status = 'finished'")
        .await;
    end(&site, daemon).await;
    let runs = actions(&site, "run").await;
    assert_eq!(runs[0], "hello: done");
    assert!(runs[1].starts_with("hello: refused: hello@"), "{runs:?}");
    night::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_nothing_that_is_there_is_refused_with_the_nearest_name_and_recorded() {
    let (site, daemon) = served("no_such").await;
    let output = site.campaignd(&["run", "helo"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("did you mean `hello`?"),
        "{}",
        said(&output)
    );
    let runs = actions(&site, "run").await;
    assert!(
        runs[0].starts_with("helo: refused: there is no"),
        "{runs:?}"
    );

    site.write("campaigns/broken.yaml", "name: broken");
    daemon.signal("HUP").await;
    site.wait_for_log("1 of 2 campaign files are refused", 1)
        .await;
    site.wait_for_log("the folder was read again", 1).await;
    let output = site.campaignd(&["run", "broken"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    end(&site, daemon).await;
    let output = site.campaignd(&["run", "broken"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(site.receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_destination_is_away_is_not_begun() {
    let site = Site::sqlite().await;
    furnish(&site, 7, NEVER).await;
    let url = site.receiver.url();
    change_settings(&site, &url, "http://127.0.0.1:1/activate");
    let daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let output = site.campaignd(&["run", CAMPAIGN]).await;
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert!(
        said(&output).contains("nothing was begun"),
        "{}",
        said(&output)
    );
    end(&site, daemon).await;
    let runs = actions(&site, "run").await;
    assert!(
        runs[0].starts_with("hello: failed: destination"),
        "{runs:?}"
    );
    assert_eq!(ledger(&site, "select 1 from runs").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_is_paused_by_whom_and_since_when() {
    let site = Site::sqlite().await;
    furnish(&site, 7, NEVER).await;
    for scope in [&["--all"][..], &["hello"], &["--destination", "sink"]] {
        let output = site.campaignd(&[&["pause"], scope].concat()).await;
        assert!(output.status.success(), "{}", said(&output));
    }
    let status = site.json(&["status"]).await;
    let paused = status[0]["paused"].as_array().expect("a list").clone();
    let scopes: Vec<&str> = paused.iter().filter_map(|p| p["scope"].as_str()).collect();
    assert_eq!(scopes, ["all", "campaign:hello", "destination:sink"]);
    assert!(
        paused
            .iter()
            .all(|p| p["by"].is_string() && p["since"].is_string())
    );
    let output = site.campaignd(&["status"]).await;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("everything is paused by "), "{shown}");
    assert!(
        shown.contains("`campaignd unpause --destination sink`"),
        "{shown}"
    );
    let paused = actions(&site, "pause").await;
    assert_eq!(
        paused,
        [
            "all: done",
            "campaign:hello: done",
            "destination:sink: done"
        ]
    );
    let output = site.campaignd(&["cancel", "hello@20261122T140000Z"]).await;
    assert_eq!(output.status.code(), Some(2));
    let cancelled = actions(&site, "cancel").await;
    assert!(
        cancelled[0].starts_with("hello@20261122T140000Z: refused: there is no run"),
        "{cancelled:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_is_for_the_daemons_group() {
    let site = Site::sqlite().await;
    furnish(&site, 7, NEVER).await;
    // A dead process has left one, open to everybody.
    let path = site.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&path, open).expect("its mode");
    let daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let output = site.campaignd(&["pause", "--all"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let mode = std::fs::metadata(&path)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let hidden = std::fs::read_dir(site.path()).expect("a folder").flatten();
    let left = hidden.filter(|entry| entry.file_name().to_string_lossy().starts_with(".c"));
    assert_eq!(left.count(), 0);
    end(&site, daemon).await;
    assert!(!path.exists());
}
