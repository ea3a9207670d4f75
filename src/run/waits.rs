//! Batches that wait for long: for their next attempt, a pause, a send window,
//! a destination that fails, its rate. Their bodies are given back, so that
//! waiting holds neither members nor memory, and are read again in time.

use super::clock::Clock;
use super::parcel::Batch;
use crate::id::BatchPath;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a body is kept that waits. A page costs the warehouse a fraction of
/// a second, so what waits for longer is cheaper to read again.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(60);

/// How much later than its time a body may be given back, so that those that
/// wait since about the same time share a timer.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(1);

/// Batches that may wait, each a few hundred bytes, whatever else happens.
const MOST_WAITING: usize = 1_024;

/// The wait a batch is in, by the clock's [`super::Clock::elapsed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Since when its body has been waiting.
    pub(super) since: Duration,
    /// When it is to be sent; what it waits from then on it waits for us.
    pub(super) due: Duration,
    /// What was excused of the time before `since`.
    pub(super) excused: Duration,
}

impl Wait {
    /// Of a batch that is new at `now`, and due.
    pub(super) fn none(now: Duration) -> Self {
        Self {
            since: now,
            due: now,
            excused: Duration::ZERO,
        }
    }

    /// Until when the body is kept; none where it is given back at once, since
    /// it has waited for long enough, or will have before it is due.
    pub(super) fn keeps(&self, now: Duration) -> Option<Duration> {
        let until = self.since.saturating_add(KEPT_FOR);
        (self.due <= until && now < until).then_some(until)
    }
}

/// Tells who waits with a body when that is long enough.
pub(super) struct Patience {
    clock: Arc<dyn Clock>,
    halt: CancellationToken,
    /// A blocking mutex: never held across an await.
    timers: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    running: JoinSet<()>,
    /// When the one that ends last does, and what is cancelled then.
    newest: Option<(Duration, Arc<CancellationToken>)>,
}

impl Patience {
    pub(super) fn new(clock: Arc<dyn Clock>, halt: CancellationToken) -> Self {
        Self {
            clock,
            halt,
            timers: Mutex::default(),
        }
    }

    /// What is cancelled with the run, and soon after `until`, by the clock's
    /// [`Clock::elapsed`]: shared by the bodies that are kept about as long: a new
    /// one is kept longest, and needs no timer of its own.
    pub(super) fn until(&self, until: Duration) -> Arc<CancellationToken> {
        let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = until.saturating_add(GIVEN_BACK_WITHIN);
        if let Some((at, enough)) = &timers.newest
            && (until..=latest).contains(at)
        {
            return Arc::clone(enough);
        }
        while timers.running.try_join_next().is_some() {}
        let (clock, enough) = (Arc::clone(&self.clock), self.halt.child_token());
        let cancelled = enough.clone();
        timers.running.spawn(async move {
            clock.sleep(latest.saturating_sub(clock.elapsed())).await;
            cancelled.cancel();
        });
        let enough = Arc::new(enough);
        if timers.newest.as_ref().is_none_or(|(at, _)| *at < latest) {
            timers.newest = Some((latest, Arc::clone(&enough)));
        }
        enough
    }
}

/// Batches between two attempts, without their bodies, by when they are due.
#[derive(Default)]
pub(super) struct Waiting(BTreeMap<(Duration, BatchPath), Batch>);

impl Waiting {
    pub(super) fn push(&mut self, batch: Batch) {
        self.0.insert((batch.wait.due, batch.path.clone()), batch);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the first of them is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.0.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// The one that has been due for longest.
    pub(super) fn next_due(&mut self, now: Duration) -> Option<Batch> {
        self.is_due(now)
            .then(|| self.0.pop_first())?
            .map(|(_, batch)| batch)
    }
}

/// How many may wait before nothing new is begun. A destination that puts off
/// whatever it is sent is asked with as many as there are `lanes`; one that
/// also takes some, with one more for each batch that has `ended`.
pub(super) fn most_waiting(lanes: usize, ended: usize) -> usize {
    lanes.max(lanes.saturating_add(ended).min(MOST_WAITING))
}

#[cfg(test)]
mod tests {
    use super::super::clock::SystemClock;
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[track_caller]
    fn check(since: u64, due: u64, now: u64, expect: Option<u64>) {
        let wait = Wait {
            due: s(due),
            ..Wait::none(s(since))
        };
        assert_eq!(wait.keeps(s(now)), expect.map(s));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_of_about_the_same_time_share_a_timer() {
        let halt = CancellationToken::new();
        let patience = Patience::new(Arc::new(SystemClock), halt.clone());
        let now = SystemClock.elapsed();
        let first = patience.until(now + s(60));
        let second = patience.until(now + s(61));
        assert!(Arc::ptr_eq(&first, &second));
        let late = patience.until(now + s(90));
        assert!(!Arc::ptr_eq(&first, &late));
        let early = patience.until(now + s(20));
        let again = patience.until(now + s(90));
        assert!(Arc::ptr_eq(&late, &again));
        early.cancelled().await;
        assert!(SystemClock.elapsed() < now + s(22));
        second.cancelled().await;
        let waited = SystemClock.elapsed() - now;
        assert!(waited >= s(60) && waited < s(63), "{waited:?}");
        assert!(!late.is_cancelled());
        halt.cancel();
        assert!(late.is_cancelled());
    }

    #[test]
    fn a_body_is_kept_for_a_minute_of_waiting() {
        check(100, 100, 100, Some(160));
        check(100, 130, 100, Some(160));
        check(100, 130, 140, Some(160));
        check(100, 100, 159, Some(160));
        check(100, 100, 160, None);
        check(100, 100, 500, None);
    }

    #[test]
    fn a_body_that_is_due_in_over_a_minute_is_not_kept_at_all() {
        check(100, 160, 100, Some(160));
        check(100, 161, 100, None);
        check(100, 3_700, 101, None);
    }

    #[test]
    fn a_destination_that_puts_off_everything_is_not_asked_for_everything() {
        assert_eq!(most_waiting(16, 0), 16);
        assert_eq!(most_waiting(16, 20), 36);
        assert_eq!(most_waiting(16, 1_000_000), 1_024);
        assert_eq!(most_waiting(5_000, 0), 5_000);
    }
}
