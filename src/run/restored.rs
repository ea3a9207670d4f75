//! A warehouse that was restored to an older state has forgotten whom it was
//! told about: its caps and its history are wrong, so nothing is sent until a
//! person says that they may be.

use super::carrier::{Carrier, RunError};

impl Carrier {
    /// An error if the warehouse does not know the newest run it was told of.
    /// Kept in the ledger for those who ask for the status.
    pub(super) async fn refuse_restored(&self) -> Result<(), RunError> {
        let connector = &self.spec.connector;
        let ledger = &self.kit.ledger;
        let alarms = ledger.connector_alarms().await?;
        let was_wrong = alarms.iter().any(|(name, _)| name == connector);
        let forgotten = match ledger.newest_settled(connector).await? {
            Some(newest) => {
                let newest = &newest;
                let known = self
                    .ask(|warehouse| async move { warehouse.has_run(newest).await })
                    .await?;
                (!known).then(|| newest.clone())
            }
            None => None,
        };
        let Some(run) = forgotten else {
            if was_wrong {
                ledger.set_connector_alarm(connector, None).await?;
            }
            return Ok(());
        };
        let message = format!(
            "nothing is sent on connector `{connector}`: its `runs` table has forgotten {run}, so the \
             warehouse was restored to an older state, and caps and history lack what was sent since; \
             restore a newer one, or stop the daemon and say `campaignd connector accept {connector}`"
        );
        if !was_wrong {
            let alarm = Some(message.clone());
            ledger.set_connector_alarm(connector, alarm).await?;
        }
        Err(RunError::Restored(message))
    }
}
