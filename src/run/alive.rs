//! Whether the warehouse knows that a run is carried: who is silent for too
//! long is taken over, and must have stopped sending before.

use super::carrier::{Kit, RunError};
use super::ports::WarehouseErrorClass;
use crate::history::RunFacts;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long to wait before a touch that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// When a run was last shown to be alive.
#[derive(Debug)]
pub(super) struct Alive {
    /// None before this process has shown it. A blocking mutex: never held
    /// across an await.
    seen: Mutex<Option<Instant>>,
    /// Held while the warehouse is asked, so that one asks for all.
    asking: tokio::sync::Mutex<()>,
}

impl Alive {
    pub(super) fn new() -> Self {
        Self {
            seen: Mutex::new(None),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// The run has just been registered.
    pub(super) fn registered(&self) {
        self.seen(Instant::now());
    }

    /// The warehouse was told, by a statement begun at `at`.
    pub(super) fn seen(&self, at: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = (*seen).max(Some(at));
    }

    fn silent_for(&self) -> Option<Duration> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|at| at.elapsed())
    }

    /// Whether a request may be begun now.
    pub(super) fn may_send(&self, kit: &Kit) -> bool {
        let bound = kit.guards.may_send_for(kit.rules.timeout);
        self.silent_for().is_some_and(|silent| silent < bound)
    }

    /// Waits until a request may be begun; false if there will be none. An
    /// error if the run is not ours any more.
    pub(super) async fn assure(
        &self,
        kit: &Kit,
        facts: &RunFacts,
        halt: &CancellationToken,
    ) -> Result<bool, RunError> {
        while !self.may_send(kit) {
            let touched = tokio::select! {
                biased;
                () = halt.cancelled() => return Ok(false),
                touched = self.touch(kit, facts) => touched,
            };
            if let Err(error) = touched {
                if !error.is_transient() {
                    return Err(error.into());
                }
                tokio::select! {
                    biased;
                    () = halt.cancelled() => return Ok(false),
                    () = kit.clock.sleep(AGAIN) => {}
                }
            }
        }
        Ok(true)
    }

    async fn touch(&self, kit: &Kit, facts: &RunFacts) -> Result<(), super::WarehouseError> {
        let _turn = self.asking.lock().await;
        if self.may_send(kit) {
            return Ok(());
        }
        let begun = Instant::now();
        kit.warehouse.touch(facts).await?;
        self.seen(begun);
        Ok(())
    }

    /// Shows the run to be alive as often as it must be, without end. What
    /// the warehouse answers is of interest only to who sends.
    pub(super) async fn keep(&self, kit: &Kit, facts: &RunFacts) -> Infallible {
        let every = kit.guards.seen_every();
        loop {
            tokio::time::sleep(every / 4).await;
            if self.silent_for().is_some_and(|silent| silent < every) {
                continue;
            }
            let begun = Instant::now();
            match kit.warehouse.touch(facts).await {
                Ok(()) => self.seen(begun),
                // Not registered yet, or not ours: whoever sends finds out.
                Err(error) if error.class == WarehouseErrorClass::Statement => {}
                Err(error) => tracing::warn!(
                    campaign.name = %facts.campaign, run.id = %facts.run,
                    "{} could not be shown to be alive: {error}", facts.run,
                ),
            }
        }
    }
}
