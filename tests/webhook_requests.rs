//! What leaves for a destination, byte by byte, and what is made of whatever
//! comes back.

#![cfg(test)]

use crate::support;

use bytes::Bytes;
use campaignd::delivery::{Outcome, Rejections};
use campaignd::id::{BatchPath, MessageId, RunId};
use campaignd::run::{Clock, Destination, Request, SystemClock};
use campaignd::webhook::{Auth, DestinationOptions, HttpDestination};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use std::sync::Arc;
use std::time::Duration;
use support::receiver::{Answer, Receiver, Recorded};
use tokio::net::TcpListener;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const BODY: &str = r#"{"data":{"members":[{"name":"Zoë"}]}}"#;

/// Long for a loopback answer, short for a test that waits it out.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

fn options(url: String) -> DestinationOptions {
    DestinationOptions {
        url,
        signing_secrets: vec![SECRET.into()],
        headers: Vec::new(),
        auth: None,
        tls_ca_file: None,
        client_certificate: None,
        timeout: LONG,
        max_in_flight: 4,
        allow_private_network: true,
        allow_http: true,
    }
}

fn request() -> Request {
    let run: RunId = "winback@20261122T140000Z".parse().unwrap();
    Request {
        id: MessageId::of(&run, &BatchPath::whole(1), 0),
        at: SystemClock.now(),
        body: Bytes::from_static(BODY.as_bytes()),
        rejected_at: None,
        content_type: "application/json",
        headers: Arc::from([]),
    }
}

async fn attempt(options: DestinationOptions) -> Outcome {
    let destination = HttpDestination::new(options).unwrap();
    destination.attempt(request()).await
}

/// One attempt against one scripted answer.
async fn attempt_against(answer: Answer, timeout: Duration) -> (Outcome, Receiver) {
    let receiver = Receiver::start().await;
    receiver.script([answer]);
    let options = DestinationOptions {
        timeout,
        ..options(receiver.url())
    };
    (attempt(options).await, receiver)
}

fn status(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Answered { status, .. } => *status,
        other => panic!("not answered: {other:?}"),
    }
}

#[track_caller]
fn assert_ambiguous(outcome: &Outcome, says: &str) {
    match outcome {
        Outcome::Ambiguous { reason } => assert!(reason.contains(says), "{reason}"),
        other => panic!("not ambiguous: {other:?}"),
    }
}

#[track_caller]
fn assert_not_sent(outcome: &Outcome, says: &str) {
    match outcome {
        Outcome::NotSent { reason } => assert!(reason.contains(says), "{reason}"),
        other => panic!("not a definite no: {other:?}"),
    }
}

/// As a receiver would do it, its clock included.
fn verifies(request: &Recorded, secret: &str) -> bool {
    let headers: HeaderMap = request
        .headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<Vec<_>>()
        .into_iter()
        .collect();
    let webhook = standardwebhooks::Webhook::new(secret).unwrap();
    webhook.verify(&request.body, &headers).is_ok()
}

#[tokio::test]
async fn a_request_has_the_promised_headers_and_no_others() {
    let receiver = Receiver::start().await;
    let request = request();
    let destination = HttpDestination::new(options(receiver.url())).unwrap();
    assert_eq!(status(&destination.attempt(request.clone()).await), 200);

    let [got] = receiver.requests().try_into().unwrap();
    assert_eq!(got.request_line, "POST /activate HTTP/1.1");
    assert_eq!(got.body, BODY.as_bytes());
    let expected = [
        ("content-type", "application/json".to_owned()),
        (
            "user-agent",
            concat!("campaignd/", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
        ("webhook-id", request.id.to_string()),
        ("idempotency-key", request.id.to_string()),
        ("webhook-timestamp", request.at.as_second().to_string()),
        ("content-length", BODY.len().to_string()),
        ("host", receiver.address().to_string()),
    ];
    for (name, value) in &expected {
        assert_eq!(got.header(name), Some(value.as_str()), "{name}");
    }
    let others = ["accept", "webhook-signature"];
    for (name, _) in &got.headers {
        let is_known = others.contains(&name.as_str()) || expected.iter().any(|(n, _)| n == name);
        assert!(is_known, "{name} was not promised");
    }
}

#[tokio::test]
async fn an_independent_implementation_verifies_the_signature() {
    let receiver = Receiver::start().await;
    attempt(options(receiver.url())).await;
    let [got] = receiver.requests().try_into().unwrap();
    assert!(verifies(&got, SECRET) && got.is_signed_with(SECRET));
    assert!(!verifies(&got, NEW_SECRET) && !got.is_signed_with(NEW_SECRET));
}

#[tokio::test]
async fn while_a_secret_is_being_replaced_both_verify() {
    let receiver = Receiver::start().await;
    let options = DestinationOptions {
        signing_secrets: vec![SECRET.into(), NEW_SECRET.into()],
        ..options(receiver.url())
    };
    attempt(options).await;
    let [got] = receiver.requests().try_into().unwrap();
    assert!(verifies(&got, SECRET) && verifies(&got, NEW_SECRET));
}

#[tokio::test]
async fn the_operators_headers_and_login_are_sent() {
    let receiver = Receiver::start().await;
    let basic = Auth::Basic {
        user: "ada".to_owned(),
        password: "pass:word".into(),
    };
    for auth in [Auth::Bearer("t0ken".into()), basic] {
        let options = DestinationOptions {
            headers: vec![("X-Workspace".to_owned(), "acme".into())],
            auth: Some(auth),
            ..options(receiver.url())
        };
        attempt(options).await;
    }
    let [bearer, basic] = receiver.requests().try_into().unwrap();
    assert_eq!(bearer.header("x-workspace"), Some("acme"));
    assert_eq!(bearer.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(
        basic.header("authorization"),
        Some("Basic YWRhOnBhc3M6d29yZA==")
    );
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let receiver = Receiver::start().await;
    let destination = HttpDestination::new(options(receiver.url())).unwrap();
    receiver.script([
        Answer::reply(200, &[], &"x".repeat(60_000)),
        Answer::status(503),
    ]);
    for expect in [200, 503, 200] {
        assert_eq!(status(&destination.attempt(request()).await), expect);
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn an_idle_connection_that_the_receiver_has_closed_costs_nothing() {
    let receiver = Receiver::start().await;
    let destination = HttpDestination::new(options(receiver.url())).unwrap();
    assert_eq!(status(&destination.attempt(request()).await), 200);
    let address = receiver.address();
    drop(receiver);
    let receiver = loop {
        // The port is free once the old receiver's task has seen its end.
        tokio::task::yield_now().await;
        if TcpListener::bind(address).await.is_ok() {
            break Receiver::start_at(address).await;
        }
    };
    assert_eq!(status(&destination.attempt(request()).await), 200);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Receiver::start().await;
    let url = elsewhere.url();
    for code in [301, 302, 303, 307, 308] {
        let answer = Answer::reply(code, &[("location", &url)], "");
        let (outcome, receiver) = attempt_against(answer, LONG).await;
        assert_eq!(status(&outcome), code);
        assert_eq!(receiver.count(), 1);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn nothing_is_ever_retried_here() {
    for answer in [
        Answer::status(503),
        Answer::status(408),
        Answer::reset(),
        Answer::close(),
    ] {
        let (_, receiver) = attempt_against(answer, LONG).await;
        assert_eq!(receiver.count(), 1);
    }
}

#[tokio::test]
async fn retry_after_is_read_and_clamped() {
    let cases = [
        ("120", Some(120)),
        ("315360000", Some(3600)),
        ("-5", None),
        ("soon", None),
    ];
    for (header, expect) in cases {
        let answer = Answer::reply(429, &[("retry-after", header)], "");
        let (outcome, _receiver) = attempt_against(answer, LONG).await;
        let expect = Outcome::Answered {
            status: 429,
            retry_after: expect.map(Duration::from_secs),
            rejections: Rejections::None,
        };
        assert_eq!(outcome, expect, "{header}");
    }
}

#[tokio::test]
async fn of_a_huge_answer_only_the_beginning_is_read() {
    let (outcome, receiver) = attempt_against(Answer::huge_body(1 << 30), LONG).await;
    assert_eq!(status(&outcome), 200);
    // What was sent fills the buffers between, and is read by nobody.
    assert!(receiver.sent() < 32 << 20, "{} bytes", receiver.sent());
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let (outcome, receiver) = attempt_against(Answer::endless_headers(), LONG).await;
    assert_ambiguous(&outcome, "not an HTTP answer");
    assert!(receiver.sent() < 32 << 20, "{} bytes", receiver.sent());
}

#[tokio::test]
async fn an_answer_that_dribbles_is_bounded_by_the_time_out() {
    let (outcome, _receiver) =
        attempt_against(Answer::dribble(Duration::from_secs(1)), SHORT).await;
    assert_ambiguous(&outcome, "within 300ms");
}

#[tokio::test]
async fn after_the_body_left_a_lost_connection_is_ambiguous() {
    for answer in [
        Answer::close(),
        Answer::reset(),
        Answer::half_a_status_line(),
        Answer::raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        Answer::raw(b"\0\0\0\0"),
        Answer::close().before_the_body(),
        Answer::reset().before_the_body(),
    ] {
        let shown = format!("{answer:?}");
        let (outcome, receiver) = attempt_against(answer, LONG).await;
        assert!(
            matches!(outcome, Outcome::Ambiguous { .. }),
            "{shown}: {outcome:?}"
        );
        assert_eq!(receiver.count(), 1, "{shown}");
    }
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_ambiguous_after_the_time_out() {
    let (outcome, receiver) = attempt_against(Answer::hang(), SHORT).await;
    assert_ambiguous(&outcome, "within 300ms");
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_is_still_an_answer() {
    let never = b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\nabc";
    let (outcome, _receiver) = attempt_against(Answer::raw(never), LONG).await;
    assert_eq!(status(&outcome), 202);
}

#[tokio::test]
async fn a_refused_connection_is_a_definite_no() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = attempt(options(format!("http://{address}/?token=s3cret"))).await;
    assert_not_sent(&outcome, &format!("{address} refuses connections"));
    assert!(!format!("{outcome:?}").contains("s3cret"));
}

#[tokio::test]
async fn an_unknown_name_is_a_definite_no() {
    let outcome = attempt(options("https://nowhere.invalid/".to_owned())).await;
    assert_not_sent(&outcome, "nowhere.invalid could not be resolved");
}

#[tokio::test]
async fn a_handshake_that_fails_is_a_definite_no() {
    let receiver = Receiver::start().await;
    let url = receiver.url().replace("http://", "https://");
    receiver.script([Answer::status(400)]);
    assert!(matches!(
        attempt(options(url)).await,
        Outcome::NotSent { .. }
    ));
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_definite_no() {
    // Accepted by the system, and never spoken to.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let options = DestinationOptions {
        timeout: SHORT,
        ..options(url)
    };
    assert_not_sent(&attempt(options).await, "in time");
}

#[tokio::test]
async fn a_private_address_is_not_dialled_unless_allowed() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    for host in [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::1]",
    ] {
        let options = DestinationOptions {
            allow_private_network: false,
            ..options(format!("http://{host}:{port}/"))
        };
        let refused = HttpDestination::new(options).unwrap_err().to_string();
        assert!(
            refused.contains("allow_private_network"),
            "{host}: {refused}"
        );
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_not_dialled() {
    let receiver = Receiver::start().await;
    for name in ["localhost", "LOCALHOST", "localhost."] {
        let options = DestinationOptions {
            allow_private_network: false,
            ..options(format!("http://{name}:{}/", receiver.address().port()))
        };
        let outcome = attempt(options).await;
        assert!(matches!(outcome, Outcome::NotSent { .. }), "{outcome:?}");
        if !name.ends_with('.') {
            assert_not_sent(&outcome, "is loopback");
        }
    }
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn the_metadata_address_is_refused_even_where_private_networks_are_allowed() {
    for host in [
        "169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "[fd00:ec2::254]",
        "0xa9fea9fe",
    ] {
        let refused = HttpDestination::new(options(format!("http://{host}/latest")));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("never dialled"), "{host}: {refused}");
    }
}

#[test]
fn what_the_operator_laid_down_wrong_is_said_without_secrets() {
    type Change = fn(&mut DestinationOptions);
    let cases: [(Change, &str); 9] = [
        (
            |o| o.url = "hooks.example/s3cret".to_owned(),
            "its `url` is not one",
        ),
        (
            |o| o.url = "ftp://hooks.example/s3cret".to_owned(),
            "must begin with `https://`",
        ),
        (
            |o| o.url = "https://u:s3cret@hooks.example/".to_owned(),
            "use `auth`",
        ),
        (|o| o.allow_http = false, "set `allow_http: true`"),
        (
            |o| o.signing_secrets = Vec::new(),
            "`signing_secrets` are empty",
        ),
        (
            |o| o.signing_secrets = vec!["whsec_s3cret".into()],
            "the signing secret",
        ),
        (
            |o| o.headers = vec![("Webhook-Id".to_owned(), "s3cret".into())],
            "campaignd itself",
        ),
        (
            |o| o.headers = vec![("X-A".to_owned(), "s3\ncret".into())],
            "header `X-A` has a value",
        ),
        (
            |o| o.tls_ca_file = Some("/nowhere.pem".into()),
            "`tls_ca_file` /nowhere.pem",
        ),
    ];
    for (change, says) in cases {
        let mut options = options("http://127.0.0.1/s3cret".to_owned());
        change(&mut options);
        let error = HttpDestination::new(options).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(says), "{says}: {shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn the_timestamp_is_each_attempts_own_and_the_rest_stays() {
    let receiver = Receiver::start().await;
    let destination = HttpDestination::new(options(receiver.url())).unwrap();
    for at in ["2026-11-22T14:00:00Z", "2026-11-22T14:00:07Z"] {
        let at: Timestamp = at.parse().unwrap();
        destination.attempt(Request { at, ..request() }).await;
    }
    let [first, second] = receiver.requests().try_into().unwrap();
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    assert_eq!(first.header("webhook-timestamp"), Some("1795356000"));
    assert_eq!(second.header("webhook-timestamp"), Some("1795356007"));
    assert!(first.is_signed_with(SECRET) && second.is_signed_with(SECRET));
}
