//! Answers that are odd, endless, or none at all: bounded, and told apart.

#![cfg(test)]

use crate::support;

use bytes::Bytes;
use campaignd::delivery::Outcome;
use campaignd::id::{BatchPath, MessageId, RunId};
use campaignd::run::{Clock, Destination, Request, SystemClock};
use campaignd::webhook::{DestinationOptions, HttpDestination};
use std::time::Duration;
use support::receiver::{Answer, Receiver};
use support::site::SIGNING_SECRET;

const LONG: Duration = Duration::from_secs(20);

async fn attempt_against(answer: Answer, timeout: Duration) -> (Outcome, Receiver) {
    let receiver = Receiver::start().await;
    receiver.script([answer]);
    let destination = HttpDestination::new(DestinationOptions {
        url: receiver.url(),
        signing_secrets: vec![SIGNING_SECRET.into()],
        headers: Vec::new(),
        auth: None,
        tls_ca_file: None,
        client_certificate: None,
        timeout,
        max_in_flight: 1,
        allow_private_network: true,
        allow_http: true,
    })
    .unwrap();
    let run: RunId = "winback@20261122T140000Z".parse().unwrap();
    let request = Request {
        id: MessageId::of(&run, &BatchPath::whole(1), 0),
        at: SystemClock.now(),
        body: Bytes::from_static(b"{}"),
        rejected_at: None,
        content_type: "application/json",
        headers: std::sync::Arc::from([]),
    };
    let outcome = destination.attempt(request).await;
    assert_eq!(receiver.count(), 1, "one request, whatever the answer");
    (outcome, receiver)
}

#[tokio::test]
async fn an_answer_counts_by_its_status_line() {
    for (bytes, expect) in [
        (&b"HTTP/1.0 200 OK\r\n\r\n"[..], 200),
        (b"HTTP/1.0 503 Busy\r\n\r\nno length", 503),
        (b"HTTP/1.1 202\r\ncontent-length: 0\r\n\r\n", 202),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 2\r\n\r\n\0\0",
            200,
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a chunk",
            200,
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            200,
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 429 Wait\r\ncontent-length: 0\r\n\r\n",
            429,
        ),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", 410),
        (b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n", 999),
    ] {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let (outcome, _receiver) = attempt_against(Answer::raw(bytes), LONG).await;
        match outcome {
            Outcome::Answered { status, .. } => assert_eq!(status, expect, "{shown}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_is_ambiguous() {
    for bytes in [
        &b"HTTP/1.1 2000 Long\r\n\r\n"[..],
        b"HTTP/1.1 abc What\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"200 OK\r\n\r\n",
        b"<html>Sign in to this network</html>",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
    ] {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let (outcome, _receiver) = attempt_against(Answer::raw(bytes), LONG).await;
        let is_odd = matches!(
            outcome,
            Outcome::Ambiguous { .. } | Outcome::Answered { status: 101, .. }
        );
        assert!(is_odd, "{shown}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_flood_of_provisional_answers_is_bounded_by_the_time_out() {
    let flood = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(20_000);
    let timeout = Duration::from_millis(500);
    let (outcome, _receiver) = attempt_against(Answer::stalling(&flood), timeout).await;
    assert!(matches!(outcome, Outcome::Ambiguous { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_body_that_stalls_after_its_status_line_is_bounded_by_the_time_out() {
    let stalls = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc";
    let timeout = Duration::from_millis(500);
    let (outcome, _receiver) = attempt_against(Answer::stalling(stalls), timeout).await;
    let is_accepted = matches!(outcome, Outcome::Answered { status: 200, .. });
    assert!(is_accepted, "{outcome:?}");
}
