//! When a run that waits in the line may begin: its campaign's last run has
//! ended, and the hours it may send in have come.

use super::runs::Runs;
use crate::campaign::RunSpec;
use crate::run::{LedgerError, RunRecord, RunState};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a run asks whether it is its turn.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl Runs {
    /// Returns once it is the run's turn. One that has begun has had it, and
    /// one that is cancelled or has expired waits for nothing.
    pub(super) async fn its_turn(&self, record: &RunRecord, cancel: &CancellationToken) {
        let spec = RunSpec::from_json(&record.spec).ok();
        let window = spec.as_ref().and_then(|spec| spec.send_window.as_ref());
        let expires_at = spec
            .as_ref()
            .and_then(|spec| spec.expires_at(record.fire_time));
        while record.state == RunState::Queued && !cancel.is_cancelled() {
            let now = self.world().clock.now();
            if expires_at.is_some_and(|at| now >= at) {
                break;
            }
            let opens_at = window.and_then(|window| window.opens_at(now));
            if opens_at.is_none() && !self.is_behind_another(record).await {
                break;
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.sleep(ASK_EVERY) => {}
            }
        }
    }

    /// Whether another run of the campaign is under way, is held with something
    /// sent, or waits for longer.
    async fn is_behind_another(&self, record: &RunRecord) -> bool {
        let ledger = &self.world().ledger;
        let is_held = async || {
            let held = ledger.held_runs_of(&record.campaign).await?;
            Ok::<_, LedgerError>(held.iter().any(|other| other.has_sent))
        };
        let looked = async {
            // Before and after: a run that is held, or goes on, in between is
            // seen in one of the two.
            let was_held = is_held().await?;
            let open = ledger.open_runs_of(&record.campaign).await?;
            Ok::<_, LedgerError>((open, was_held || is_held().await?))
        };
        let (open, is_behind_held) = match looked.await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(run.id = %record.run, "open runs cannot be read: {error}");
                return true;
            }
        };
        is_behind_held
            || open.iter().any(|other| {
                let is_first = other.state != RunState::Queued
                    || (other.fire_time, &other.run) < (record.fire_time, &record.run);
                other.run != record.run && is_first
            })
    }
}
