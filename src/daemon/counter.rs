//! The desk of a running daemon: what is asked of it, with the runs it
//! carries.

use super::desk::Desk;
use super::manual::{Directory, OpenRun};
use super::runs::Runs;
use crate::admin::{Handler, Reply, Request, Seen};
use crate::id::RunId;
use crate::run::{Progress, RunRecord, RunState};
use async_trait::async_trait;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// How often, and how many times, it is looked whether what a person has
/// decided is in history: for 15 seconds.
const SETTLED_LOOK: Duration = Duration::from_millis(100);
const SETTLED_LOOKS: u32 = 150;

/// Runs that people begin at a time: each asks its warehouse first, and may
/// wait for it at one of the few connections that a pause needs too.
const MAX_BEGINNING: usize = 4;

/// The desk of a running daemon.
pub(super) struct Counter {
    desk: Arc<Desk>,
    runs: Runs,
    campaigns: watch::Receiver<Arc<Directory>>,
    beginning: Semaphore,
}

impl Counter {
    /// Takes requests for `runs` of the campaigns in force.
    pub(super) fn new(
        desk: Arc<Desk>,
        runs: Runs,
        campaigns: watch::Receiver<Arc<Directory>>,
    ) -> Self {
        Self {
            desk,
            runs,
            campaigns,
            beginning: Semaphore::new(MAX_BEGINNING),
        }
    }

    /// Begins a manual run under the daemon's own limits.
    async fn run(&self, name: &str, fire_time: Option<Timestamp>, by: &str) -> Reply {
        let Ok(_turn) = self.beginning.try_acquire() else {
            return Reply::Failed(format!(
                "{MAX_BEGINNING} runs are waiting for their warehouses to answer; try again in a minute"
            ));
        };
        let directory = Arc::clone(&self.campaigns.borrow());
        let campaign = match directory.find(name) {
            Ok(campaign) => campaign,
            Err(reply) => {
                let action = self.desk.action(by, "run", name);
                let refused = async { Err::<Reply, Reply>(reply) };
                return self.desk.noted(action, refused).await.unwrap_or_else(|r| r);
            }
        };
        let world = self.runs.world();
        let begun = world.begin_manual(&campaign, fire_time, OpenRun::Refuses, by);
        match begun.await {
            Ok(record) => {
                tracing::info!(
                    campaign.name = %record.campaign, run.id = %record.run, run.by = by,
                    "{} asked for by {by}", record.run,
                );
                self.runs.begin(record.clone());
                seen(record, None)
            }
            Err(reply) => reply,
        }
    }

    async fn look(&self, run: &RunId) -> Reply {
        match self.desk.find(run).await {
            Ok(record) => seen(record, self.runs.progress(run)),
            Err(reply) => reply,
        }
    }

    /// Waits until history has what was decided, so that the next decision
    /// finds the run as it was.
    async fn after_resolving(&self, run: &RunId) -> Reply {
        for _ in 0..SETTLED_LOOKS {
            let state = match self.desk.find(run).await {
                Ok(record) => record.state,
                Err(reply) => return reply,
            };
            if !state.is_open() {
                return Reply::Done(format!("{run} is {}", state.as_str()));
            }
            self.desk.clock.sleep(SETTLED_LOOK).await;
        }
        Reply::Done(format!("{run} is being settled"))
    }
}

fn seen(record: RunRecord, progress: Option<Progress>) -> Reply {
    Reply::Seen(Box::new(Seen { record, progress }))
}

#[async_trait]
impl Handler for Counter {
    async fn answer(&self, request: Request, by: &str) -> Reply {
        match request {
            Request::Run {
                campaign,
                fire_time,
            } => self.run(&campaign, fire_time, by).await,
            Request::Look { run } => self.look(&run).await,
            Request::Pause { scope } => self.desk.set_pause(&scope, true, by).await,
            Request::Unpause { scope } => self.desk.set_pause(&scope, false, by).await,
            Request::NoteErasure { erasing, outcome } => {
                self.desk.note_erasure(&erasing, outcome, by).await
            }
            Request::AcceptConnector { connector } => self.desk.accept(&connector, by).await,
            Request::Resume { run } => match self.desk.resume(&run, by).await {
                Ok(record) => {
                    self.runs.begin(record);
                    Reply::Done(format!("{run} goes on from what is not yet delivered"))
                }
                Err(reply) => reply,
            },
            Request::Resolve { run, resolution } => {
                match self.desk.resolve(&run, resolution, by).await {
                    Ok(record) if record.state == RunState::Sending => {
                        Reply::Done(format!("{run} carries on; history has it within a minute"))
                    }
                    Ok(record) => {
                        self.runs.begin(record);
                        self.after_resolving(&run).await
                    }
                    Err(reply) => reply,
                }
            }
            Request::Cancel { run } => match self.desk.cancel(&run, by).await {
                Ok(record) => {
                    if !self.runs.cancel(&run) {
                        self.runs.begin(record);
                    }
                    Reply::Done(format!(
                        "{run} is cancelled; what is on the wire ends, and nothing else leaves"
                    ))
                }
                Err(reply) => reply,
            },
        }
    }
}
