//! Logins whose password is not in the operator's file, with the built
//! program.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::run::{Clock as _, SystemClock};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use support::gate::{Act, Cut};
use support::gate_wire::Refusal;
use support::oracle;
use support::receiver::{Answer, Receiver};
use support::redshift_gate::PASSWORD;
use support::site::Site;

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '0 9 * * *', timezone: UTC }
audience:
  key: profile_id
  sql: select profile_id from people
activation: { destination: sink, batch_size: 20 }
";

/// A site, the user of its connector, and the connector's `auth` replaced.
async fn site(name: &str, auth: impl FnOnce(&Site, &str) -> String) -> (Site, String) {
    let site = Site::on_redshift(name).await;
    site.sql("create view people as select 'p-' || n as profile_id from generate_series(1, 60) n")
        .await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    let text = site.settings();
    let (before, rest) = text.split_once("auth: {").unwrap();
    let (old, after) = rest.split_once('}').unwrap();
    let user = old.split_once("user: ").unwrap().1;
    let user = user.split(',').next().unwrap().to_owned();
    let auth = auth(&site, &user);
    site.write("campaignd.yaml", &format!("{before}auth: {auth}{after}"));
    (site, user)
}

fn no_secret_in(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        assert!(
            !text.contains(PASSWORD) && !text.contains("AWS-Secret"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_commands_answer_serves_every_connection_of_a_minute() {
    let (site, _) = site("command", |site, user| {
        let path = site.path().display();
        let script = format!("#!/bin/sh\necho run >> {path}/runs\necho '{PASSWORD}'\n");
        let file = site.write("get-secret", &script);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).unwrap();
        format!(
            "{{ user: {user}, password_command: [ '{}' ] }}",
            file.display()
        )
    })
    .await;
    let output = site.campaignd(&["run", "hello"]).await;
    assert!(output.status.success(), "{output:?}");
    no_secret_in(&output);
    let runs = std::fs::read_to_string(site.path().join("runs")).unwrap();
    assert_eq!(runs, "run\n");
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_replaced_within_its_minute_is_asked_for_anew() {
    let (site, _) = site("replaced", |site, user| {
        let path = site.path().display();
        let script = format!("#!/bin/sh\necho run >> {path}/runs\necho '{PASSWORD}'\n");
        let file = site.write("get-secret", &script);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).unwrap();
        format!(
            "{{ user: {user}, password_command: [ '{}' ] }}",
            file.display()
        )
    })
    .await;
    // The session is lost, and the next is refused as with an old password.
    let (is_lost, is_refused) = (AtomicBool::new(false), AtomicBool::new(false));
    site.gate().rule(move |passing| match &*passing.step {
        "page" if !is_lost.swap(true, SeqCst) => Act::CutBefore(Cut::Reset),
        "session" if is_lost.load(SeqCst) && !is_refused.swap(true, SeqCst) => {
            Act::Refuse(Refusal {
                code: "28000",
                message: "password authentication failed".to_owned(),
                detail: String::new(),
                is_fatal: true,
            })
        }
        _ => Act::Pass,
    });
    let output = site.campaignd(&["run", "hello"]).await;
    assert!(output.status.success(), "{output:?}");
    let runs = std::fs::read_to_string(site.path().join("runs")).unwrap();
    assert_eq!(runs, "run\nrun\n");
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_place_for_its_socket_it_says_what_to_set() {
    let (site, _) = site("no_socket", |_, user| {
        format!("{{ user: {user}, password: {PASSWORD} }}")
    })
    .await;
    let mut command = site.command(&["run", "hello"]);
    let output = command.env("TMPDIR", "/nonexistent").output().await;
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("give TMPDIR a short path"), "{said}");
}

fn credentials(user: &str, seconds_from_now: i64) -> String {
    let until = SystemClock.now().as_second() + seconds_from_now;
    format!(r#"{{"dbUser":"{user}","dbPassword":"{PASSWORD}","expiration":{until}.5}}"#)
}

async fn run_with_iam(name: &str, life: i64) -> (Site, Receiver, String) {
    let aws = Receiver::start().await;
    let endpoint = format!("http://{}/", aws.address());
    let (site, user) = site(name, |_, _| {
        format!("{{ iam: {{ workgroup: wg, region: us-east-1, endpoint: '{endpoint}' }} }}")
    })
    .await;
    let answer = credentials(&user, life);
    aws.rule(move |_| Answer::reply(200, &[], &answer));
    // So that there is a second session.
    site.gate().rule(|passing| match &*passing.step {
        "page" if passing.number == 1 => Act::CutBefore(Cut::Reset),
        _ => Act::Pass,
    });
    let mut run = site.command(&["run", "hello"]);
    run.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "AWS-Secret")
        .env("AWS_SESSION_TOKEN", "AWS-Secret-Session");
    let output = run.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    no_secret_in(&output);
    oracle::check(&site).await;
    (site, aws, user)
}

#[tokio::test(flavor = "multi_thread")]
async fn iam_credentials_are_asked_for_once_while_they_hold() {
    let (_site, aws, _) = run_with_iam("iam_once", 3_600).await;
    let requests = aws.requests();
    assert_eq!(requests.len(), 1);
    let asked = &requests[0];
    let target = asked.header("x-amz-target");
    assert_eq!(target, Some("RedshiftServerless.GetCredentials"));
    assert_eq!(asked.json()["workgroupName"], "wg");
    assert_eq!(
        asked.header("x-amz-security-token"),
        Some("AWS-Secret-Session")
    );
    let signature = asked.header("authorization").unwrap();
    assert!(
        signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
        "{signature}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn iam_credentials_that_lapse_are_asked_for_again() {
    let (_site, aws, _) = run_with_iam("iam_again", 0).await;
    assert!(aws.count() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_refuses_and_a_key_that_is_missing_are_told_of() {
    let aws = Receiver::start().await;
    aws.rule(|_| {
        let body = r#"{"__type":"AccessDeniedException","message":"ada@example.com may not"}"#;
        Answer::reply(400, &[], body)
    });
    let endpoint = format!("http://{}/", aws.address());
    let (site, _) = site("iam_refused", |_, _| {
        format!("{{ iam: {{ workgroup: wg, region: us-east-1, endpoint: '{endpoint}' }} }}")
    })
    .await;
    let mut test = site.command(&["connector", "test", "warehouse"]);
    test.env_remove("AWS_ACCESS_KEY_ID");
    let output = test.output().await.unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("set AWS_ACCESS_KEY_ID"), "{said}");
    assert_eq!(aws.count(), 0);
    test.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "AWS-Secret");
    let output = test.output().await.unwrap();
    assert_eq!(output.status.code(), Some(5));
    no_secret_in(&output);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("AccessDeniedException"), "{said}");
    assert!(!said.contains("ada@example.com"), "{said}");
}
