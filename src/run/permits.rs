//! The rights to do one more of something limited.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A limit shared by all who hold a clone of it.
#[derive(Debug, Clone)]
pub struct Limit {
    permits: Arc<Semaphore>,
    size: u32,
}

impl Limit {
    /// A limit of `size` at a time; at least 1.
    pub fn new(size: u32) -> Self {
        let size = size.max(1);
        Self {
            permits: Arc::new(Semaphore::new(size as usize)),
            size,
        }
    }

    /// How many there are in all.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Waits for a permit; dropping it gives it back. First come, first served.
    pub async fn take(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }
}
