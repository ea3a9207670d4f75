//! Secrets planted in every place of the operator's file that may hold one:
//! they go where they belong, and are seen nowhere else.

#![cfg(test)]

use crate::support;

use std::process::Output;
use support::receiver::{Answer, Receiver};
use support::site::{SIGNING_SECRET, Site};

/// What is planted; the signing secret besides.
const CANARIES: &[&str] = &[
    "canary-query",
    "canary-header",
    "canary-client",
    "canary-tenant",
    "canary-token",
    "canary-answer",
    "Y2FtcGFpZ25kLXRlc3Qtc2lnbmluZy1rZXktMzI",
];

fn assert_clean(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} holds {canary}:\n{text}");
    }
}

fn assert_clean_output(what: &str, output: &Output) {
    assert_clean(what, &String::from_utf8_lossy(&output.stdout));
    assert_clean(what, &String::from_utf8_lossy(&output.stderr));
}

const CAMPAIGN: &str = "
name: winback
connector: warehouse
schedule: { cron: '0 9 1 1 *', timezone: UTC }
audience: { key: id, sql: select id from people }
activation: { destination: sink }
";

/// A site whose destination has a secret wherever one can be.
async fn planted(tokens: &Receiver) -> Site {
    let site = Site::sqlite().await;
    let token_url = tokens
        .url()
        .replace("/activate", "/token?tenant=canary-tenant");
    let auth = format!(
        "allow_http: true
    headers: {{ X-Key: canary-header }}
    auth: {{ oauth2: {{ token_url: '{token_url}', client_id: me, client_secret: canary-client }} }}"
    );
    let settings = site
        .settings()
        .replace("/activate", "/activate?key=canary-query")
        .replace("allow_http: true", &auth)
        .replace("level: debug", "level: trace");
    site.write("campaignd.yaml", &settings);
    site.write("campaigns/winback.yaml", CAMPAIGN);
    site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    site
}

#[tokio::test]
async fn planted_secrets_are_in_no_output_log_or_file_of_ours() {
    let tokens = Receiver::start().await;
    let grant = r#"{"access_token":"canary-token","expires_in":3600}"#;
    tokens.rule(move |_| Answer::reply(200, &[], grant));
    let site = planted(&tokens).await;
    site.sql("create table people as select 1 as id").await;

    for answer in [
        Answer::status(200),
        Answer::status(403),
        Answer::reply(400, &[("location", "/?canary-answer")], "canary-answer"),
        Answer::raw(b"canary-answer"),
        Answer::close(),
    ] {
        site.receiver.script([answer]);
        for format in ["text", "json"] {
            let args = ["destination", "test", "sink", "--format", format];
            assert_clean_output("test", &site.campaignd(&args).await);
        }
    }
    let sent = site.receiver.requests();
    let first = sent.first().unwrap();
    assert!(first.is_signed_with(SIGNING_SECRET));
    assert_eq!(first.header("x-key"), Some("canary-header"));
    assert_eq!(first.header("authorization"), Some("Bearer canary-token"));

    site.receiver.script([Answer::status(503)]);
    let run = site.campaignd(&["run", "winback"]).await;
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert_clean_output("run", &run);
    for args in [
        &["check"][..],
        &["status"],
        &["runs"],
        &["destination", "list"],
        &["--help"],
    ] {
        assert_clean_output(&args.join(" "), &site.campaignd(args).await);
    }
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    daemon.signal("TERM").await;
    daemon.ended().await;
    assert_clean("the log", &site.log());
    for name in ["state.db", "state.db-wal", "warehouse.db"] {
        let bytes = std::fs::read(site.path().join(name)).unwrap_or_default();
        assert_clean(name, &String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn planted_secrets_are_in_no_problem_of_a_broken_file() {
    let tokens = Receiver::start().await;
    let site = planted(&tokens).await;
    let usual = std::fs::read_to_string(site.path().join("campaignd.yaml")).unwrap();
    for (from, to) in [
        ("client_secret:", "client_secrt:"),
        ("oauth2:", "oauht2:"),
        ("auth:", "aut:"),
        ("headers:", "heders:"),
        ("X-Key:", "Webhook-Id:"),
        ("token_url: 'http", "token_url: 'ftp"),
        ("url: http", "url: ftp"),
        ("signing_secrets:", "signing_secret:"),
        ("allow_http: true", "allow_http: false"),
        (
            "allow_private_network: true",
            "allow_private_network: false",
        ),
        (
            "client_secret: canary-client",
            "client_secret: [canary-client]",
        ),
        ("timeout: 2s", "timeout: 2x"),
        ("canary-header }", "canary-header"),
        ("canary-client }", "\"canary-client }"),
    ] {
        let text = usual.replacen(from, to, 1);
        assert_ne!(text, usual, "{from}");
        site.write("campaignd.yaml", &text);
        for args in [&["check"][..], &["destination", "test", "sink"], &["serve"]] {
            let output = site.campaignd(args).await;
            assert_ne!(output.status.code(), Some(0), "{from}");
            assert_clean_output(from, &output);
        }
    }
}

#[tokio::test]
async fn planted_secrets_are_in_no_reason_why_a_token_is_not_had() {
    let tokens = Receiver::start().await;
    let site = planted(&tokens).await;
    let said = r#"{"error":"canary-answer","error_description":"canary-answer"}"#;
    for answer in [
        Answer::reply(401, &[], said),
        Answer::reply(200, &[], said),
        Answer::reply(302, &[("location", "http://canary-answer/")], ""),
        Answer::raw(b"canary-answer\r\n\r\n"),
    ] {
        tokens.script([answer]);
        let output = site.campaignd(&["destination", "test", "sink"]).await;
        assert_eq!(output.status.code(), Some(5));
        assert_clean_output("test", &output);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&tokens.address().to_string()), "{text}");
    }
    assert_eq!(site.receiver.count(), 0);
}
