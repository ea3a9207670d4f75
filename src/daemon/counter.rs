//! The desk of a running daemon: what is asked of it, with the runs it
//! carries.

use super::desk::{Desk, failed};
use super::manual::{Directory, OpenRun, Wish};
use super::plan::{Asked, CountView};
use super::runs::Runs;
use crate::admin::{Handler, PlanWish, Reply, Request, Seen};
use crate::campaign::Campaign;
use crate::id::RunId;
use crate::run::{Progress, RunRecord, RunState};
use crate::schedule::Standing;
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

/// Plans and counts at a time: they may wait for long, at connections that a
/// pause needs too.
const MAX_READING: usize = 2;

/// The desk of a running daemon.
pub(super) struct Counter {
    desk: Arc<Desk>,
    runs: Runs,
    campaigns: watch::Receiver<Arc<Directory>>,
    beginning: Semaphore,
    reading: Semaphore,
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
            reading: Semaphore::new(MAX_READING),
        }
    }

    /// Begins a manual run under the daemon's own limits.
    async fn run(&self, name: &str, wish: Wish, by: &str) -> Reply {
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
        let begun = world.begin_manual(&campaign, wish, OpenRun::Refuses, by);
        self.begun(begun.await, by)
    }

    /// Carries what was begun.
    fn begun(&self, begun: Result<RunRecord, Reply>, by: &str) -> Reply {
        match begun {
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

    /// What a run of the campaign would be, for who has no credentials: with
    /// the campaign as it is in force, when it is the question's turn.
    async fn read(&self, name: &str, wish: Option<PlanWish>) -> Result<Reply, Reply> {
        let Ok(_turn) = self.reading.try_acquire() else {
            return Err(Reply::Failed(format!(
                "{MAX_READING} plans and counts are being worked out; try again in a minute"
            )));
        };
        let directory = Arc::clone(&self.campaigns.borrow());
        let campaign = directory.find(name)?;
        let world = self.runs.world();
        let gone = || Reply::Refused("its connector or destination is gone".to_owned());
        let (options, queries) = world.reader(&campaign.connector).ok_or_else(gone)?;
        let terms = world.terms(&campaign.activation.destination);
        let now = world.clock.now();
        let asked = Asked::new(&campaign, (options, terms.ok_or_else(gone)?), now)?;
        let _permit = queries.take(standing(&campaign, now)).await;
        let told = match wish {
            None => serde_json::to_value(CountView {
                campaign: campaign.name.to_string(),
                counted_at: now,
                audience: asked.count(&campaign).await?,
            }),
            Some(wish) => {
                let run = asked.facts.run.clone();
                let last = async {
                    let last = world.ledger.last_scheduled(&campaign.name, &run).await;
                    Ok(last.map_err(failed)?.and_then(|last| last.funnel))
                };
                serde_json::to_value(asked.plan(&campaign, wish, last).await?)
            }
        };
        told.map(Reply::Told)
            .map_err(|error| Reply::Failed(error.to_string()))
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

impl Counter {
    fn files(&self) -> Reply {
        let told = serde_json::to_value(self.campaigns.borrow().files(self.desk.clock.now()));
        told.map_or_else(|error| Reply::Failed(error.to_string()), Reply::Told)
    }
}

/// A question waits as a run that is not under way does.
fn standing(campaign: &Campaign, now: Timestamp) -> Standing {
    Standing {
        under_way: false,
        priority: campaign.priority,
        fire_time: now,
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
                canary,
            } => self.run(&campaign, Wish { fire_time, canary }, by).await,
            Request::RunMissed {
                campaign,
                fire_time,
            } => {
                let world = self.runs.world();
                let begun = world.begin_missed(&campaign, fire_time, by).await;
                self.begun(begun, by)
            }
            Request::Plan { campaign, wish } => {
                let told = self.read(&campaign, Some(wish)).await;
                told.unwrap_or_else(|reply| reply)
            }
            Request::Count { campaign } => {
                let told = self.read(&campaign, None).await;
                told.unwrap_or_else(|reply| reply)
            }
            Request::Look { run } => self.look(&run).await,
            Request::Files => self.files(),
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
