//! What a run looks like from outside while it is carried.

use super::state::RunState;
use crate::audience::Funnel;
use crate::history::{BatchStatus, Tally};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// The fewest members after whose outcomes history is brought up to date
/// without waiting for its minute: a transaction that goes on beside sending,
/// where it would otherwise come after it.
const MANY: u64 = 100_000;

/// So often, at most, by the number of its members alone: commits are dear, and
/// a large run waits longer for the last of them in any case.
const TIMES_A_RUN: u64 = 10;

/// How many members of `planned` are many.
fn many_of(planned: u64) -> u64 {
    (planned / TIMES_A_RUN).max(MANY)
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

/// Where the carrier reports to; whoever is interested takes a receiver.
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
        self.progress.send_modify(|progress| progress.requests += 1);
    }

    pub(super) fn ended(&self, status: BatchStatus, members: u64) {
        self.progress.send_modify(|progress| {
            let open = progress.tally.still_open;
            let many = many_of(progress.funnel.map_or(0, |funnel| funnel.planned));
            progress.tally.add(status, members);
            progress.tally.still_open = open.saturating_sub(members);
            if open / many != progress.tally.still_open / many {
                self.many.notify_one();
            }
        });
    }

    /// Returns once the outcomes of many members have come in since the last
    /// time.
    pub(super) async fn many(&self) {
        self.many.notified().await;
    }
}
