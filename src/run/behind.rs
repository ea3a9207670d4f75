//! Whether settling keeps up: what was sent and is not in history yet is not
//! seen by other campaigns' caps, so sending waits for it.

use super::carrier::{Carrier, RunError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the backlog is looked at: a read of the ledger's own index.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Remembers when the backlog was last looked at.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    looked: Option<tokio::time::Instant>,
}

impl Carrier {
    /// Waits while settling is behind its bounds, or until `halt`.
    pub(super) async fn caught_up(
        &self,
        backlog: &mut Backlog,
        halt: &CancellationToken,
    ) -> Result<(), RunError> {
        let mut said = false;
        while backlog.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            let (unsettled, oldest) = self.kit.ledger.unsettled_backlog(&self.facts.run).await?;
            let now = self.kit.clock.now();
            let age = oldest.map_or(Duration::ZERO, |at| {
                Duration::try_from(now.duration_since(at)).unwrap_or_default()
            });
            if !self.kit.guards.is_behind(unsettled, age) {
                backlog.looked = Some(tokio::time::Instant::now());
                return Ok(());
            }
            if !said {
                said = true;
                tracing::warn!(
                    campaign.name = %self.facts.campaign, run.id = %self.facts.run,
                    "{} begins no batch: {unsettled} outcomes are not in history, the oldest for {age:.0?}; \
                     it goes on once the warehouse has taken them", self.facts.run,
                );
            }
            tokio::select! {
                biased;
                () = halt.cancelled() => return Ok(()),
                () = self.kit.clock.sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    }
}
