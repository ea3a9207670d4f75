//! The rights to do one more of something limited, given in the order of the
//! waiting line.

use super::clock::Clock;
use super::strain::{Ended, News, RECOVERY, Strain};
use crate::schedule::{Line, Standing, Ticket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// A limit shared by all who hold a clone of it: `max_runs`, or a connector's
/// `max_queries`.
#[derive(Clone)]
pub struct Turns(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    /// A blocking mutex: never held across an await.
    state: Mutex<State>,
}

struct State {
    in_use: u32,
    limit: Strain,
    line: Line<oneshot::Sender<Turn>>,
}

/// The right to do one; given back when it is dropped.
#[must_use = "a turn that is dropped is somebody else's"]
pub struct Turn {
    shared: Arc<Shared>,
    is_given: bool,
}

/// One who waits, and leaves the line when nobody waits for it any more.
struct Waiter {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Turns {
    /// At most `size` at a time; at least 1.
    pub fn new(size: u32, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            clock,
            state: Mutex::new(State {
                in_use: 0,
                limit: Strain::new(size),
                line: Line::default(),
            }),
        }))
    }

    /// Waits for a turn.
    pub async fn take(&self, standing: Standing) -> Turn {
        let (give, given) = oneshot::channel();
        let now = self.0.clock.elapsed();
        let ticket = self.0.state().line.join(standing, now, give);
        let waiter = Waiter {
            shared: Arc::clone(&self.0),
            ticket,
        };
        self.0.hand_out();
        let mut given = std::pin::pin!(given);
        loop {
            // A limit that recovers lets somebody through without a turn being
            // given back.
            let now = self.0.clock.elapsed();
            let recovery = self.0.state().limit.recovers_at();
            let look = recovery.map_or(RECOVERY, |at| at.saturating_sub(now));
            tokio::select! {
                biased;
                turn = &mut given => {
                    drop(waiter);
                    return turn.expect("who waits is in the line until it is their turn");
                }
                () = self.0.clock.sleep(look) => self.0.hand_out(),
            }
        }
    }

    /// How many have a turn.
    pub fn in_use(&self) -> u32 {
        self.0.state().in_use
    }

    /// How many wait for one.
    pub fn waiting(&self) -> usize {
        self.0.state().line.len()
    }

    /// How many may have a turn now.
    pub fn limit(&self) -> u32 {
        let now = self.0.clock.elapsed();
        self.0.state().limit.get(now)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those through who may.
    fn hand_out(self: &Arc<Self>) {
        let now = self.clock.elapsed();
        loop {
            let next = {
                let mut state = self.state();
                if state.in_use >= state.limit.get(now) {
                    return;
                }
                let Some(next) = state.line.next(now) else {
                    return;
                };
                state.in_use += 1;
                next
            };
            let turn = Turn {
                shared: Arc::clone(self),
                is_given: true,
            };
            if let Err(mut unwanted) = next.send(turn) {
                // Not by dropping it: that would come back here, as deep as
                // there are people who left.
                unwanted.is_given = false;
                self.state().in_use -= 1;
            }
        }
    }
}

impl Turn {
    /// Tells how what it was used for ended, and gives it back. `begun` is by
    /// the clock's [`Clock::elapsed`]. Returns what is new of the limit.
    pub(super) fn ended(self, begun: Duration, ended: Ended) -> Option<News> {
        let now = self.shared.clock.elapsed();
        let mut state = self.shared.state();
        state.limit.ended(begun, now, ended);
        state.limit.news(now)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_given {
            self.shared.state().in_use -= 1;
            self.shared.hand_out();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let left = self.shared.state().line.leave(self.ticket);
        drop(left);
    }
}

#[cfg(test)]
mod tests;
