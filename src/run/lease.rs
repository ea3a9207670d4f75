//! The right to carry a run for a while: taken before anything else, renewed
//! while the run is carried, and asked before each request.

use super::carrier::{Carrier, RunError};
use super::ports::{Ledger, LedgerError};
use crate::id::RunId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a lease lasts unless something else is said: a dead host's runs
/// rest no longer.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// How much earlier than the ledger we take a lease to be over, and how much
/// of it must be left beyond a request's time-out: for clocks that run
/// unevenly, and for a process that is slow to act.
pub const MARGIN: Duration = Duration::from_millis(500);

/// Renewals in the life of a lease: two may be lost before it lapses.
const RENEWALS: u32 = 3;

/// How long after a renewal without an answer it is tried again.
const RENEW_AGAIN: Duration = Duration::from_millis(500);

/// The right to carry a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which it is, counted from 1 for each run.
    pub term: i32,
    /// Until when this process may act on it without asking, by its own
    /// monotonic clock; none where it never lapses. The ledger's clock is the
    /// judge: this is only ever earlier.
    pub trusted_until: Option<Instant>,
}

impl Lease {
    /// A lease of `ttl` that was asked for at `asked`.
    pub fn lapsing(term: i32, asked: Instant, ttl: Duration) -> Self {
        Self {
            term,
            trusted_until: Some(asked + ttl.saturating_sub(MARGIN)),
        }
    }

    /// A lease that never lapses.
    pub fn lasting(term: i32) -> Self {
        Self {
            term,
            trusted_until: None,
        }
    }

    /// Whether it is sure to be in force for all of `time`.
    fn covers(&self, time: Duration) -> bool {
        self.trusted_until
            .is_none_or(|until| Instant::now() + time + MARGIN < until)
    }

    fn has_lapsed(&self) -> bool {
        self.trusted_until
            .is_some_and(|until| Instant::now() >= until)
    }
}

/// How long a lease must be so that between two renewals there is always room
/// for a request that takes its whole `timeout`.
pub(super) fn lease_for(usual: Duration, timeout: Duration) -> Duration {
    usual.max(timeout * 2 + MARGIN * 6)
}

/// A carrier's lease, as its deliveries see it.
#[derive(Clone)]
pub(super) struct Held(watch::Receiver<Lease>);

impl Held {
    /// What is held before anything is taken: no request may leave.
    pub(super) fn nothing() -> Self {
        Self(watch::Sender::new(Lease::lapsing(0, Instant::now(), Duration::ZERO)).subscribe())
    }

    pub(super) fn term(&self) -> i32 {
        self.0.borrow().term
    }

    /// Whether a request of at most `timeout` may leave now.
    pub(super) fn covers(&self, timeout: Duration) -> bool {
        self.0.borrow().covers(timeout)
    }

    /// Waits until a request of at most `timeout` may leave; false once
    /// nothing more is to be begun.
    pub(super) async fn wait(&mut self, timeout: Duration, halt: &CancellationToken) -> bool {
        loop {
            if halt.is_cancelled() {
                return false;
            }
            if self.0.borrow_and_update().covers(timeout) {
                return true;
            }
            tokio::select! {
                () = halt.cancelled() => return false,
                changed = self.0.changed() => if changed.is_err() {
                    return false;
                },
            }
        }
    }
}

/// Takes, renews and gives back the lease of a run.
pub(super) struct Keeper {
    ledger: Arc<dyn Ledger>,
    run: RunId,
    ttl: Duration,
    lease: watch::Sender<Lease>,
}

impl Keeper {
    /// Takes the lease; none while another host's is in force.
    pub(super) async fn take(
        ledger: Arc<dyn Ledger>,
        run: RunId,
        ttl: Duration,
    ) -> Result<Option<Self>, LedgerError> {
        Ok(ledger.take_lease(&run, ttl).await?.map(|lease| Self {
            ledger,
            run,
            ttl,
            lease: watch::Sender::new(lease),
        }))
    }

    pub(super) fn held(&self) -> Held {
        Held(self.lease.subscribe())
    }

    /// Renews the lease for as long as it is held; returns when it is lost.
    async fn keep(&self) {
        if self.current().trusted_until.is_none() {
            return std::future::pending().await;
        }
        let mut wait = self.ttl / RENEWALS;
        loop {
            tokio::time::sleep(wait).await;
            let lease = self.current();
            let renewed = self.ledger.renew_lease(&self.run, lease.term, self.ttl);
            let answer = tokio::time::timeout(self.ttl / RENEWALS, renewed).await;
            let why = match answer {
                Ok(Ok(renewed)) => {
                    self.lease.send_replace(renewed);
                    wait = self.ttl / RENEWALS;
                    continue;
                }
                Ok(Err(LedgerError::Conflict { .. })) => return,
                _ if lease.has_lapsed() => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!(run.id = %self.run, "the lease of {} is not renewed yet: {why}", self.run);
            wait = RENEW_AGAIN;
        }
    }

    fn current(&self) -> Lease {
        *self.lease.borrow()
    }

    /// Whether the run is under another term: what was done for it may have
    /// been refused before the lease was due to be renewed.
    async fn is_lost(&self) -> bool {
        let term = self.current().term;
        let renewed = self.ledger.renew_lease(&self.run, term, self.ttl).await;
        matches!(renewed, Err(LedgerError::Conflict { .. }))
    }

    /// Gives the lease back. Where that fails it lapses by itself.
    async fn release(&self) {
        let released = self.ledger.release_lease(&self.run, self.current().term);
        if let Err(error) = released.await {
            tracing::warn!(run.id = %self.run, "the lease of {} was not given back: {error}", self.run);
        }
    }
}

impl Carrier {
    /// Does `work` under the lease. Once that is lost nothing more is begun,
    /// and what is on its way ends by itself.
    pub(super) async fn under<T>(
        keeper: &Keeper,
        stop: CancellationToken,
        work: impl Future<Output = Result<T, RunError>>,
    ) -> Result<T, RunError> {
        tokio::pin!(work);
        let result = tokio::select! {
            biased;
            result = &mut work => Some(result),
            () = keeper.keep() => None,
        };
        if let Some(result) = result {
            if let Err(RunError::Ledger(LedgerError::Conflict { .. })) = result
                && keeper.is_lost().await
            {
                return Err(RunError::Elsewhere);
            }
            keeper.release().await;
            return result;
        }
        tracing::warn!(run.id = %keeper.run, "the lease of {} is lost; nothing more is begun here", keeper.run);
        stop.cancel();
        match work.await {
            Err(RunError::Interrupted | RunError::Ledger(LedgerError::Conflict { .. })) => {
                Err(RunError::Elsewhere)
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_lease_covers_what_is_over_well_before_its_end() {
        let lease = Lease::lapsing(1, Instant::now(), MINUTE);
        assert!(lease.covers(Duration::from_secs(58)));
        assert!(!lease.covers(Duration::from_millis(59_100)));
        assert!(!Lease::lapsing(1, Instant::now(), Duration::ZERO).covers(Duration::ZERO));
        assert!(Lease::lasting(1).covers(MINUTE * 60));
    }

    #[test]
    fn between_two_renewals_there_is_room_for_the_slowest_request() {
        for seconds in [1, 2, 15, 30, 300] {
            let timeout = Duration::from_secs(seconds);
            let lease = lease_for(DEFAULT_LEASE, timeout);
            assert!(lease >= DEFAULT_LEASE);
            let left = lease - lease / RENEWALS - MARGIN;
            assert!(left > timeout + MARGIN, "{timeout:?}: {left:?}");
        }
    }

    #[test]
    fn nothing_is_covered_before_a_lease_is_taken() {
        assert!(!Held::nothing().covers(Duration::ZERO));
    }
}
