//! How long to wait before asking again.
//!
//! The `backoff` crate gives the delays; the loops are ours, since its own
//! lets `Retry-After` pass every cap and makes the next request, with its
//! timestamp, before it sleeps.

use super::ports::WarehouseErrorClass;
use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use std::time::Duration;

/// Delays that double from a first one to a longest one, each varied by up to
/// half, so that what failed together does not come back together.
pub(super) struct Delays(ExponentialBackoff);

impl Delays {
    pub(super) fn new(initial: Duration, max: Duration) -> Self {
        Self(ExponentialBackoff {
            initial_interval: initial,
            current_interval: initial,
            max_interval: max,
            multiplier: 2.0,
            randomization_factor: 0.5,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// As after `attempts` failed attempts: for a delivery that is resumed.
    pub(super) fn after(initial: Duration, max: Duration, attempts: u32) -> Self {
        let mut delays = Self::new(initial, max);
        // The interval stops growing at `max`; 32 doublings reach any.
        for _ in 1..attempts.min(32) {
            delays.next();
        }
        delays
    }

    pub(super) fn next(&mut self) -> Duration {
        self.0
            .next_backoff()
            .expect("without a longest elapsed time there is always a next delay")
    }
}

/// How often a warehouse step is tried in all, by what went wrong; none for
/// without end.
pub(super) fn tries(class: WarehouseErrorClass) -> Option<u32> {
    use WarehouseErrorClass as C;
    match class {
        // The receivers are fine and the ledger keeps what was begun, so a
        // warehouse that is away for hours costs only time.
        C::Lost => None,
        C::Conflict | C::Busy => Some(10),
        C::Cancelled => Some(2),
        C::Configuration | C::Statement => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_stay_within_half_of_it() {
        let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(8));
        for expected in [1.0, 2.0, 4.0, 8.0, 8.0, 8.0] {
            let delay = delays.next().as_secs_f64();
            assert!(
                delay >= expected * 0.5 && delay <= expected * 1.5,
                "{delay} for {expected}"
            );
        }
    }

    #[test]
    fn a_resumed_delivery_waits_as_long_as_it_would_have() {
        let mut delays = Delays::after(Duration::from_secs(1), Duration::from_secs(60), 4);
        assert!(delays.next() >= Duration::from_secs(4));
    }
}
