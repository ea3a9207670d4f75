//! Lets requests to one destination begin: as many at a time as it takes
//! well, as often as the operator allows, and none while it does not work.

use super::clock::Clock;
use super::permits::Limit;
use crate::delivery::{
    AdaptiveLimit, Ahead, Breaker, Outcome, Rate, Rules, TokenBucket, Turn, Way, has_failed, load,
};
use crate::id::DestinationName;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

/// What the operator has laid down for a destination's requests.
#[derive(Debug, Clone)]
pub struct ThrottleOptions {
    /// The destination, for the log.
    pub name: DestinationName,
    /// Requests at a time, at most; at least 1.
    pub max_in_flight: u32,
    /// Requests in a span of time, at most.
    pub rate_limit: Option<Rate>,
}

/// One destination's throttle, shared by all runs that send there: clones are
/// the same one.
#[derive(Clone)]
pub struct Throttle(Arc<Shared>);

struct Shared {
    name: DestinationName,
    max_in_flight: u32,
    clock: Arc<dyn Clock>,
    /// Requests at a time to all destinations.
    total: Limit,
    /// Held by whoever is next, so that all others wait in the order they
    /// came, and only one of a destination waits for the total: destinations
    /// then have it in turn, however many wait at each.
    line: tokio::sync::Mutex<()>,
    /// Told when a request has ended; whoever is next listens.
    changed: Notify,
    /// The same for whoever is next to get ready.
    ready_line: tokio::sync::Mutex<()>,
    ready_changed: Notify,
    /// A blocking mutex: never held across an await.
    state: Mutex<State>,
}

struct State {
    in_flight: u32,
    /// Batches that are written down as sent, and wait for their pass.
    ready: u32,
    rate: Option<Rate>,
    limit: AdaptiveLimit,
    bucket: Option<TokenBucket>,
    breaker: Breaker,
}

/// What the next request has to wait for.
enum Wait {
    Nothing,
    Until(Duration),
    /// Until a request has ended.
    Change,
}

/// The right to make one request; given back when it is dropped.
#[must_use = "a pass that is dropped lets somebody else go"]
pub struct Pass {
    shared: Arc<Shared>,
    _total: OwnedSemaphorePermit,
    ahead: Ahead,
    waited: Duration,
    progress: Spending,
}

/// What goes in so long may be ready.
const READY_FOR: Duration = Duration::from_millis(100);

/// Members that may be ready, however fast they go: after a crash they may
/// have to be decided by a person. More batches do not make the ledger's
/// groups any cheaper either.
const MEMBERS_READY: u32 = 256;

/// The right to be ready: to write down that a request is sent before there is
/// a pass for it, so that no pass waits for the ledger. Given back when it is
/// dropped.
#[must_use = "who drops it is not ready"]
pub struct Ready(Arc<Shared>);

/// How far a pass has been used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spending {
    Unused,
    /// The request has begun.
    Begun,
    /// Its outcome is counted.
    Told,
}

impl Throttle {
    /// A throttle that knows nothing of its destination yet. `total` is shared
    /// by all destinations.
    pub fn new(options: ThrottleOptions, clock: Arc<dyn Clock>, total: Limit) -> Self {
        Self(Arc::new(Shared {
            name: options.name,
            max_in_flight: options.max_in_flight.max(1),
            clock,
            total,
            line: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            ready_line: tokio::sync::Mutex::new(()),
            ready_changed: Notify::new(),
            state: Mutex::new(State {
                in_flight: 0,
                ready: 0,
                rate: options.rate_limit,
                limit: AdaptiveLimit::new(options.max_in_flight),
                bucket: options.rate_limit.map(TokenBucket::new),
                breaker: Breaker::default(),
            }),
        }))
    }

    /// Requests to the destination that may be in flight now.
    pub fn limit(&self) -> u32 {
        self.0.state().limit.get()
    }

    /// Requests to the destination that may ever be in flight.
    pub fn max_in_flight(&self) -> u32 {
        self.0.max_in_flight
    }

    /// Requests that its rate lets begin in `time`, at most.
    pub(super) fn most_begun_in(&self, time: Duration) -> u32 {
        let begun = |rate: Rate| time.as_nanos().div_ceil(rate.interval().as_nanos().max(1));
        let begun = self.0.state().rate.map(begun);
        begun.map_or(u32::MAX, |begun| u32::try_from(begun).unwrap_or(u32::MAX))
    }

    /// Requests to the destination that are in flight.
    pub fn in_flight(&self) -> u32 {
        self.0.state().in_flight
    }

    /// Whether nothing is sent since the destination fails at nearly
    /// everything.
    pub fn is_open(&self) -> bool {
        let now = self.0.clock.elapsed();
        self.0.state().breaker.way(now) != Way::Free
    }

    /// Waits until a request may begin; none once `halt` is cancelled. First
    /// come, first served.
    pub async fn admit(&self, halt: &CancellationToken) -> Option<Pass> {
        let since = self.0.clock.elapsed();
        let mut pass = tokio::select! {
            biased;
            () = halt.cancelled() => return None,
            pass = self.next() => pass,
        };
        pass.waited = self.0.clock.elapsed().saturating_sub(since);
        Some(pass)
    }

    /// Waits until a batch of so many members may be written down as sent ahead
    /// of its pass; none once `halt` is cancelled. As many may be ready as
    /// [`Self::most_ready`].
    pub async fn ready(&self, members: u32, halt: &CancellationToken) -> Option<Ready> {
        let waiting = async {
            let _first = self.0.ready_line.lock().await;
            loop {
                {
                    let mut state = self.0.state();
                    if state.ready < state.most_ready(members) {
                        state.ready += 1;
                        return Ready(Arc::clone(&self.0));
                    }
                }
                self.0.ready_changed.notified().await;
            }
        };
        tokio::select! {
            biased;
            () = halt.cancelled() => None,
            ready = waiting => Some(ready),
        }
    }

    /// How many batches of so many members may be ready: as many as go in a
    /// tenth of a second, and no more than may be in flight unless they are
    /// small. What is ready when the process dies is taken for sent.
    pub fn most_ready(&self, members: u32) -> u32 {
        self.0.state().most_ready(members)
    }

    async fn next(&self) -> Pass {
        let _first = self.0.line.lock().await;
        loop {
            self.0.own_turn().await;
            // Nothing of the destination's is held meanwhile, and nothing of
            // the total while the destination is waited for.
            let total = self.0.total.take().await;
            if let Some(ahead) = self.0.begin() {
                return Pass {
                    shared: Arc::clone(&self.0),
                    _total: total,
                    ahead,
                    waited: Duration::ZERO,
                    progress: Spending::Unused,
                };
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when breaker, limit and rate would let a request begin.
    async fn own_turn(&self) {
        loop {
            let now = self.clock.elapsed();
            // A change after this is kept for who listens next.
            let wait = self.state().wait(now);
            match wait {
                Wait::Nothing => return,
                Wait::Change => self.changed.notified().await,
                Wait::Until(at) => tokio::select! {
                    () = self.clock.sleep(at.saturating_sub(now)) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    /// Lets a request begin, if everything of the destination's still does.
    fn begin(&self) -> Option<Ahead> {
        let now = self.clock.elapsed();
        let mut state = self.state();
        let may_begin = matches!(state.wait(now), Wait::Nothing)
            && state.bucket.as_mut().is_none_or(|bucket| bucket.take(now));
        if !may_begin {
            return None;
        }
        state.in_flight += 1;
        let in_flight = state.in_flight;
        state.limit.began(in_flight);
        Some(state.breaker.begin())
    }

    fn say(&self, turn: Turn) {
        match turn {
            Turn::None => {}
            Turn::Opened(rest) => tracing::warn!(
                destination.name = %self.name,
                delay_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX),
                "destination {} fails at nearly everything; nothing is sent to it for {rest:?}",
                self.name,
            ),
            Turn::Closed => tracing::info!(
                destination.name = %self.name,
                "destination {} answers again; sending goes on", self.name,
            ),
        }
    }
}

impl State {
    fn most_ready(&self, members: u32) -> u32 {
        let by_rate = self.rate.map_or(u32::MAX, |rate| rate.burst() / 10);
        let by_members = (MEMBERS_READY / members.max(1)).max(self.limit.get());
        let by_limit = self.limit.begun_in(READY_FOR).min(by_members);
        by_limit.min(by_rate).max(1)
    }

    fn wait(&self, now: Duration) -> Wait {
        match self.breaker.way(now) {
            Way::ClosedUntil(at) => return Wait::Until(at),
            Way::Probed => return Wait::Change,
            Way::Free => {}
        }
        if self.in_flight >= self.limit.get() {
            return Wait::Change;
        }
        match self.bucket.as_ref().map(TokenBucket::ready_at) {
            Some(at) if now < at => Wait::Until(at),
            _ => Wait::Nothing,
        }
    }
}

impl Pass {
    /// How long it was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Makes the request, and counts how it ended and how long it took.
    pub async fn spend(mut self, rules: &Rules, attempt: impl Future<Output = Outcome>) -> Outcome {
        let begun = self.shared.clock.elapsed();
        self.progress = Spending::Begun;
        let outcome = attempt.await;
        let now = self.shared.clock.elapsed();
        let turn = {
            let mut state = self.shared.state();
            let load = load(&outcome, now.saturating_sub(begun), rules);
            state.limit.ended(begun, now, load);
            let failed = has_failed(&outcome, rules);
            state.breaker.ended(self.ahead, failed, now)
        };
        self.progress = Spending::Told;
        self.shared.say(turn);
        outcome
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.0.state().ready -= 1;
        self.0.ready_changed.notify_one();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.in_flight -= 1;
        if self.progress != Spending::Told {
            state.breaker.unsent(self.ahead);
        }
        if self.progress == Spending::Unused
            && let Some(bucket) = &mut state.bucket
        {
            bucket.put_back();
        }
        drop(state);
        self.shared.changed.notify_one();
        // The limit may be another.
        self.shared.ready_changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
