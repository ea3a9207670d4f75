//! Requests under tokens: fetched once, kept while they hold, replaced when
//! they are refused.

#![cfg(test)]

use crate::support;

use bytes::Bytes;
use campaignd::delivery::{Outcome, Rejections};
use campaignd::id::{BatchPath, MessageId, RunId};
use campaignd::run::{Clock, Destination, Request, SystemClock};
use campaignd::webhook::{Auth, DestinationOptions, HttpDestination, OAuth2};
use std::time::Duration;
use support::receiver::{Answer, Receiver};
use support::site::SIGNING_SECRET;

fn options(receiver: &Receiver, tokens: &Receiver) -> DestinationOptions {
    DestinationOptions {
        url: receiver.url(),
        signing_secrets: vec![SIGNING_SECRET.into()],
        headers: vec![("X-Workspace".to_owned(), "h3ader".into())],
        auth: Some(Auth::OAuth2(OAuth2 {
            token_url: tokens.url().replace("/activate", "/token?tenant=t3nant"),
            client_id: "campaigns:eu".to_owned(),
            client_secret: "s3cret/+".into(),
            scope: Some("send write".to_owned()),
        })),
        tls_ca_file: None,
        client_certificate: None,
        timeout: Duration::from_secs(20),
        max_in_flight: 8,
        allow_private_network: true,
        allow_http: true,
    }
}

fn request() -> Request {
    let run: RunId = "winback@20261122T140000Z".parse().unwrap();
    Request {
        id: MessageId::of(&run, &BatchPath::whole(1), 0),
        at: SystemClock.now(),
        body: Bytes::from_static(b"{}"),
        rejected_at: None,
        content_type: "application/json",
        headers: std::sync::Arc::from([]),
    }
}

fn token(name: &str, expires_in: u64) -> Answer {
    let body =
        format!(r#"{{"access_token":"{name}","token_type":"Bearer","expires_in":{expires_in}}}"#);
    Answer::reply(200, &[("content-type", "application/json")], &body)
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after: None,
        rejections: Rejections::None,
    }
}

#[track_caller]
fn assert_not_sent(outcome: &Outcome, host: &str, says: &str) {
    let Outcome::NotSent { reason } = outcome else {
        panic!("not a definite no: {outcome:?}");
    };
    assert!(reason.contains(says) && reason.contains(host), "{reason}");
    for secret in ["s3cret", "h3ader", "t3nant"] {
        assert!(!reason.contains(secret), "{reason}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_as_the_rfc_says_and_sent_along() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    tokens.script([token("t0ken", 3600)]);
    let destination = HttpDestination::new(options(&receiver, &tokens)).unwrap();
    assert!(!format!("{destination:?}").contains("s3cret"));
    for _ in 0..3 {
        assert_eq!(destination.attempt(request()).await, answered(200));
    }
    let [asked] = tokens.requests().try_into().unwrap();
    assert_eq!(asked.request_line, "POST /token?tenant=t3nant HTTP/1.1");
    assert_eq!(
        asked.header("authorization"),
        Some("Basic Y2FtcGFpZ25zJTNBZXU6czNjcmV0JTJGJTJC")
    );
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(
        asked.body,
        b"grant_type=client_credentials&scope=send+write"
    );
    // What is for the receiver is not for the token host.
    assert_eq!(asked.header("x-workspace"), None);
    assert_eq!(asked.header("webhook-signature"), None);
    for sent in receiver.requests() {
        assert_eq!(sent.header("authorization"), Some("Bearer t0ken"));
        assert_eq!(sent.header("x-workspace"), Some("h3ader"));
    }
}

#[tokio::test]
async fn all_who_wait_get_the_one_token() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    tokens.rule(|_| token("t0ken", 3600).after(Duration::from_millis(100)));
    let destination = HttpDestination::new(options(&receiver, &tokens)).unwrap();
    let all = (0..8).map(|_| destination.attempt(request()));
    let outcomes = futures_util::future::join_all(all).await;
    assert_eq!(outcomes, vec![answered(200); 8]);
    assert_eq!((tokens.count(), receiver.count()), (1, 8));
}

#[tokio::test]
async fn all_who_wait_get_the_one_failure() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    tokens.rule(|_| Answer::status(503).after(Duration::from_millis(100)));
    let destination = HttpDestination::new(options(&receiver, &tokens)).unwrap();
    let all = (0..8).map(|_| destination.attempt(request()));
    let host = tokens.address().to_string();
    for outcome in futures_util::future::join_all(all).await {
        assert_not_sent(&outcome, &host, "it answered 503");
    }
    assert_eq!((tokens.count(), receiver.count()), (1, 0));
    // The next one asks anew.
    tokens.rule(|_| token("t0ken", 3600));
    assert_eq!(destination.attempt(request()).await, answered(200));
}

#[tokio::test]
async fn a_refused_token_is_replaced_within_the_attempt() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    tokens.script([token("old", 3600), token("new", 3600)]);
    receiver.script([Answer::status(401)]);
    let destination = HttpDestination::new(options(&receiver, &tokens)).unwrap();
    assert_eq!(destination.attempt(request()).await, answered(200));
    assert_eq!(destination.attempt(request()).await, answered(200));
    let [first, second, third] = receiver.requests().try_into().unwrap();
    assert_eq!(first.header("authorization"), Some("Bearer old"));
    assert_eq!(second.header("authorization"), Some("Bearer new"));
    assert_eq!(third.header("authorization"), Some("Bearer new"));
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    assert!(second.is_signed_with(SIGNING_SECRET));
    assert_eq!(tokens.count(), 2);
}

#[tokio::test]
async fn a_second_401_is_the_answer() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    tokens.rule(|_| token("t0ken", 3600));
    receiver.rule(|_| Answer::status(401));
    let destination = HttpDestination::new(options(&receiver, &tokens)).unwrap();
    assert_eq!(destination.attempt(request()).await, answered(401));
    assert_eq!((tokens.count(), receiver.count()), (2, 2));
}

#[tokio::test]
async fn after_a_401_a_lost_answer_is_still_ambiguous() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    tokens.rule(|_| token("t0ken", 3600));
    receiver.script([Answer::status(401), Answer::close()]);
    let destination = HttpDestination::new(options(&receiver, &tokens)).unwrap();
    let outcome = destination.attempt(request()).await;
    assert!(matches!(outcome, Outcome::Ambiguous { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_token_that_is_over_is_fetched_anew() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    tokens.rule(|_| token("short", 0));
    let destination = HttpDestination::new(options(&receiver, &tokens)).unwrap();
    for _ in 0..2 {
        assert_eq!(destination.attempt(request()).await, answered(200));
    }
    assert_eq!(tokens.count(), 2);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_reason_names_the_host() {
    let cases = [
        (
            Answer::reply(
                401,
                &[],
                r#"{"error":"invalid_client","error_description":"s3cret"}"#,
            ),
            "(invalid_client); check `client_id`",
        ),
        (
            Answer::reply(302, &[("location", "http://127.0.0.1:9/")], ""),
            "never followed; set `token_url`",
        ),
        (Answer::reply(200, &[], "<html>s3cret</html>"), "not JSON"),
        (Answer::huge_body(1 << 30), "too long"),
        (Answer::endless_headers(), "not an HTTP answer"),
        (Answer::close(), "closed the connection"),
        (Answer::hang(), "within 1s"),
        (Answer::dribble(Duration::from_secs(1)), "1s"),
    ];
    for (answer, says) in cases {
        let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
        tokens.script([answer]);
        let mut options = options(&receiver, &tokens);
        // Longer than a fetch by itself, which ends with the attempt's time.
        if says.contains("1s") {
            options.timeout = Duration::from_secs(1);
        }
        let destination = HttpDestination::new(options).unwrap();
        let outcome = destination.attempt(request()).await;
        let says = if says.contains("1s") {
            "no token from"
        } else {
            says
        };
        assert_not_sent(&outcome, &tokens.address().to_string(), says);
        assert_eq!(receiver.connections(), 0, "{says}");
        assert_eq!(tokens.count(), 1, "{says}");
    }
}

#[tokio::test]
async fn the_token_url_is_behind_the_same_guard() {
    let (receiver, tokens) = (Receiver::start().await, Receiver::start().await);
    for (token_url, says) in [
        ("http://169.254.169.254/token", "never dialled"),
        ("ftp://127.0.0.1/s3cret", "its `token_url` must begin with"),
        (
            "https://u:s3cret@127.0.0.1/",
            "its `token_url` must not hold",
        ),
        ("s3cret", "its `token_url` is not one"),
    ] {
        let mut options = options(&receiver, &tokens);
        if let Some(Auth::OAuth2(oauth2)) = &mut options.auth {
            oauth2.token_url = token_url.to_owned();
        }
        let refused = HttpDestination::new(options).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        assert!(!refused.contains("s3cret"), "{refused}");
    }
    // A name is judged when it is dialled.
    let mut options = options(&receiver, &tokens);
    options.url = "https://hooks.invalid/".to_owned();
    options.allow_private_network = false;
    if let Some(Auth::OAuth2(oauth2)) = &mut options.auth {
        oauth2.token_url = format!("http://localhost:{}/", tokens.address().port());
    }
    let destination = HttpDestination::new(options).unwrap();
    let outcome = destination.attempt(request()).await;
    assert_not_sent(&outcome, "localhost", "is loopback");
    assert_eq!(tokens.connections(), 0);
}
