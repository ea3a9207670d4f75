//! When a run that waits in the line may begin: its campaign's last run has
//! ended, and the hours it may send in have come.

use super::runs::Runs;
use crate::campaign::RunSpec;
use crate::run::{RunRecord, RunState};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a run asks whether it is its turn.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl Runs {
    /// Returns once it is the run's turn. One that has begun has had it, and
    /// one that is cancelled waits for nothing.
    pub(super) async fn its_turn(&self, record: &RunRecord, cancel: &CancellationToken) {
        let window = RunSpec::from_json(&record.spec)
            .ok()
            .and_then(|spec| spec.send_window);
        while record.state == RunState::Queued && !cancel.is_cancelled() {
            let now = self.world().clock.now();
            let opens_at = window.as_ref().and_then(|window| window.opens_at(now));
            if opens_at.is_none() && !self.is_behind_another(record).await {
                break;
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.sleep(ASK_EVERY) => {}
            }
        }
    }

    /// Whether another run of the campaign is under way, or waits for longer.
    async fn is_behind_another(&self, record: &RunRecord) -> bool {
        let open = match self.world().ledger.open_runs_of(&record.campaign).await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(run.id = %record.run, "open runs cannot be read: {error}");
                return true;
            }
        };
        open.iter().any(|other| {
            let is_first = other.state != RunState::Queued
                || (other.fire_time, &other.run) < (record.fire_time, &record.run);
            other.run != record.run && is_first
        })
    }
}
