//! A request body that knows whether it was asked for: the line between a
//! definite no and an ambiguous outcome.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use tokio::time::Instant;

const HERE: u8 = 0;
const LEFT: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The attempt's hold on a body that the client has been given.
#[derive(Clone)]
pub(super) struct BodyHold {
    state: Arc<AtomicU8>,
}

impl BodyHold {
    /// Takes the body back. `true` means that nothing of it left, nor ever
    /// will; `false` that it is too late.
    pub(super) fn withdraw(&self) -> bool {
        let moved = self.move_from_here(WITHDRAWN);
        moved.is_ok() || moved == Err(WITHDRAWN)
    }

    /// The client may look at its body after the attempt has given up on it,
    /// on another thread; so who comes first is settled by one exchange.
    fn move_from_here(&self, to: u8) -> Result<u8, u8> {
        self.state
            .compare_exchange(HERE, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// Bytes that go out in one frame, once, and not after their time: a process
/// that was stopped on the way to the wire sends nothing when it wakes, for its
/// run may be somebody else's by then.
pub(super) struct HeldBody {
    bytes: Bytes,
    until: Instant,
    hold: BodyHold,
}

impl HeldBody {
    /// A body that may leave until then, and the hold on it.
    pub(super) fn new(bytes: Bytes, until: Instant) -> (Self, BodyHold) {
        // An empty body is never asked for: the head alone is the request.
        let state = if bytes.is_empty() { LEFT } else { HERE };
        let hold = BodyHold {
            state: Arc::new(AtomicU8::new(state)),
        };
        let body = Self {
            bytes,
            until,
            hold: hold.clone(),
        };
        (body, hold)
    }
}

/// The body was taken back before it left.
#[derive(Debug, thiserror::Error)]
#[error("the request was given up before its body left")]
pub(super) struct BodyWithdrawn;

impl Body for HeldBody {
    type Data = Bytes;
    type Error = BodyWithdrawn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyWithdrawn>>> {
        let in_time = Instant::now() <= self.until;
        let to = if in_time { LEFT } else { WITHDRAWN };
        let frame = match self.hold.move_from_here(to) {
            Ok(_) if !in_time => Some(Err(BodyWithdrawn)),
            Err(WITHDRAWN) => Some(Err(BodyWithdrawn)),
            _ if self.bytes.is_empty() => None,
            _ => Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use std::time::Duration;

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn poll(body: &mut HeldBody) -> Option<Result<Bytes, BodyWithdrawn>> {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(frame) => {
                frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
            }
            Poll::Pending => unreachable!("the bytes are here"),
        }
    }

    #[test]
    fn a_body_that_was_asked_for_cannot_be_withdrawn() {
        let (mut body, hold) = HeldBody::new(Bytes::from_static(b"{}"), in_a_minute());
        assert_eq!(poll(&mut body).unwrap().unwrap(), "{}");
        assert!(!hold.withdraw());
        assert!(body.is_end_stream() && poll(&mut body).is_none());
    }

    #[test]
    fn a_withdrawn_body_never_leaves() {
        let (mut body, hold) = HeldBody::new(Bytes::from_static(b"{}"), in_a_minute());
        assert!(hold.withdraw());
        assert!(poll(&mut body).unwrap().is_err());
        assert!(hold.withdraw());
    }

    #[test]
    fn a_body_whose_time_is_over_never_leaves() {
        let past = Instant::now().checked_sub(Duration::from_millis(1));
        let (mut body, hold) = HeldBody::new(Bytes::from_static(b"{}"), past.unwrap());
        assert!(poll(&mut body).unwrap().is_err());
        assert!(hold.withdraw());
    }

    #[test]
    fn an_empty_body_counts_as_gone_from_the_start() {
        let (_body, hold) = HeldBody::new(Bytes::new(), in_a_minute());
        assert!(!hold.withdraw());
    }
}
