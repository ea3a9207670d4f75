//! The warehouse's queue: so many statements at a time, the others wait in
//! line, and not for ever. Redshift calls it workload management.

use super::gate_wire::Refusal;
use super::redshift_gate_rules::reads_or_writes_rows;
use super::redshift_gate_words::words;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A queue; clones are the same.
#[derive(Clone)]
pub struct Wlm {
    slots: Arc<Semaphore>,
    /// How long a statement may wait for a slot.
    patience: Option<Duration>,
}

impl Wlm {
    /// Of so many slots.
    pub fn new(slots: usize, patience: Option<Duration>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            patience,
        }
    }

    /// Waits for a slot, where `sql` needs one: transaction control, locks,
    /// settings, what the leader node answers by itself and what defines a
    /// table without filling it need none. Who waits too long is refused.
    pub async fn slot(&self, sql: &str) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if !reads_or_writes_rows(&words(sql)) {
            return Ok(None);
        }
        let slot = Arc::clone(&self.slots).acquire_owned();
        let slot = match self.patience {
            None => slot.await,
            Some(patience) => match tokio::time::timeout(patience, slot).await {
                Ok(slot) => slot,
                Err(_) => return Err(abort()),
            },
        };
        Ok(slot.ok())
    }

    /// Somebody else's statements have so many of the slots until what is
    /// returned is dropped.
    pub async fn occupy(&self, slots: u32) -> OwnedSemaphorePermit {
        let slots = Arc::clone(&self.slots).acquire_many_owned(slots);
        slots.await.expect("the queue is never closed")
    }
}

/// A rule on `query_queue_time` whose action is to abort. The code is assumed.
fn abort() -> Refusal {
    let message = "Query (150) cancelled by WLM abort action of Query Monitoring Rule \"waits\".";
    Refusal::error("57014", message)
}
