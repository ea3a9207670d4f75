//! Runs whose members are not to be reached after a time.

use super::carrier::{Carrier, RunError, Step};
use super::state::RunEvent;
use jiff::Timestamp;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the ledger and history say of what was not sent in time.
pub(super) const EXPIRED: &str = "expired";

impl Carrier {
    /// When nothing more of the run is sent, if it says so.
    fn expires_at(&self) -> Option<Timestamp> {
        self.spec.expires_at(self.facts.fire_time)
    }

    /// Whether what is left of the run is not sent any more.
    pub(super) fn has_expired(&self) -> bool {
        let now = self.kit.clock.now();
        self.expires_at().is_some_and(|at| now >= at)
    }

    /// Stops sending once the run has expired; returns when it is `over`.
    pub(super) async fn expire(&self, over: &CancellationToken, halt: &CancellationToken) {
        tokio::select! {
            () = over.cancelled() => return,
            () = self.expired() => halt.cancel(),
        }
        over.cancelled().await;
    }

    /// Returns once the run has expired; never, if it does not.
    pub(super) async fn expired(&self) {
        let Some(at) = self.expires_at() else {
            return std::future::pending().await;
        };
        while !self.has_expired() {
            let left = Duration::try_from(at.duration_since(self.kit.clock.now()));
            self.kit.clock.sleep(left.unwrap_or_default()).await;
        }
    }

    /// Ends a run that has expired before anything was asked of the warehouse.
    pub(super) async fn expire_unbegun(&self) -> Result<Step, RunError> {
        tracing::warn!(
            campaign.name = %self.facts.campaign, run.id = %self.facts.run,
            "{} has expired before it could begin", self.facts.run,
        );
        self.end_unsent(EXPIRED, RunEvent::Expired).await
    }

    /// Ends what was begun and has not ended; the rest is found at the end of
    /// the run by that it has no outcome.
    pub(super) async fn expire_rest(&self) -> Result<Step, RunError> {
        tracing::warn!(
            campaign.name = %self.facts.campaign, run.id = %self.facts.run,
            "{} has expired: what is not sent by now is not sent", self.facts.run,
        );
        self.end_rest(EXPIRED).await
    }
}
