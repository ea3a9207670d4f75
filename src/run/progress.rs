//! What a run looks like from outside while it is carried.

use super::state::RunState;
use crate::audience::Funnel;
use crate::history::{BatchStatus, Tally};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// The fewest members after whose outcomes history is brought up to date
/// without waiting for its minute, but for the first time of a large run: a
/// transaction that goes on beside sending, where it would otherwise come after
/// it.
const MANY: u64 = 100_000;

/// So often, and once early, by the number of its members alone: commits are
/// dear, and a large run waits longer for the last of them in any case.
const TIMES_A_RUN: u64 = 10;

/// How many times of `planned` members many have come in, once `ended` have. A
/// large run has its first time early: what is written then is not waited for at
/// its end, since history takes longer than sending.
fn times_many(planned: u64, ended: u64) -> u64 {
    let many = (planned / TIMES_A_RUN).max(MANY);
    let is_early = planned >= 2 * many && ended >= many / 4;
    u64::from(is_early) + ended / many
}

/// A run's counts, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it is.
    pub state: RunState,
    /// What admission counted, once it has.
    pub funnel: Option<Funnel>,
    /// Where the planned members are, as far as this carrier knows.
    pub tally: Tally,
    /// Requests made by this carrier.
    pub requests: u64,
}

/// Where the carrier reports to; whoever is interested takes a receiver, and
/// looks at it as often as it likes. Nobody is woken by a count: they change too
/// often.
#[derive(Debug, Clone)]
pub struct Reporter {
    progress: watch::Sender<Progress>,
    many: Arc<Notify>,
}

impl Reporter {
    /// A reporter for a run in `state`, and the receiver of its reports.
    pub fn new(state: RunState) -> (Self, watch::Receiver<Progress>) {
        let (sender, receiver) = watch::channel(Progress {
            state,
            funnel: None,
            tally: Tally::default(),
            requests: 0,
        });
        let many = Arc::new(Notify::new());
        let progress = sender;
        (Self { progress, many }, receiver)
    }

    pub(super) fn entered(&self, state: RunState) {
        self.progress.send_modify(|progress| progress.state = state);
    }

    pub(super) fn admitted(&self, funnel: Funnel, already: Tally) {
        self.progress.send_modify(|progress| {
            progress.funnel = Some(funnel);
            progress.tally = already;
            progress.tally.still_open = funnel.planned.saturating_sub(already.total());
        });
    }

    pub(super) fn requested(&self) {
        self.count(|progress| progress.requests += 1);
    }

    pub(super) fn ended(&self, status: BatchStatus, members: u64) {
        self.count(|progress| {
            let planned = progress.funnel.map_or(0, |funnel| funnel.planned);
            let times = |open: u64| times_many(planned, planned.saturating_sub(open));
            let open = progress.tally.still_open;
            progress.tally.add(status, members);
            progress.tally.still_open = open.saturating_sub(members);
            if times(open) != times(progress.tally.still_open) {
                self.many.notify_one();
            }
        });
    }

    fn count(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_if_modified(|progress| {
            change(progress);
            false
        });
    }

    /// Returns once the outcomes of many members have come in since the last
    /// time.
    pub(super) async fn many(&self) {
        self.many.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(planned: u64, expect: &[u64]) {
        let times = |ended: u64| times_many(planned, ended);
        let changes = (1..=planned).filter(|ended| times(*ended) != times(ended - 1));
        assert_eq!(changes.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn many_come_in_about_ten_times_a_run_at_most() {
        check(99_999, &[]);
        check(100_000, &[100_000]);
        check(199_999, &[100_000]);
        check(250_000, &[25_000, 100_000, 200_000]);
        check(
            2_500_000,
            &[
                62_500, 250_000, 500_000, 750_000, 1_000_000, 1_250_000, 1_500_000, 1_750_000,
                2_000_000, 2_250_000, 2_500_000,
            ],
        );
    }
}
