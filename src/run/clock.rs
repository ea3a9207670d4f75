//! The one place that reads the clock.

use async_trait::async_trait;
use jiff::Timestamp;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// What [`SystemClock`] counts from.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time, as the engine sees it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// The time since some fixed instant. Unlike the wall clock it is never
    /// set; by default it is told by it.
    fn elapsed(&self) -> Duration {
        let since = self.now().duration_since(Timestamp::UNIX_EPOCH);
        Duration::try_from(since).unwrap_or_default()
    }

    /// Returns after `delay`.
    async fn sleep(&self, delay: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        ORIGIN.elapsed()
    }

    async fn sleep(&self, delay: Duration) {
        tokio::time::sleep(delay).await;
    }
}
