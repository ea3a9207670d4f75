//! Removes from each warehouse, and from the ledger, what has been kept long
//! enough.

use super::runs::Runs;
use crate::id::ConnectorName;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long after its time something is removed at the latest.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// The time between two steps in the ledger, most of which is free for others.
const STEP_EVERY: Duration = Duration::from_millis(200);

impl Runs {
    /// Tidies each connector, now and every hour, until `stop`. A connector
    /// that hangs holds up no other.
    pub(super) fn keep_tidy(&self, stop: &CancellationToken) {
        for connector in self.world().connectors() {
            let tidying = self.clone().tidy(connector.clone(), stop.clone());
            self.tasks.spawn(tidying);
        }
        self.tasks.spawn(self.clone().keep_forgetting(stop.clone()));
    }

    /// Removes from the ledger what has been kept long enough, now and every
    /// hour, until `stop`: step by step, so that what else is written waits
    /// for one step at most.
    async fn keep_forgetting(self, stop: CancellationToken) {
        loop {
            let world = self.world();
            let wait = match world.ledger.forget(world.forget(world.clock.now())).await {
                Ok(0) => TIDY_EVERY,
                Ok(_) => STEP_EVERY,
                Err(error) => {
                    tracing::warn!("the state store was not tidied: {error}");
                    TIDY_EVERY
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = world.clock.sleep(wait) => {}
            }
        }
    }

    async fn tidy(self, connector: ConnectorName, stop: CancellationToken) {
        loop {
            let clock = self.world().clock.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.tidy_once(&connector) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = clock.sleep(TIDY_EVERY) => {}
            }
        }
    }

    async fn tidy_once(&self, connector: &ConnectorName) {
        let world = self.world();
        let (Some(warehouse), Some(keep)) =
            (world.warehouse(connector), world.retention(connector))
        else {
            return;
        };
        let newest = match world.ledger.newest_settled(connector).await {
            Ok(newest) => newest,
            Err(error) => {
                tracing::warn!(connector.name = %connector, "`{connector}` was not tidied: {error}");
                return;
            }
        };
        match warehouse.tidy(keep, newest.as_ref()).await {
            Ok(tidied) if tidied.runs + tidied.tables > 0 => tracing::info!(
                connector.name = %connector,
                "removed from `{connector}`: the rows of {} runs, and {} tables of runs",
                tidied.runs,
                tidied.tables,
            ),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(connector.name = %connector, "`{connector}` was not tidied: {error}");
            }
        }
    }
}
