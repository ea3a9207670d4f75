//! Receivers behind TLS: whom we trust, what we show, and what is said when
//! that does not fit.

#![cfg(test)]

use crate::support;

use bytes::Bytes;
use campaignd::delivery::Outcome;
use campaignd::id::{BatchPath, MessageId, RunId};
use campaignd::run::{Clock, Destination, Request, SystemClock};
use campaignd::webhook::{ClientCertificate, DestinationOptions, HttpDestination, WebhookError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::receiver::Receiver;
use support::site::{SIGNING_SECRET, Site};
use support::tls::{Authority, Pair, TlsFront, self_signed};
use tempfile::TempDir;

/// A receiver behind TLS, and the files of whoever sends to it.
struct Place {
    receiver: Receiver,
    front: TlsFront,
    files: TempDir,
}

impl Place {
    async fn new(own: &Pair, clients: Option<&Authority>) -> Self {
        let receiver = Receiver::start().await;
        let front = TlsFront::before(receiver.address(), own, clients).await;
        let files = tempfile::tempdir().unwrap();
        Self {
            receiver,
            front,
            files,
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        write(self.files.path(), name, text)
    }

    fn options(&self, trusted: &Authority) -> DestinationOptions {
        DestinationOptions {
            url: format!("https://localhost:{}/activate", self.front.port()),
            signing_secrets: vec![SIGNING_SECRET.into()],
            headers: Vec::new(),
            auth: None,
            tls_ca_file: Some(self.write("ca.pem", &trusted.cert)),
            client_certificate: None,
            timeout: Duration::from_secs(20),
            max_in_flight: 1,
            allow_private_network: true,
            allow_http: false,
        }
    }

    fn showing(&self, trusted: &Authority, own: &Pair) -> DestinationOptions {
        DestinationOptions {
            client_certificate: Some(ClientCertificate {
                cert_file: self.write("client.pem", &own.cert),
                key_file: self.write("client.key", &own.key),
            }),
            ..self.options(trusted)
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn attempt(options: DestinationOptions) -> Outcome {
    let run: RunId = "winback@20261122T140000Z".parse().unwrap();
    let request = Request {
        id: MessageId::of(&run, &BatchPath::whole(1), 0),
        at: SystemClock.now(),
        body: Bytes::from_static(b"{}"),
        rejected_at: None,
        content_type: "application/json",
        headers: std::sync::Arc::from([]),
    };
    let destination = HttpDestination::new(options).unwrap();
    destination.attempt(request).await
}

#[track_caller]
fn assert_accepted(outcome: &Outcome) {
    let is_accepted = matches!(outcome, Outcome::Answered { status: 200, .. });
    assert!(is_accepted, "{outcome:?}");
}

#[track_caller]
fn assert_not_sent(outcome: &Outcome, says: &str) {
    let Outcome::NotSent { reason } = outcome else {
        panic!("not a definite no: {outcome:?}");
    };
    assert!(reason.contains(says), "{reason}");
    assert!(
        reason.contains("no TLS connection to localhost:"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_root_of_the_operators_own_is_trusted() {
    let authority = Authority::new();
    let place = Place::new(&authority.sign("localhost", 4000), None).await;
    assert_accepted(&attempt(place.options(&authority)).await);
    assert_eq!(place.receiver.count(), 1);
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_a_definite_no_that_says_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let cases = [
        (
            authority.sign("localhost", 2020),
            "has expired; its owner must renew it",
        ),
        (
            authority.sign("elsewhere.example", 4000),
            "is for another name; check the host",
        ),
        (
            other.sign("localhost", 4000),
            "signed by nobody we trust; a private root goes into `tls_ca_file`",
        ),
        (self_signed("localhost"), "nobody we trust"),
    ];
    for (own, says) in cases {
        let place = Place::new(&own, None).await;
        assert_not_sent(&attempt(place.options(&authority)).await, says);
        assert_eq!(place.receiver.connections(), 0, "{says}");
    }
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_apart() {
    let authority = Authority::new();
    let place = Place::new(&authority.sign("localhost", 4000), None).await;
    let mut options = place.options(&authority);
    options.url = format!("https://localhost:{}/", place.receiver.address().port());
    place
        .receiver
        .rule(|_| support::receiver::Answer::status(400));
    let outcome = attempt(options).await;
    assert!(matches!(outcome, Outcome::NotSent { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_receiver_that_asks_is_shown_our_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let place = Place::new(&authority.sign("localhost", 4000), Some(&clients)).await;
    let own = clients.sign("campaignd.example", 4000);
    assert_accepted(&attempt(place.showing(&authority, &own)).await);
    assert_eq!(place.receiver.count(), 1);
}

#[tokio::test]
async fn without_the_certificate_a_receiver_wants_nothing_arrives() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let place = Place::new(&authority.sign("localhost", 4000), Some(&clients)).await;
    for options in [
        place.options(&authority),
        place.showing(&authority, &self_signed("campaignd.example")),
        place.showing(&authority, &clients.sign("campaignd.example", 2020)),
    ] {
        let outcome = attempt(options).await;
        // In TLS 1.3 the refusal may be lost behind the request.
        let is_sound = match &outcome {
            Outcome::NotSent { reason } => reason.contains("client certificate"),
            Outcome::Ambiguous { .. } => true,
            Outcome::Answered { .. } => false,
        };
        assert!(is_sound, "{outcome:?}");
        assert_eq!(place.receiver.connections(), 0);
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_the_reason() {
    let authority = Authority::new();
    let place = Place::new(&authority.sign("localhost", 4000), None).await;
    let (own, other) = (
        authority.sign("a.example", 4000),
        authority.sign("b.example", 4000),
    );
    type Change = fn(&mut DestinationOptions, &Pair);
    let cases: [(Change, &str, &str); 7] = [
        (
            |o, _| std::fs::remove_file(cert_of(o)).unwrap(),
            "`client_cert_file`",
            "No such file",
        ),
        (
            |o, _| std::fs::write(cert_of(o), "s3cret").unwrap(),
            "`client_cert_file`",
            "no PEM certificate",
        ),
        (
            |o, _| std::fs::remove_file(key_of(o)).unwrap(),
            "`client_key_file`",
            "No such file",
        ),
        (
            |o, _| std::fs::write(key_of(o), "s3cret").unwrap(),
            "`client_key_file`",
            "no PEM private key",
        ),
        (
            |o, other| std::fs::write(key_of(o), &other.key).unwrap(),
            "`client_key_file`",
            "not the key of the certificate",
        ),
        (
            |o, _| std::fs::write(o.tls_ca_file.as_ref().unwrap(), "s3cret").unwrap(),
            "`tls_ca_file`",
            "no PEM certificate",
        ),
        (
            |o, _| {
                let unsound = "-----BEGIN CERTIFICATE-----\nczNjcmV0\n-----END CERTIFICATE-----\n";
                std::fs::write(o.tls_ca_file.as_ref().unwrap(), unsound).unwrap();
            },
            "`tls_ca_file`",
            "not sound",
        ),
    ];
    for (change, key, says) in cases {
        let options = place.showing(&authority, &own);
        let mut options = options;
        change(&mut options, &other);
        let error: WebhookError = HttpDestination::new(options).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(key) && shown.contains(says), "{shown}");
        let folder = place.files.path().to_str().unwrap();
        assert!(shown.contains(folder), "{shown}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

fn cert_of(options: &DestinationOptions) -> &Path {
    &options.client_certificate.as_ref().unwrap().cert_file
}

fn key_of(options: &DestinationOptions) -> &Path {
    &options.client_certificate.as_ref().unwrap().key_file
}

/// What `destination test` says of a receiver behind TLS with these roots in
/// the system and this one in `tls_ca_file`.
async fn tested(place: &Place, system: &str, own: Option<&Authority>) -> serde_json::Value {
    let site = Site::sqlite().await;
    let url = format!("https://localhost:{}/activate", place.front.port());
    let mut settings = site.settings().replace(&site.receiver.url(), &url);
    if let Some(authority) = own {
        site.write("ca.pem", &authority.cert);
        settings = settings.replace("timeout: 2s", "timeout: 2s\n    tls_ca_file: ./ca.pem");
    }
    site.write("campaignd.yaml", &settings);
    let system = site.write("system.pem", system);
    let output = site
        .command(&["destination", "test", "sink", "--format", "json"])
        .env("SSL_CERT_FILE", system)
        .env("SSL_CERT_DIR", site.path().join("nowhere"))
        .output()
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn tls_ca_file_adds_to_the_systems_roots_and_works_without_any() {
    let (system, own) = (Authority::new(), Authority::new());
    let place = Place::new(&system.sign("localhost", 4000), None).await;
    let report = tested(&place, &system.cert, Some(&own)).await;
    assert_eq!(report["accepted"], true, "{report}");
    let place = Place::new(&own.sign("localhost", 4000), None).await;
    for roots in [system.cert.as_str(), ""] {
        let report = tested(&place, roots, Some(&own)).await;
        assert_eq!(report["accepted"], true, "{report}");
    }
    let report = tested(&place, &system.cert, None).await;
    assert_eq!(report["accepted"], false, "{report}");
    assert!(
        report["verdict"].as_str().unwrap().contains("tls_ca_file"),
        "{report}"
    );
}
