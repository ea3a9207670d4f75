//! Waits for a destination that nothing can be sent to, without a place among
//! the runs under way.

use super::carrier::{Carrier, Kit};
use super::lanes::Lanes;
use super::place::{Place, rest};
use crate::history::RunFacts;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is asked whether a breaker has closed.
const LOOK: Duration = Duration::from_secs(1);

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
            kit.clock.sleep(LOOK).await;
        }
    };
    rest(place, until(halt, closing)).await;
    kit.clock.elapsed().saturating_sub(since)
}

/// Waits while something of the run is paused; false if it is to halt.
pub(super) async fn while_paused(
    kit: &Kit,
    facts: &RunFacts,
    place: Option<&Place>,
    halt: &CancellationToken,
) -> bool {
    let mut pauses = kit.pauses.clone();
    let lifting = pauses.lifted(&facts.campaign, &facts.destination);
    rest(place, until(halt, lifting)).await
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
        let (kit, facts, place) = (&self.kit, &self.facts, self.place.as_ref());
        if kit.pauses.cover(&facts.campaign, &facts.destination) {
            while_paused(kit, facts, place, halt).await;
        }
        while_broken(kit, place, halt).await;
        lanes.wait_for_room().await;
    }
}
