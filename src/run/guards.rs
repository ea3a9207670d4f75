//! The bounds within which a run may go on sending.

use std::time::Duration;

/// How often a run under way shows in `open_runs` that it is alive, at least.
const SEEN_EVERY: Duration = Duration::from_mins(1);

/// The most that is kept between the last request of a silent daemon and the
/// first act of who takes its run over: clocks differ, and statements wait.
const MARGIN: Duration = Duration::from_mins(1);

/// When a run stops sending by itself, how often it reports, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// How long a run must be silent before another daemon takes it over.
    pub adopt_after: Duration,
    /// How long after staging suppression is asked again before a page.
    pub recheck_after: Duration,
    /// How old the oldest unsettled outcome may be while new batches begin:
    /// as long as history and other campaigns' caps may be wrong.
    pub behind_after: Duration,
    /// How many outcomes may be unsettled while new batches begin: some
    /// gigabyte of ledger.
    pub behind_outcomes: u64,
    /// How often outcomes are brought into history while a run sends: BI and
    /// other campaigns' caps see a contact at most this late, at one commit.
    pub settle_every: Duration,
    /// How often `fresh_when` is asked while the data is stale.
    pub fresh_every: Duration,
    /// Whether members who were withheld have rows in history, and not only
    /// counts in `runs`.
    pub withheld_rows: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            adopt_after: Duration::from_mins(15),
            recheck_after: Duration::from_mins(15),
            behind_after: Duration::from_mins(10),
            behind_outcomes: 2_000_000,
            settle_every: Duration::from_mins(1),
            fresh_every: Duration::from_secs(30),
            withheld_rows: true,
        }
    }
}

impl Guards {
    /// How often a run is shown to be alive.
    pub fn seen_every(&self) -> Duration {
        SEEN_EVERY.min(self.adopt_after / 4)
    }

    /// How long after it was last shown to be alive a run may begin a request
    /// that takes up to `timeout`.
    pub fn may_send_for(&self, timeout: Duration) -> Duration {
        let margin = MARGIN.min(self.adopt_after / 10);
        self.adopt_after.saturating_sub(timeout + margin)
    }

    /// Whether so many unsettled outcomes, the oldest of this age, are too
    /// many to begin another batch.
    pub fn is_behind(&self, unsettled: u64, oldest: Duration) -> bool {
        unsettled > self.behind_outcomes || unsettled > 0 && oldest > self.behind_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_daemon_ends_its_last_request_before_it_is_taken_over() {
        for seconds in [5, 60, 900, 86_400] {
            let guards = Guards {
                adopt_after: Duration::from_secs(seconds),
                ..Guards::default()
            };
            let timeout = Duration::from_secs(2);
            assert!(guards.may_send_for(timeout) + timeout < guards.adopt_after);
            assert!(guards.seen_every() < guards.may_send_for(timeout));
        }
    }
}
