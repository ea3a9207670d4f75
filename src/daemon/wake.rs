//! Wake-ups, from `tokio-cron-scheduler`.
//!
//! It wakes us and decides nothing: it polls every half second, drops what is
//! due while its queue is full, and keeps an offset where it should keep a
//! zone. One repeating job; what is due is computed from the stored cursor.

use std::sync::Arc;
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Every second: how late a fire time can be when its own timer is lost or the
/// clock was set.
const EVERY_SECOND: &str = "* * * * * *";

/// The largest burst of its events that the scheduler keeps.
const QUEUE: usize = 16_384;

/// A wake-up every second.
pub(super) struct WakeUps {
    scheduler: JobScheduler,
    wake: Arc<Notify>,
}

impl WakeUps {
    pub(super) async fn start() -> Result<Self, JobSchedulerError> {
        let mut scheduler = JobScheduler::new_with_channel_size(QUEUE).await?;
        scheduler.init().await?;
        let wake = Arc::new(Notify::new());
        let woken = Arc::clone(&wake);
        let job = Job::new(EVERY_SECOND, move |_, _| woken.notify_one())?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Self { scheduler, wake })
    }

    pub(super) async fn next(&mut self) {
        self.wake.notified().await;
    }

    pub(super) async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!("the wake-ups could not be stopped: {error}");
        }
    }
}
