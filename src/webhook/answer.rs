//! What is taken from an answer: its status line, and little else.

use crate::delivery::{Outcome, Rejections, retry_after};
use jiff::Timestamp;
use reqwest::Response;
use reqwest::header::{HeaderValue, RETRY_AFTER};
use std::time::Duration;

/// How much of an answer is read: enough for an ordinary one to end, so that
/// its connection is used again. A longer one costs its connection.
const MAX_DRAINED_BYTES: usize = 64 * 1024;

/// How much is read of an answer that lists refused members: some ten
/// thousand of them.
const MAX_LIST_BYTES: usize = 1024 * 1024;

/// The outcome an answer stands for. What goes wrong after its status line
/// takes nothing back of it; the client's time-out bounds the reading.
pub(super) async fn answered(
    response: Response,
    now: Timestamp,
    rejected_at: Option<&str>,
) -> Outcome {
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|header| asked_for(header, now));
    let status = response.status();
    let rejections = match rejected_at {
        Some(at) if status.is_success() => rejections(response, at).await,
        _ => {
            drain(response).await;
            Rejections::None
        }
    };
    Outcome::Answered {
        status: status.as_u16(),
        retry_after,
        rejections,
    }
}

fn asked_for(header: &HeaderValue, now: Timestamp) -> Option<Duration> {
    retry_after(header.to_str().ok()?, now)
}

/// Whether it has a `Retry-After` that asks for nothing.
pub(super) fn has_odd_retry_after(response: &Response, now: Timestamp) -> bool {
    let header = response.headers().get(RETRY_AFTER);
    header.is_some_and(|header| asked_for(header, now).is_none())
}

async fn rejections(mut response: Response, at: &str) -> Rejections {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) if body.len() + piece.len() <= MAX_LIST_BYTES => {
                body.extend_from_slice(&piece);
            }
            Ok(Some(_)) => {
                let why = format!("the answer is longer than {} MiB", MAX_LIST_BYTES >> 20);
                return Rejections::Unreadable(why);
            }
            Ok(None) => return Rejections::parse(&body, at),
            Err(_) => return Rejections::Unreadable("the answer broke off".to_owned()),
        }
    }
}

/// Reads the answer's body to its end, so that the connection can be used
/// again, within bounds. What goes wrong here no longer matters.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        read += piece.len();
        if read > MAX_DRAINED_BYTES {
            return;
        }
    }
}
