//! Members refused one by one: what is read of an answer that accepts the
//! rest of their batch.

#![cfg(test)]

use crate::support;

use bytes::Bytes;
use campaignd::delivery::{Outcome, Rejections};
use campaignd::id::{BatchPath, MessageId, RunId};
use campaignd::run::{Clock, Destination, Request, SystemClock};
use campaignd::webhook::{DestinationOptions, HttpDestination};
use std::time::Duration;
use support::receiver::{Answer, Receiver};
use support::site::SIGNING_SECRET;

const LONG: Duration = Duration::from_secs(20);

/// What is made of `answer`, and after how many bytes of it.
async fn read(answer: Answer, timeout: Duration) -> (u16, Rejections, u64) {
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
        rejected_at: Some("/rejected".into()),
        content_type: "application/json",
        headers: std::sync::Arc::from([]),
    };
    match destination.attempt(request).await {
        Outcome::Answered {
            status, rejections, ..
        } => (status, rejections, receiver.sent()),
        other => panic!("not answered: {other:?}"),
    }
}

#[track_caller]
fn assert_unreadable(found: &Rejections, says: &str) {
    match found {
        Rejections::Unreadable(why) => assert!(why.contains(says), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_list_is_read_whatever_the_answer_says_it_is() {
    let body = r#"{"rejected":[{"key":"a","reason":"gone"},{"key":7}]}"#;
    for content_type in ["application/json", "text/html", "image/png"] {
        let answer = Answer::reply(202, &[("content-type", content_type)], body);
        let (status, found, _) = read(answer, LONG).await;
        let Rejections::List(members) = found else {
            panic!("{content_type}: {found:?}");
        };
        let shown: Vec<_> = members.iter().map(|m| (&*m.key, &*m.reason)).collect();
        assert_eq!((status, shown), (202, vec![("a", "gone"), ("7", "")]));
    }
}

#[tokio::test]
async fn a_list_longer_than_64_kib_is_read_whole() {
    let keys: Vec<u32> = (0..20_000).collect();
    let body = serde_json::json!({ "rejected": keys }).to_string();
    let (_, found, _) = read(Answer::reply(200, &[], &body), LONG).await;
    assert_eq!(format!("{found:?}"), "List(20000 members)");
}

#[tokio::test]
async fn only_an_answer_that_accepts_is_asked_for_members() {
    let body = r#"{"rejected":["a"]}"#;
    for code in [400, 422, 503, 302] {
        let (status, found, _) = read(Answer::reply(code, &[], body), LONG).await;
        assert_eq!((status, found), (code, Rejections::None));
    }
}

#[tokio::test]
async fn what_goes_wrong_after_the_status_line_does_not_take_it_back() {
    let (status, found, sent) = read(Answer::huge_body(1 << 30), LONG).await;
    assert_eq!(status, 200);
    assert_unreadable(&found, "longer than 1 MiB");
    assert!(sent < 32 << 20, "{sent} bytes");

    let broken = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"rejected\":[";
    for answer in [Answer::stalling(broken), Answer::raw(broken)] {
        let (status, found, _) = read(answer, Duration::from_millis(500)).await;
        assert_eq!(status, 200);
        assert_unreadable(&found, "broke off");
    }
    let (status, found, _) = read(Answer::reply(200, &[], "OK"), LONG).await;
    assert_eq!(status, 200);
    assert_unreadable(&found, "not JSON");
}

#[tokio::test]
async fn an_answer_without_a_list_refuses_nobody() {
    for body in ["", "{}", r#"{"rejected":[]}"#] {
        let (status, found, _) = read(Answer::reply(200, &[], body), LONG).await;
        assert_eq!((status, found), (200, Rejections::None), "{body}");
    }
    let (status, found, _) = read(Answer::status(204), LONG).await;
    assert_eq!((status, found), (204, Rejections::None));
}
