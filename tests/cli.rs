//! What each command prints, for people and for programs, and how it exits.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, in its helpers too"
)]

use crate::support;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::{Output, Stdio};
use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{SIGNING_SECRET, Site, TextRow, sqlite_rows};
use tokio::process::Command;

const FIRE_TIME: &str = "2020-03-01T09:00:00Z";

const CAMPAIGN: &str = "name: spring-hello
description: Shoppers get a spring greeting.
owner: lifecycle team
connector: warehouse
schedule: { cron: '0 9 1 1 *', timezone: UTC }
audience:
  key: profile_id
  sql: |
    select profile_id, email
    from shoppers
activation: { destination: sink, batch_size: 500 }
";

/// 1,200 people, one of them twice, and one row without a key.
const AUDIENCE: &str = "
    create table shoppers as
    with recursive n(n) as (select 1 union all select n + 1 from n where n < 1200)
    select 'p-' || n as profile_id, 'p' || n || '@example.com' as email from n
    union all select 'p-7', 'again@example.com' union all select null, 'nobody@example.com'";

/// A site whose warehouse has shoppers and whose log says errors alone.
async fn site() -> Site {
    let site = Site::sqlite().await;
    let settings = site.settings();
    let quiet = settings.replace("format: json, level: debug", "format: text, level: error");
    site.write("campaignd.yaml", &quiet);
    site.write("campaigns/spring-hello.yaml", CAMPAIGN);
    site.sql(AUDIENCE).await;
    site
}

/// A loopback port at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}

async fn ledger(site: &Site, sql: &str) -> Vec<TextRow> {
    sqlite_rows(&site.path().join("state.db"), sql).await
}

/// Runs the program and returns all that it says, with what differs from one
/// time to the next made the same.
async fn told(site: &Site, args: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = site.campaignd(args).await;
    let mut text = format!(
        "$ campaignd {}\nexit code {}\n",
        args.join(" "),
        status.code().unwrap()
    );
    for (name, bytes) in [("stdout", stdout), ("stderr", stderr)] {
        let said = String::from_utf8(bytes).unwrap();
        assert!(
            said.lines().all(|line| line.trim_end() == line),
            "blanks at the end of a line of {name}: {said:?}"
        );
        if !said.is_empty() {
            text.push_str(&format!("--- {name}\n{said}"));
        }
    }
    let folder = site.path().display().to_string();
    let receiver = site.receiver.address().to_string();
    masked(&text.replace(&folder, "SITE").replace(&receiver, "RECEIVER"))
}

/// Instants, how long ago they were, and the room this takes in a table.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(length) = instant(rest) {
            out.push_str("TIME");
            rest = &rest[length..];
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    let lines = out.lines().map(|line| {
        let is_of_a_table = line.contains("TIME") || line.contains("fire time");
        if is_of_a_table {
            narrowed(line)
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The line with two blanks where it has more, but for those it begins with.
fn narrowed(line: &str) -> String {
    let words = line.trim_start();
    let mut text = words.to_owned();
    while text.contains("   ") {
        text = text.replace("   ", "  ");
    }
    format!("{}{text}", &line[..line.len() - words.len()])
}

/// How long the instant is that `text` begins with; with ` (3m ago)`, if that
/// follows.
fn instant(text: &str) -> Option<usize> {
    let shape = "dddd-dd-dd dd:dd:dd";
    let head = text.get(..shape.len())?;
    let fits = head.chars().zip(shape.chars()).all(|(c, s)| match s {
        'd' => c.is_ascii_digit(),
        ' ' => c == 'T' || c == ' ',
        _ => c == s,
    });
    if !fits {
        return None;
    }
    let length = shape.len() + text[shape.len()..].find('Z')? + 1;
    let after = &text[length..];
    let is_relative = after.starts_with(" (") && after.lines().next()?.contains(')');
    Some(length + if is_relative { after.find(')')? + 1 } else { 0 })
}

#[tokio::test]
async fn check_says_that_all_is_well_or_lists_every_problem_of_every_file() {
    let site = site().await;
    insta::assert_snapshot!("check_good", told(&site, &["check"]).await);
    insta::assert_snapshot!(
        "check_good_json",
        told(&site, &["check", "--format", "json"]).await
    );
    site.write(
        "campaigns/broken.yaml",
        "name: Broken!\nconnector: warehous\nschedule: { cron: '61 * * * *', timezone: Mars }\n\
         audience:\n  key: id\n  sql: |\n    select *\n    from shoppers\nactivaton: { destination: sink }\n",
    );
    insta::assert_snapshot!("check_many_problems", told(&site, &["check"]).await);
    insta::assert_snapshot!(
        "check_many_problems_json",
        told(&site, &["check", "--format", "json"]).await
    );
    let one = told(&site, &["check", "campaigns/spring-hello.yaml"]).await;
    insta::assert_snapshot!("check_one_file", one);
}

#[tokio::test]
async fn a_bad_operators_file_ends_every_command_with_3_and_its_problems() {
    let site = site().await;
    let settings = site.settings();
    site.write(
        "campaignd.yaml",
        &settings.replace("timeout: 2s", "timeuot: 2s"),
    );
    insta::assert_snapshot!("settings_unknown_key", told(&site, &["check"]).await);
    insta::assert_snapshot!("settings_refused", told(&site, &["status"]).await);
    std::fs::remove_file(site.path().join("campaignd.yaml")).unwrap();
    insta::assert_snapshot!("settings_missing", told(&site, &["runs"]).await);
    insta::assert_snapshot!("settings_missing_check", told(&site, &["check"]).await);
}

#[tokio::test]
async fn a_finished_run_is_seen_in_run_status_runs_and_runs_show() {
    let site = site().await;
    insta::assert_snapshot!("status_before", told(&site, &["status"]).await);
    insta::assert_snapshot!("runs_before", told(&site, &["runs"]).await);
    let run = ["run", "spring-hello", "--fire-time", FIRE_TIME];
    insta::assert_snapshot!("run_finished", told(&site, &run).await);
    let json = [run.as_slice(), &["--format", "json"]].concat();
    insta::assert_snapshot!("run_finished_json", told(&site, &json).await);
    insta::assert_snapshot!("status", told(&site, &["status"]).await);
    let one = ["status", "spring-hello", "--format", "json"];
    insta::assert_snapshot!("status_json", told(&site, &one).await);
    insta::assert_snapshot!("runs", told(&site, &["runs"]).await);
    let newest = ["runs", "spring-hello", "--limit", "1", "--format", "json"];
    insta::assert_snapshot!("runs_json", told(&site, &newest).await);
    let id = "spring-hello@20200301T090000Z-manual-1";
    insta::assert_snapshot!("runs_show", told(&site, &["runs", "show", id]).await);
    let show = ["runs", "show", id, "--format", "json"];
    insta::assert_snapshot!("runs_show_json", told(&site, &show).await);
}

/// Runs the command with its standard output at `stdout`.
async fn said_to(site: &Site, args: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = site.command(args);
    // `output` would take standard output for itself.
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn();
    child.unwrap().wait_with_output().await.unwrap()
}

#[tokio::test]
async fn a_reader_that_has_read_enough_is_no_failure() {
    let site = site().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = said_to(&site, &["bootstrap", "warehouse"], writer).await;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[tokio::test]
async fn output_that_cannot_be_written_ends_with_5_and_says_so() {
    let site = site().await;
    for args in [&["bootstrap", "warehouse"][..], &["status"], &["check"]] {
        // What a full disk does.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = said_to(&site, args, full).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{args:?}: {told}");
        assert!(told.contains("could not be written"), "{args:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_ends_with_4_and_the_next_one_carries_it_on() {
    let site = site().await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_secs(1)));
    let run = ["run", "spring-hello", "--fire-time", FIRE_TIME];
    let mut command = site.command(&run);
    let running = command.stderr(Stdio::piped()).spawn().unwrap();
    site.receiver.wait_for(1).await;
    let pid = running.id().unwrap().to_string();
    let kill = Command::new("kill").arg(&pid).status().await;
    assert!(kill.unwrap().success());
    let output = running.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("run the campaign again"), "{said}");
    let before = site.receiver.requests();
    let shown = site.json(&["run", "spring-hello"]).await;
    assert_eq!(shown["run_id"], "spring-hello@20200301T090000Z-manual-1");
    assert_eq!(shown["delivered"], 1_200);
    let after = &site.receiver.requests()[before.len()..];
    let ids: Vec<&str> = before.iter().map(|r| r.id()).collect();
    let again = after.iter().filter(|r| ids.contains(&r.id())).count();
    assert_eq!(again, 0, "what was on its way had ended");
    oracle::check(&site).await;
}

#[tokio::test]
async fn a_secret_that_is_missing_or_bad_ends_with_3_and_is_not_shown() {
    let site = site().await;
    let settings = site.settings();
    site.write(
        "campaignd.yaml",
        &settings.replace(SIGNING_SECRET, "${env:NO_SUCH_SECRET}"),
    );
    let mut said = told(&site, &["run", "spring-hello"]).await;
    site.write(
        "campaignd.yaml",
        &settings.replace(SIGNING_SECRET, "hunter2"),
    );
    said += &told(&site, &["run", "spring-hello"]).await;
    assert!(!said.contains("hunter2"), "{said}");
    insta::assert_snapshot!(said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_needs_the_secrets_of_its_own_way_only() {
    let site = site().await;
    let others = "connectors:
  elsewhere: { kind: postgres, host: localhost, database: d, auth: { user: u, password: '${env:NO_SUCH_SECRET}' }, tls: disable }";
    let sink = "destinations:
  other: { url: 'https://example.com/', signing_secrets: [ '${file:./no-such-file}' ], dedupe_window: 24h }";
    let settings = site.settings();
    let settings = settings
        .replace("connectors:", others)
        .replace("destinations:", sink);
    site.write("campaignd.yaml", &settings);
    let run = site.campaignd(&["run", "spring-hello"]).await;
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    for key in [
        "connectors.elsewhere.auth.password",
        "destinations.other.signing_secrets",
    ] {
        assert!(said.contains(key), "{key}: {said}");
    }
}

#[tokio::test]
async fn names_that_are_not_there_end_with_2_and_the_names_that_are() {
    let site = site().await;
    let mut text = String::new();
    let commands: [&[&str]; 6] = [
        &["run", "spring-hallo"],
        &["runs", "spring-hallo"],
        &["status", "spring-hallo"],
        &["bootstrap", "warehous"],
        &["runs", "show", "spring-hello@20200301T090000Z"],
        &["runs", "show", "spring-hello"],
    ];
    for args in commands {
        text += &told(&site, args).await;
    }
    std::fs::remove_file(site.path().join("campaigns/spring-hello.yaml")).unwrap();
    text += &told(&site, &["run", "spring-hello"]).await;
    text += &told(&site, &["status"]).await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn bootstrap_prints_the_sql_of_each_kind_of_warehouse_and_applies_it_twice() {
    let site = site().await;
    let settings = site.settings();
    let server = |kind: &str| {
        format!(
            "connectors:\n  {kind}: {{ kind: {kind}, host: wh.example, database: shared, auth: {{ user: loader, password: \"${{env:WAREHOUSE_PASSWORD}}\" }}, schema: campaignd }}\n"
        )
    };
    let mut all = settings.replace("connectors:\n", &server("redshift"));
    all = all.replace("connectors:\n", &server("postgres"));
    site.write("campaignd.yaml", &all);
    for kind in ["redshift", "postgres", "warehouse"] {
        let sql = told(&site, &["bootstrap", kind]).await;
        insta::assert_snapshot!(format!("bootstrap_{kind}"), sql);
    }
    let apply = ["bootstrap", "warehouse", "--apply"];
    insta::assert_snapshot!("bootstrap_apply", told(&site, &apply).await);
    let again = [apply.as_slice(), &["--format", "json"]].concat();
    insta::assert_snapshot!("bootstrap_apply_again", told(&site, &again).await);
}

#[tokio::test]
async fn an_unreachable_warehouse_or_destination_ends_with_5_and_begins_nothing() {
    let site = site().await;
    let good = site.settings();
    let gone = nobody();
    let url = site.receiver.url();
    site.write(
        "campaignd.yaml",
        &good.replace(&url, &format!("http://{gone}/activate")),
    );
    let text = told(&site, &["run", "spring-hello"]).await;
    let mut said = text.replace(&gone.to_string(), "NOBODY");
    assert_eq!(ledger(&site, "select * from runs").await, []);
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);

    let connector = "{ kind: sqlite, path: ./warehouse.db }";
    let port = gone.port();
    let server = format!(
        "{{ kind: postgres, host: 127.0.0.1, port: {port}, database: shared, auth: {{ user: loader, password: x }}, tls: disable }}"
    );
    site.write("campaignd.yaml", &good.replace(connector, &server));
    let text = told(&site, &["run", "spring-hello"]).await;
    said += &text.replace(&gone.to_string(), "NOBODY");
    assert_eq!(ledger(&site, "select * from runs").await, []);
    assert_eq!(site.receiver.count(), 0);
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn a_state_store_in_use_or_out_of_reach_ends_with_5() {
    let site = site().await;
    site.json(&["run", "spring-hello"]).await;
    let lock = File::open(site.path().join("state.db.lock")).unwrap();
    lock.try_lock().unwrap();
    let mut said = told(&site, &["run", "spring-hello"]).await;
    said += &told(&site, &["serve"]).await;
    let output = site.campaignd(&["status"]).await;
    assert!(output.status.success(), "reading goes on beside the daemon");
    drop(lock);
    let settings = site.settings();
    let nowhere = settings.replace("sqlite://./state.db", "sqlite://./nowhere/state.db");
    site.write("campaignd.yaml", &nowhere);
    said += &told(&site, &["run", "spring-hello"]).await;
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn a_run_that_does_not_deliver_everything_ends_with_4_and_says_why() {
    let site = site().await;
    let run = ["run", "spring-hello", "--fire-time", FIRE_TIME];
    site.sql("alter table shoppers rename column email to mail")
        .await;
    let mut said = told(&site, &run).await;
    site.sql("alter table shoppers rename column mail to email")
        .await;
    site.receiver.rule(|request| {
        let refused = request.json()["data"]["batch"] == 2;
        Answer::status(if refused { 422 } else { 200 })
    });
    said += &told(&site, &run).await;
    let mended = ["destination", "resume", "sink"];
    said += &told(&site, &run).await;
    said += &told(&site, &mended).await;
    // Some of its members were sent what they are.
    said += &told(&site, &run).await;
    let held = "spring-hello@20200301T090000Z-manual-2";
    said += &told(&site, &["cancel", held]).await;
    // All three are on the wire when the first answer is here.
    let meanwhile = Duration::from_millis(500);
    site.receiver
        .rule(move |_| Answer::status(401).after(meanwhile));
    said += &told(&site, &run).await;
    insta::assert_snapshot!(said);
    insta::assert_snapshot!("runs_with_errors", told(&site, &["runs"]).await);
    let held = "spring-hello@20200301T090000Z-manual-3";
    insta::assert_snapshot!("runs_show_held", told(&site, &["runs", "show", held]).await);
}

#[tokio::test]
async fn the_help_of_every_command_has_an_example_of_that_command() {
    let site = Site::sqlite().await;
    let commands: [&[&str]; 9] = [
        &[],
        &["serve"],
        &["demo"],
        &["check"],
        &["run"],
        &["status"],
        &["runs"],
        &["runs", "show"],
        &["bootstrap"],
    ];
    for command in commands {
        let output = site.campaignd(&[command, &["--help"]].concat()).await;
        let help = String::from_utf8(output.stdout).unwrap();
        let example = format!("Example: campaignd {}", command.join(" "));
        assert!(help.contains(example.trim_end()), "{command:?}: {help}");
    }
}
