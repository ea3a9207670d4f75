//! Logins whose password is not in the operator's file, with the built
//! program.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use support::gate::{Act, Cut};
use support::gate_wire::Refusal;
use support::oracle;
use support::redshift_gate::PASSWORD;
use support::site::Site;

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '0 9 * * *', timezone: UTC }
audience:
  key: profile_id
  sql: select profile_id, login from people
activation: { destination: sink, batch_size: 20 }
";

/// A site, the user of its connector, and the connector's `auth` replaced.
pub(super) async fn site(name: &str, auth: impl FnOnce(&Site, &str) -> String) -> (Site, String) {
    let site = Site::on_redshift(name).await;
    site.sql(
        "create view people as select 'p-' || n as profile_id, current_user::varchar as login \
         from generate_series(1, 60) n",
    )
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

pub(super) fn no_secret_in(output: &Output) {
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
