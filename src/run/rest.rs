//! The times in which a run begins no request: while something is paused,
//! outside its send window, and while its destination fails at everything.

use super::carrier::{Carrier, Kit, RunError};
use super::lanes::Lanes;
use super::pauses::{PauseChange, PauseScope};
use super::place::{Place, rest};
use crate::history::RunFacts;
use crate::schedule::SendWindow;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Who pauses a destination that refuses everything.
pub const PAUSED_BY: &str = "campaignd";

/// How often a closed send window is looked at: the clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What keeps a run from sending, through no fault of its destination.
#[derive(Clone)]
pub(super) struct Rest {
    pub(super) kit: Kit,
    pub(super) facts: Arc<RunFacts>,
    pub(super) send_window: Option<SendWindow>,
    /// Given back to others meanwhile.
    pub(super) place: Option<Place>,
}

impl Rest {
    /// Whether no request may begin now.
    pub(super) fn is_due(&self) -> bool {
        self.is_paused() || self.is_closed()
    }

    fn is_paused(&self) -> bool {
        let facts = &self.facts;
        self.kit.pauses.cover(&facts.campaign, &facts.destination)
    }

    fn is_closed(&self) -> bool {
        let now = self.kit.clock.now();
        let window = self.send_window.as_ref();
        window.is_some_and(|window| window.opens_at(now).is_some())
    }

    /// Waits until nothing is paused and the send window is open. Returns how
    /// long that took; none if there will be no attempt.
    pub(super) async fn over(&self, halt: &CancellationToken) -> Option<Duration> {
        if !self.is_due() {
            return Some(Duration::ZERO);
        }
        let since = self.kit.clock.now();
        let lifting = async {
            while self.is_due() {
                let mut pauses = self.kit.pauses.clone();
                tokio::select! {
                    () = pauses.lifted(&self.facts.campaign, &self.facts.destination),
                        if self.is_paused() => {}
                    () = self.kit.clock.sleep(LOOK_EVERY) => {}
                }
            }
        };
        if !rest(self.place.as_ref(), until(halt, lifting)).await {
            return None;
        }
        let rested = self.kit.clock.now().duration_since(since);
        Some(Duration::try_from(rested).unwrap_or_default())
    }
}

/// Waits while the destination fails at everything; returns how long. Nothing
/// of the destination's is held meanwhile, so that who waits for a place here
/// holds up nobody.
pub(super) async fn while_broken(
    kit: &Kit,
    place: Option<&Place>,
    halt: &CancellationToken,
) -> Duration {
    if !kit.throttle.is_open() {
        return Duration::ZERO;
    }
    let since = kit.clock.elapsed();
    let closing = async {
        while kit.throttle.is_open() {
            kit.clock.sleep(LOOK_EVERY).await;
        }
    };
    rest(place, until(halt, closing)).await;
    kit.clock.elapsed().saturating_sub(since)
}

/// Returns whether `wait` ended before it was to halt.
async fn until(halt: &CancellationToken, wait: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = halt.cancelled() => false,
        () = wait => true,
    }
}

impl Carrier {
    /// Waits until something may be sent, before members are read for it: a
    /// run that rests here holds none of them.
    pub(super) async fn wait_for_room(&self, lanes: &mut Lanes, halt: &CancellationToken) {
        let resting = async {
            self.rests().over(halt).await;
            while_broken(&self.kit, self.place.as_ref(), halt).await;
        };
        lanes.beside(resting).await;
        lanes.wait_for_room().await;
    }

    /// What keeps the run from sending.
    pub(super) fn rests(&self) -> Rest {
        Rest {
            kit: self.kit.clone(),
            facts: Arc::clone(&self.facts),
            send_window: self.spec.send_window.clone(),
            place: self.place.clone(),
        }
    }

    /// Nothing more goes to the run's destination until a person lets it.
    pub(super) async fn pause_destination(&self, reason: &str) -> Result<(), RunError> {
        let scope = PauseScope::Refusing(self.facts.destination.clone());
        tracing::error!(
            campaign.name = %self.facts.campaign, run.id = %self.facts.run,
            destination.name = %self.facts.destination,
            "destination {} is paused: {reason}", self.facts.destination,
        );
        let change = PauseChange {
            scope: scope.clone(),
            paused: true,
            by: PAUSED_BY.to_owned(),
            at: self.kit.clock.now(),
        };
        self.kit.ledger.set_pause(change).await?;
        self.kit.pauses.begin(scope);
        Ok(())
    }
}
