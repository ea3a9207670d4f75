//! What a run asks its warehouse: under a permit, and again as often as an
//! error's class allows.

use super::carrier::{Carrier, RunError};
use super::place::rest;
use super::ports::{Warehouse, WarehouseError};
use super::retry::{Delays, tries};
use super::state::RunState;
use super::strain::{News, Timed, how_it_ended};
use crate::schedule::Standing;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The first and the longest delay between two tries of a warehouse step.
const WAREHOUSE_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// How long a run keeps its place while the warehouse does not answer.
const KEEPS_PLACE: Duration = Duration::from_secs(30);

/// The time from an instant on, less what was waited in it.
#[derive(Debug)]
pub(super) struct Work {
    since: Duration,
    /// In microseconds.
    waited: AtomicU64,
}

impl Work {
    /// From `now` on, by the clock's `elapsed`.
    pub(super) fn since(now: Duration) -> Self {
        Self {
            since: now,
            waited: AtomicU64::new(0),
        }
    }

    fn waited(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.waited.fetch_add(micros, Relaxed);
    }

    /// How much it is at `now`.
    pub(super) fn until(&self, now: Duration) -> Duration {
        let waited = Duration::from_micros(self.waited.load(Relaxed));
        now.saturating_sub(self.since).saturating_sub(waited)
    }
}

impl Carrier {
    /// Asks the warehouse under a permit, and again as often as the error's
    /// class allows. The permit is given back while we wait.
    pub(super) async fn ask<'a, T, F>(
        &'a self,
        question: impl Fn(&'a dyn Warehouse) -> F,
    ) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, WarehouseError>>,
    {
        self.ask_under(None, question).await
    }

    /// The same for a statement whose time tells how the warehouse is.
    pub(super) async fn ask_timed<'a, T, F>(
        &'a self,
        timed: Timed,
        question: impl Fn(&'a dyn Warehouse) -> F,
    ) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, WarehouseError>>,
    {
        self.ask_under(Some(timed), question).await
    }

    async fn ask_under<'a, T, F>(
        &'a self,
        timed: Option<Timed>,
        question: impl Fn(&'a dyn Warehouse) -> F,
    ) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, WarehouseError>>,
    {
        self.patiently(|| async {
            let asking = async {
                let asked = self.kit.clock.elapsed();
                let turn = self.kit.queries.take(self.standing()).await;
                let begun = self.kit.clock.elapsed();
                self.work.waited(begun.saturating_sub(asked));
                let answer = question(self.kit.warehouse.as_ref()).await;
                let ended = how_it_ended(answer.as_ref().err(), timed);
                if let Some(news) = turn.ended(begun, ended) {
                    self.tell(news);
                }
                answer
            };
            let mut asking = pin!(asking);
            tokio::select! {
                biased;
                answer = &mut asking => return answer,
                () = self.kit.clock.sleep(KEEPS_PLACE) => {}
            }
            rest(self.place.as_ref(), asking).await
        })
        .await
    }

    fn tell(&self, news: News) {
        let connector = &self.spec.connector;
        match news {
            News::Halved { from, to } => tracing::warn!(
                connector.name = %connector,
                "connector {connector} is under strain: at most {to} of its statements at a time \
                 instead of {from}",
            ),
            News::Whole(limit) => tracing::info!(
                connector.name = %connector,
                "connector {connector} takes {limit} statements at a time again",
            ),
        }
    }

    /// Where it stands among those who wait for the warehouse.
    fn standing(&self) -> Standing {
        Standing {
            under_way: !matches!(self.state, RunState::Queued | RunState::Staging),
            priority: self.spec.priority,
            fire_time: self.facts.fire_time,
        }
    }

    /// Repeats `step` while its error's class allows, until we are stopped.
    pub(super) async fn patiently<T, F>(&self, step: impl Fn() -> F) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, WarehouseError>>,
    {
        let mut delays = Delays::new(WAREHOUSE_DELAYS.0, WAREHOUSE_DELAYS.1);
        let begun = self.kit.clock.now();
        let mut tried = 0;
        loop {
            let error = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(RunError::Interrupted),
                result = step() => match result {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                },
            };
            tried += 1;
            let waited = self.kit.clock.now().duration_since(begun).unsigned_abs();
            let out_of_time = self
                .kit
                .give_up_on_warehouse
                .is_some_and(|limit| waited >= limit);
            if tries(error.class).is_some_and(|tries| tried >= tries) || out_of_time {
                return Err(error.into());
            }
            let delay = delays.next();
            tracing::warn!(
                campaign.name = %self.facts.campaign, run.id = %self.facts.run,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "the warehouse did not answer {}; asking again in {delay:.1?}: {error}", self.facts.run,
            );
            let resting = self.kit.clock.elapsed();
            tokio::select! {
                () = self.stop.cancelled() => return Err(RunError::Interrupted),
                () = rest(self.place.as_ref(), self.kit.clock.sleep(delay)) => {}
            }
            let rested = self.kit.clock.elapsed().saturating_sub(resting);
            self.work.waited(rested);
        }
    }
}
