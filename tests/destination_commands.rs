//! `campaignd destination`, by the built program.

#![cfg(test)]

use crate::support;

use serde_json::Value;
use support::receiver::Answer;
use support::site::{SIGNING_SECRET, Site};
use support::tls::{Authority, TlsFront};
use tokio::net::TcpListener;

#[tokio::test]
async fn the_list_shows_hosts_and_states_and_no_paths() {
    let site = Site::sqlite().await;
    let settings = site.settings().replace("/activate", "/activate?key=s3cret");
    site.write("campaignd.yaml", &settings);
    let shown = site.json(&["destination", "list"]).await;
    let host = format!("http://{}", site.receiver.address());
    assert_eq!(shown[0]["destination"], "sink");
    assert_eq!(shown[0]["host"], host);
    assert_eq!(shown[0]["channel"], "email");
    assert_eq!(shown[0]["state"], "ready");

    site.json(&["pause", "--destination", "sink"]).await;
    let text = site.campaignd(&["destination", "list"]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("paused") && text.contains(&host), "{text}");
    assert!(!format!("{text}{shown}").contains("s3cret"), "{text}");
}

#[tokio::test]
async fn a_test_message_is_signed_and_says_that_it_is_one() {
    let site = Site::sqlite().await;
    let report = site.json(&["destination", "test", "sink"]).await;
    assert_eq!(report["status"], 200);
    assert_eq!(report["accepted"], true);
    assert_eq!(report["addresses"][0]["address"], "127.0.0.1");
    let [sent] = site.receiver.requests().try_into().unwrap();
    assert!(sent.is_signed_with(SIGNING_SECRET));
    assert_eq!(report["webhook_id"], sent.id());
    let body = sent.json();
    assert_eq!(body["type"], "campaign.activation");
    assert_eq!(body["data"]["test"], true);
    assert!(!site.path().join("state.db").exists());

    // Each is a message of its own.
    site.json(&["destination", "test", "sink"]).await;
    let [first, second] = site.receiver.requests().try_into().unwrap();
    assert_ne!(first.id(), second.id());
}

#[tokio::test]
async fn what_is_wrong_is_said_in_words_with_exit_code_5() {
    let site = Site::sqlite().await;
    for (answer, says) in [
        (Answer::status(401), "check its `auth`"),
        (Answer::status(400), "refused: it answered 400"),
        (Answer::status(429), "not now"),
        (Answer::status(503), "unclear"),
        (Answer::close(), "may have arrived"),
    ] {
        site.receiver.script([answer]);
        let output = site.campaignd(&["destination", "test", "sink"]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(text.contains(says), "{text}");
    }
    let usual = site.settings();
    for (from, to, says) in [
        ("127.0.0.1", "nobody.invalid", "could not be resolved"),
        (SIGNING_SECRET, "${env:NOT_THERE}", "NOT_THERE"),
        (
            "timeout: 2s",
            "timeout: 2s\n    tls_ca_file: ./nothing.pem",
            "nothing.pem",
        ),
    ] {
        site.write("campaignd.yaml", &usual.replace(from, to));
        let output = site.campaignd(&["destination", "test", "sink"]).await;
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.contains(says), "{said}");
    }
    let output = site.campaignd(&["destination", "test", "sunk"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    let site = Site::sqlite().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut command = site.command(&["destination", "test", "sink", "--format", "json"]);
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env(name, &address);
    }
    let output = command.output().await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["accepted"], true, "{report}");
    assert_eq!(site.receiver.count(), 1);
    let asked = tokio::select! {
        biased;
        _ = proxy.accept() => true,
        () = std::future::ready(()) => false,
    };
    assert!(!asked);
}

#[tokio::test]
async fn the_list_shows_rate_limits() {
    let site = Site::sqlite().await;
    let list = site.json(&["destination", "list"]).await;
    assert_eq!(list[0]["rate_limit"], Value::Null);
    let settings = site.settings();
    let limited = settings.replace("timeout: 2s", "timeout: 2s\n    rate_limit: 600/min");
    site.write("campaignd.yaml", &limited);
    let list = site.json(&["destination", "list"]).await;
    assert_eq!(list[0]["rate_limit"], "600/min");
    let text = site.campaignd(&["destination", "list"]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("600/min"), "{text}");
}

#[tokio::test]
async fn a_test_message_has_the_form_of_its_destination() {
    for (format, content_type, body) in [
        (
            "ndjson",
            "application/x-ndjson",
            "{\"id\":\"test-member\",\"email\":\"test-member@example.invalid\"}\n",
        ),
        (
            "form",
            "application/x-www-form-urlencoded",
            "id=test-member&email=test-member%40example.invalid&test=true",
        ),
    ] {
        let site = Site::sqlite().await;
        let formed = format!("timeout: 2s\n    format: {format}");
        site.write(
            "campaignd.yaml",
            &site.settings().replace("timeout: 2s", &formed),
        );
        let report = site.json(&["destination", "test", "sink"]).await;
        assert_eq!(report["tls"], Value::Null);
        let [sent] = site.receiver.requests().try_into().unwrap();
        assert!(sent.is_signed_with(SIGNING_SECRET));
        assert_eq!(sent.header("content-type"), Some(content_type));
        assert_eq!(String::from_utf8_lossy(&sent.body), body);
        let mark = sent.header("campaignd-test");
        assert_eq!(mark.is_some(), format == "ndjson");
    }
}

#[tokio::test]
async fn a_test_says_which_tls_is_spoken_and_whose_certificate_is_shown_trusted_or_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (own, accepted) in [
        (authority.sign("localhost", 4000), true),
        (other.sign("localhost", 2020), false),
    ] {
        let site = Site::sqlite().await;
        let front = TlsFront::before(site.receiver.address(), &own, None).await;
        let url = format!("https://localhost:{}/activate", front.port());
        let settings = site.settings().replace(&site.receiver.url(), &url);
        site.write("ca.pem", &authority.cert);
        let settings = settings.replace("timeout: 2s", "timeout: 2s\n    tls_ca_file: ./ca.pem");
        site.write("campaignd.yaml", &settings);
        let args = ["destination", "test", "sink", "--format", "json"];
        let output = site.campaignd(&args).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["accepted"], accepted, "{report}");
        assert_eq!(report["tls"]["version"], "1.3", "{report}");
        let issuer = report["tls"]["issuer"].as_str().unwrap();
        assert!(issuer.contains("root "), "{report}");
        let year = if accepted { "4000" } else { "2020" };
        let expires = report["tls"]["expires"].as_str().unwrap();
        assert!(expires.starts_with(year), "{report}");
        assert_eq!(site.receiver.count(), usize::from(accepted));
        let text = site.campaignd(&args[..3]).await;
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains(issuer), "{text}");
        assert_eq!(text.contains("sound and trusted"), accepted, "{text}");
    }
}
