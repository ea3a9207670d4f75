//! Looks after the runs that nobody carries: ours are shown to be alive,
//! those of a daemon that was lost are taken over.

use super::runs::Runs;
use crate::id::ConnectorName;
use crate::run::adopt_silent;
use tokio_util::sync::CancellationToken;

impl Runs {
    /// Looks into `open_runs` of each connector, now and as often as runs
    /// must be shown to be alive, until `stop`. A connector that hangs holds up
    /// no other.
    pub(super) fn look_after_silent(&self, stop: &CancellationToken) {
        for connector in self.world().connectors() {
            let looking = self.clone().look_at(connector.clone(), stop.clone());
            self.tasks.spawn(looking);
        }
    }

    async fn look_at(self, connector: ConnectorName, stop: CancellationToken) {
        loop {
            let world = self.world();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.look_once(&connector) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = world.clock.sleep(world.guards.seen_every()) => {}
            }
        }
    }

    async fn look_once(&self, connector: &ConnectorName) {
        let world = self.world();
        let Some(warehouse) = world.warehouse(connector) else {
            return;
        };
        let looked = adopt_silent(
            connector,
            warehouse,
            world.ledger.as_ref(),
            &world.guards,
            world.clock.now(),
        );
        if let Err(error) = looked.await {
            tracing::warn!(
                connector.name = %connector,
                "the runs that nobody carries in `{connector}` were not looked after: {error}",
            );
        }
    }
}
