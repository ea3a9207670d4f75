//! A run's place among the `max_runs` that are under way: given back while
//! nothing of the run can go on, so that a stuck one does not delay others.

use super::turns::{Turn, Turns};
use crate::schedule::Standing;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// A run's place; clones are the same one.
#[derive(Clone)]
pub struct Place(Arc<Shared>);

struct Shared {
    turns: Turns,
    standing: Standing,
    /// Cancelled when the run is to end soon, which it may without a place.
    ending: CancellationToken,
    /// A blocking mutex: never held across an await.
    state: Mutex<State>,
    /// Held by the one who takes the turn again, for all.
    taking: tokio::sync::Mutex<()>,
}

struct State {
    turn: Option<Turn>,
    /// What of the run can go on.
    busy: u32,
}

/// Something of a run that can go on.
pub(super) struct Busy(Place);

/// Something of a run that cannot go on just now.
struct Resting(Place);

impl Place {
    /// The place of a run that has `turn` among `turns`, until it is `ending`.
    pub fn new(turns: Turns, turn: Turn, standing: Standing, ending: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            turns,
            standing: Standing {
                under_way: true,
                ..standing
            },
            ending,
            state: Mutex::new(State {
                turn: Some(turn),
                busy: 1,
            }),
            taking: tokio::sync::Mutex::new(()),
        }))
    }

    /// One more thing that can go on, until what is returned is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.0.state().busy += 1;
        Busy(self.clone())
    }

    /// Waits for something outside. Where nothing else of the run can go on
    /// the place is given back meanwhile, and waited for afterwards.
    pub(super) async fn resting<T>(&self, wait: impl Future<Output = T>) -> T {
        let rest = self.rest();
        let found = wait.await;
        drop(rest);
        self.regain().await;
        found
    }

    fn rest(&self) -> Resting {
        self.one_less();
        Resting(self.clone())
    }

    fn one_less(&self) {
        let given_back = {
            let mut state = self.0.state();
            state.busy = state.busy.saturating_sub(1);
            let idle = state.busy == 0;
            state.turn.take_if(|_| idle)
        };
        // Outside the lock: it wakes others.
        drop(given_back);
    }

    async fn regain(&self) {
        let has_turn = || self.0.state().turn.is_some();
        if has_turn() {
            return;
        }
        let taking = async {
            let _taking = self.0.taking.lock().await;
            if !has_turn() {
                let turn = self.0.turns.take(self.0.standing).await;
                self.0.state().turn = Some(turn);
            }
        };
        tokio::select! {
            biased;
            () = self.0.ending.cancelled() => {}
            () = taking => {}
        }
    }
}

/// Waits for something outside, without `place` where nothing else of its run
/// can go on.
pub(super) async fn rest<T>(place: Option<&Place>, wait: impl Future<Output = T>) -> T {
    match place {
        Some(place) => place.resting(wait).await,
        None => wait.await,
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.one_less();
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        self.0.0.state().busy += 1;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
