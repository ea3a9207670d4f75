//! Held runs whose time is over: nothing more of them is sent, so they end,
//! and their campaigns go on.

use super::runs::Runs;
use crate::campaign::RunSpec;
use crate::run::{LedgerError, RunEvent};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long after its time a held run ends at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(30);

impl Runs {
    /// Ends held runs that have expired, now and from then on, until `stop`.
    pub(super) fn watch_expired(&self, stop: &CancellationToken) {
        let (runs, stop) = (self.clone(), stop.clone());
        self.tasks.spawn(async move {
            loop {
                if let Err(error) = runs.end_expired().await {
                    tracing::warn!("held runs that have expired cannot be ended: {error}");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = runs.sleep(LOOK_EVERY) => {}
                }
            }
        });
    }

    async fn end_expired(&self) -> Result<(), LedgerError> {
        let world = self.world();
        let now = world.clock.now();
        for held in world.ledger.held_runs().await? {
            let record = held.record;
            let spec = RunSpec::from_json(&record.spec).ok();
            let expires_at = spec.and_then(|spec| spec.expires_at(record.fire_time));
            if expires_at.is_none_or(|at| at > now) {
                continue;
            }
            // Where it goes on to, it finds that it has expired.
            let event = match held.has_sent {
                true => RunEvent::Resumed,
                false => RunEvent::BegunAgain,
            };
            // A person, or another host, may have been here first.
            if world.desk.move_on(&record, event, None).await.is_err() {
                continue;
            }
            if let Some(moved) = world.ledger.run(&record.run).await? {
                self.begin(moved);
            }
        }
        Ok(())
    }
}
