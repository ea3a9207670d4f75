//! The times in which a run begins no request: while something is paused, and
//! outside its send window.

use super::carrier::Kit;
use crate::history::RunFacts;
use crate::schedule::SendWindow;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a closed send window is looked at: the clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What keeps a run from sending, through no fault of its destination.
#[derive(Clone)]
pub(super) struct Rest {
    pub(super) kit: Kit,
    pub(super) facts: Arc<RunFacts>,
    pub(super) send_window: Option<SendWindow>,
}

impl Rest {
    /// Whether no request may begin now.
    pub(super) fn is_due(&self) -> bool {
        self.is_paused() || self.is_closed()
    }

    fn is_paused(&self) -> bool {
        let facts = &self.facts;
        self.kit.pauses.cover(&facts.campaign, &facts.destination)
    }

    fn is_closed(&self) -> bool {
        let now = self.kit.clock.now();
        let window = self.send_window.as_ref();
        window.is_some_and(|window| window.opens_at(now).is_some())
    }

    /// Waits until nothing is paused and the send window is open. Returns how
    /// long that took; none if there will be no attempt.
    pub(super) async fn over(&self, halt: &CancellationToken) -> Option<Duration> {
        if !self.is_due() {
            return Some(Duration::ZERO);
        }
        let since = self.kit.clock.now();
        while self.is_due() {
            let mut pauses = self.kit.pauses.clone();
            tokio::select! {
                biased;
                () = halt.cancelled() => return None,
                () = pauses.lifted(&self.facts.campaign, &self.facts.destination),
                    if self.is_paused() => {}
                () = self.kit.clock.sleep(LOOK_EVERY) => {}
            }
        }
        let rested = self.kit.clock.now().duration_since(since);
        Some(Duration::try_from(rested).unwrap_or_default())
    }
}
