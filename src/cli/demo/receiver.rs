//! The demo's destination: a small receiver on loopback that checks
//! signatures, counts, and now and then is busy, so that a retry is seen.

use crate::delivery::SigningKey;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Every so many batches, one is answered 503 the first time it comes.
const BUSY_EVERY: usize = 7;

/// Twice what the daemon sends at most.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// What the receiver has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ReceiverCounts {
    /// Requests, whatever they were answered.
    pub requests: u64,
    /// Batches accepted, each once.
    pub batches: u64,
    /// Members in them.
    pub members: u64,
    /// Batches that came again after they had been accepted.
    pub repeated: u64,
    /// Requests answered 503.
    pub busy: u64,
    /// Requests whose signature did not verify, or that were not a batch.
    pub refused: u64,
}

/// The running receiver; it ends when this is dropped.
pub(super) struct DemoReceiver {
    address: SocketAddr,
    book: Arc<Book>,
    end: DropGuard,
    tasks: TaskTracker,
}

impl DemoReceiver {
    /// Listens on a free loopback port for requests signed with `key`.
    pub(super) async fn start(key: SigningKey) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let book = Arc::new(Book {
            key,
            pages: Mutex::default(),
        });
        let router = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(book.clone());
        let end = CancellationToken::new();
        let tasks = TaskTracker::new();
        let ended = end.clone().cancelled_owned();
        tasks.spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(ended)
                .await
        });
        Ok(Self {
            address,
            book,
            end: end.drop_guard(),
            tasks,
        })
    }

    /// Where it listens; any path will do.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has seen so far.
    pub(super) fn counts(&self) -> ReceiverCounts {
        self.book.pages().counts
    }

    /// Ends it, once the connections to it are closed.
    pub(super) async fn stop(self) {
        drop(self.end);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

struct Book {
    key: SigningKey,
    /// Never held across an await.
    pages: Mutex<Pages>,
}

/// Grows with the demo's batches, of which there are some hundreds.
#[derive(Default)]
struct Pages {
    counts: ReceiverCounts,
    seen: HashSet<String>,
    accepted: HashSet<String>,
}

impl Book {
    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The little of a batch that is looked at. A body of the campaign's own has
/// no `data`, and is one member.
#[derive(Deserialize)]
struct Batch {
    data: Option<BatchData>,
}

#[derive(Deserialize)]
struct BatchData {
    members: Vec<IgnoredAny>,
}

async fn receive(State(book): State<Arc<Book>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let id = text("webhook-id").unwrap_or_default();
    let timestamp = text("webhook-timestamp").unwrap_or_default();
    let signatures = text("webhook-signature").unwrap_or_default();
    let is_ours = book.key.verifies(id, timestamp, &body, signatures);
    let batch = serde_json::from_slice::<Batch>(&body).ok();
    let members = batch.map(|batch| batch.data.map_or(1, |data| data.members.len() as u64));
    book.pages().answer(id, is_ours, members)
}

impl Pages {
    fn answer(&mut self, id: &str, is_ours: bool, members: Option<u64>) -> StatusCode {
        self.counts.requests += 1;
        let (true, Some(members)) = (is_ours, members) else {
            self.counts.refused += 1;
            return match is_ours {
                true => StatusCode::BAD_REQUEST,
                false => StatusCode::UNAUTHORIZED,
            };
        };
        let is_new = self.seen.insert(id.to_owned());
        if is_new && self.seen.len().is_multiple_of(BUSY_EVERY) {
            self.counts.busy += 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        if self.accepted.insert(id.to_owned()) {
            self.counts.batches += 1;
            self.counts.members += members;
        } else {
            self.counts.repeated += 1;
        }
        StatusCode::OK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Outcome;
    use crate::id::{BatchPath, MessageId, RunId};
    use crate::run::{Clock, Destination, Request, SystemClock};
    use crate::webhook::{DestinationOptions, HttpDestination};
    use std::time::Duration;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn destination(receiver: &DemoReceiver, secret: &str) -> HttpDestination {
        HttpDestination::new(DestinationOptions {
            url: receiver.url(),
            signing_secrets: vec![secret.into()],
            headers: Vec::new(),
            auth: None,
            tls_ca_file: None,
            client_certificate: None,
            timeout: Duration::from_secs(10),
            max_in_flight: 1,
            allow_private_network: true,
            allow_http: true,
        })
        .unwrap()
    }

    async fn send(destination: &HttpDestination, batch: u32) -> u16 {
        let run: RunId = "winback@20261122T140000Z".parse().unwrap();
        let request = Request {
            id: MessageId::of(&run, &BatchPath::whole(batch), 0),
            at: SystemClock.now(),
            body: Bytes::from_static(br#"{"data":{"members":[{"id":1},{"id":2}]}}"#),
            rejected_at: None,
            content_type: "application/json",
            headers: std::sync::Arc::from([]),
        };
        match destination.attempt(request).await {
            Outcome::Answered { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_batch_counts_once_and_every_seventh_is_met_with_503_once() {
        let receiver = DemoReceiver::start(SigningKey::parse(SECRET).unwrap())
            .await
            .unwrap();
        let destination = destination(&receiver, SECRET);
        for batch in 1..=7 {
            let expect = if batch == 7 { 503 } else { 200 };
            assert_eq!(send(&destination, batch).await, expect);
        }
        assert_eq!(send(&destination, 7).await, 200);
        assert_eq!(send(&destination, 7).await, 200);
        let expect = ReceiverCounts {
            requests: 9,
            batches: 7,
            members: 14,
            repeated: 1,
            busy: 1,
            refused: 0,
        };
        assert_eq!(receiver.counts(), expect);
        drop(destination);
        receiver.stop().await;
    }

    #[tokio::test]
    async fn a_request_signed_with_another_secret_is_refused() {
        let receiver = DemoReceiver::start(SigningKey::parse(SECRET).unwrap())
            .await
            .unwrap();
        assert_eq!(send(&destination(&receiver, OTHER), 1).await, 401);
        assert_eq!(receiver.counts().refused, 1);
        assert_eq!(receiver.counts().members, 0);
    }
}
