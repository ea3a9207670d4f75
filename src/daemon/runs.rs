//! Carries the runs the ledger has open, `max_runs` at a time.

use super::world::World;
use crate::campaign::RunSpec;
use crate::history::{RunStatus, UnstartedRun};
use crate::id::{CampaignName, ConnectorName, RunId};
use crate::run::{
    Carrier, LedgerError, Place, Progress, Reporter, RunError, RunRecord, RunState, Turn, Turns,
    Warehouse,
};
use crate::schedule::Standing;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a run rests after an error that its steps do not retry themselves:
/// a lost ledger, a login that is refused, a connector taken out of the file.
const REST: Duration = Duration::from_secs(15);

/// The runs under way.
#[derive(Clone)]
pub(super) struct Runs {
    current: Arc<RwLock<Current>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    /// The runs that are carried, with their campaigns. A blocking mutex:
    /// nothing awaits under it.
    open: Arc<Mutex<BTreeMap<RunId, Carried>>>,
}

/// What runs are begun with; another after a reload.
struct Current {
    world: Arc<World>,
    max_runs: u32,
    permits: Turns,
}

/// What is known here of a run that is carried.
#[derive(Clone)]
struct Carried {
    campaign: CampaignName,
    cancel: CancellationToken,
    /// None before its turn.
    progress: Option<watch::Receiver<Progress>>,
}

impl Runs {
    /// No runs yet; `max_runs` at a time, until `stop`.
    pub(super) fn new(world: Arc<World>, max_runs: u32, stop: CancellationToken) -> Self {
        let permits = Turns::new(max_runs, Arc::clone(&world.clock));
        Self {
            current: Arc::new(RwLock::new(Current {
                world,
                max_runs,
                permits,
            })),
            tasks: TaskTracker::new(),
            stop,
            open: Arc::default(),
        }
    }

    /// What runs are begun with now.
    pub(super) fn world(&self) -> Arc<World> {
        let current = self.current.read();
        let current = current.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.world)
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        let clock = Arc::clone(&self.world().clock);
        clock.sleep(duration).await;
    }

    fn permits(&self) -> Turns {
        let current = self.current.read();
        let current = current.unwrap_or_else(PoisonError::into_inner);
        current.permits.clone()
    }

    /// Begins runs with `world` from now on, `max_runs` at a time. Those that
    /// are carried keep what they were begun with; beside a lower limit they
    /// are too many until they have ended.
    pub(super) fn change(&self, world: Arc<World>, max_runs: u32) {
        let current = self.current.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        if current.max_runs != max_runs {
            current.max_runs = max_runs;
            current.permits = Turns::new(max_runs, Arc::clone(&world.clock));
        }
        current.world = world;
    }

    /// How far the run is, where it is carried here and has had its turn.
    pub(super) fn progress(&self, run: &RunId) -> Option<Progress> {
        let open = self.open();
        let receiver = open.get(run)?.progress.as_ref()?;
        Some(*receiver.borrow())
    }

    /// All runs that are carried here, each campaign's in the order of their
    /// fire times.
    pub(super) fn all_open(&self) -> HashMap<CampaignName, Vec<RunId>> {
        let mut all: HashMap<CampaignName, Vec<RunId>> = HashMap::new();
        for (run, of) in self.open().iter() {
            all.entry(of.campaign.clone())
                .or_default()
                .push(run.clone());
        }
        all
    }

    /// Ends a run early. Returns whether it is carried here.
    pub(super) fn cancel(&self, run: &RunId) -> bool {
        let carried = self.open().get(run).cloned();
        carried.is_some_and(|carried| {
            carried.cancel.cancel();
            true
        })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<RunId, Carried>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a run, from whichever state it is in.
    pub(super) fn begin(&self, record: RunRecord) {
        let run = record.run.clone();
        let carried = Carried {
            campaign: record.campaign.clone(),
            cancel: CancellationToken::new(),
            progress: None,
        };
        let cancel = carried.cancel.clone();
        match self.open().entry(run.clone()) {
            // Found by a look at the ledger between its claim and here.
            Entry::Occupied(_) => return,
            Entry::Vacant(free) => free.insert(carried),
        };
        let runs = self.clone();
        self.tasks.spawn(async move {
            let has_ended = runs.carry(record, cancel).await;
            runs.open().remove(&run);
            if has_ended {
                runs.look_again(&run).await;
            }
        });
    }

    /// A run that a person let go on while it was being laid aside here.
    async fn look_again(&self, run: &RunId) {
        match self.world().ledger.run(run).await {
            Ok(Some(newer)) if newer.state.is_open() => self.begin(newer),
            Ok(_) => {}
            Err(error) => tracing::error!(run.id = %run, "{error}"),
        }
    }

    /// Ends what was cancelled on another host of a shared ledger.
    pub(super) async fn look_for_cancels(&self) {
        let carried: Vec<RunId> = self.open().keys().cloned().collect();
        for run in carried {
            match self.world().ledger.is_cancelled(&run).await {
                Ok(true) => drop(self.cancel(&run)),
                Ok(false) => {}
                Err(error) => tracing::warn!(run.id = %run, "{error}"),
            }
        }
    }

    /// Takes up every run the ledger has open and nobody carries, here or on
    /// another host.
    pub(super) async fn take_up(&self) -> Result<(), LedgerError> {
        // Noted first: a run that ends meanwhile is still in it.
        let carried = self.open().clone();
        for record in self.world().ledger.runs_to_take_up().await? {
            if !carried.contains_key(&record.run) {
                self.begin(record);
            }
        }
        Ok(())
    }

    /// Takes up what other hosts leave, until `stop`, where others share the
    /// ledger.
    pub(super) fn watch_other_hosts(&self) {
        let Some(every) = self.world().rescan_every() else {
            return;
        };
        let runs = self.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = runs.stop.cancelled() => return,
                    () = runs.sleep(every) => {}
                }
                if let Err(error) = runs.take_up().await {
                    tracing::error!("runs of other hosts cannot be looked for: {error}");
                }
            }
        });
    }

    /// Writes rows for fire times that no run was started for, asking again
    /// until the warehouse takes them. What is cut off by the end of the
    /// process is written at the next start.
    pub(super) fn record_unstarted(&self, unstarted: Unstarted) {
        for (connector, rows) in unstarted.0 {
            if let Some(warehouse) = self.world().warehouse(&connector) {
                let warehouse = Arc::clone(warehouse);
                self.tasks
                    .spawn(self.clone().write_unstarted(warehouse, rows));
            }
        }
    }

    async fn write_unstarted(self, warehouse: Arc<dyn Warehouse>, rows: Vec<UnstartedRun>) {
        while let Err(error) = warehouse.record_unstarted(&rows).await {
            tracing::warn!("{} fire times have no row in runs yet: {error}", rows.len());
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.sleep(REST) => {}
            }
        }
    }

    /// Waits until every run has ended or has been left for the next start.
    pub(super) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns whether the run has ended, or is held.
    async fn carry(&self, mut record: RunRecord, cancel: CancellationToken) -> bool {
        loop {
            let (mut rest, mut waits_for_data) = (REST, false);
            let permit = tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                permit = async {
                    self.its_turn(&record, &cancel).await;
                    let permits = self.permits();
                    let turn = permits.take(standing(&record)).await;
                    (permits, turn)
                } => permit,
            };
            tracing::info!(
                campaign.name = %record.campaign, run.id = %record.run, run.state = record.state.as_str(),
                "{} begun", record.run,
            );
            match self.carry_once(&record, permit, &cancel).await {
                Ok(state) => {
                    self.say_ended(&record, state).await;
                    return true;
                }
                Err(RunError::Interrupted) => {
                    tracing::info!(
                        campaign.name = %record.campaign, run.id = %record.run,
                        "{} left for the next start", record.run,
                    );
                    return false;
                }
                Err(RunError::NotFresh(again)) => {
                    tracing::info!(
                        campaign.name = %record.campaign, run.id = %record.run,
                        "{} waits for fresh data, asked again in {again:.0?}", record.run,
                    );
                    (rest, waits_for_data) = (again, true);
                }
                Err(RunError::Elsewhere) => {
                    tracing::info!(
                        campaign.name = %record.campaign, run.id = %record.run,
                        "{} is carried by another host", record.run,
                    );
                    return false;
                }
                Err(error) => tracing::error!(
                    campaign.name = %record.campaign, run.id = %record.run,
                    delay_ms = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX),
                    "{} cannot go on; trying again in {REST:?}: {error}", record.run,
                ),
            }
            // Its place was left to others with the carrier.
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = cancel.cancelled(), if waits_for_data => {}
                () = self.sleep(rest) => {}
            }
            match self.world().ledger.run(&record.run).await {
                Ok(Some(newer)) => record = newer,
                Ok(None) => return false,
                Err(error) => tracing::error!(run.id = %record.run, "{error}"),
            }
        }
    }

    async fn carry_once(
        &self,
        record: &RunRecord,
        (permits, permit): (Turns, Turn),
        cancel: &CancellationToken,
    ) -> Result<RunState, RunError> {
        let spec =
            RunSpec::from_json(&record.spec).map_err(|error| RunError::Spec(error.to_string()))?;
        let kit = self.world().kit(record, &spec).await?;
        let kit = kit.map_err(|error| RunError::Undefined(error.to_string()))?;
        let (reporter, progress) = Reporter::new(record.state);
        if let Some(carried) = self.open().get_mut(&record.run) {
            carried.progress = Some(progress);
        }
        let ending = self.stop.child_token();
        let place = Place::new(permits, permit, standing(record), ending.clone());
        let carrying = Carrier::new(record, kit, reporter, self.stop.clone())?
            .until_cancelled(cancel.clone())
            .at(place)
            .carry();
        let mut carrying = std::pin::pin!(carrying);
        tokio::select! {
            biased;
            ended = &mut carrying => return ended,
            () = cancel.cancelled() => ending.cancel(),
        }
        carrying.await
    }

    async fn say_ended(&self, record: &RunRecord, state: RunState) {
        let last = self.world().ledger.run(&record.run).await.ok().flatten();
        let tally = last
            .as_ref()
            .and_then(|last| last.tally)
            .unwrap_or_default();
        let error = last.and_then(|last| last.error).unwrap_or_default();
        let all_well = matches!(state, RunState::Finished | RunState::Skipped);
        if all_well {
            tracing::info!(
                campaign.name = %record.campaign, run.id = %record.run, run.state = state.as_str(),
                members.delivered = tally.delivered, members.undelivered = tally.undelivered(),
                "{} {}: {} delivered", record.run, state.as_str(), tally.delivered,
            );
        } else {
            tracing::error!(
                campaign.name = %record.campaign, run.id = %record.run, run.state = state.as_str(),
                members.delivered = tally.delivered, members.undelivered = tally.undelivered(),
                "{} {}: {error}", record.run, state.as_str(),
            );
        }
    }
}

/// Where the run stands in the line: one that was begun goes on before others
/// are begun.
fn standing(record: &RunRecord) -> Standing {
    Standing {
        under_way: record.started_at.is_some(),
        // One that cannot be read is told so when it is carried.
        priority: RunSpec::from_json(&record.spec).map_or(0, |spec| spec.priority),
        fire_time: record.fire_time,
    }
}

/// Fire times that no run was started for, by connector: their rows in `runs`,
/// and nothing else of them, since they may be thousands.
#[derive(Default)]
pub(super) struct Unstarted(BTreeMap<ConnectorName, Vec<UnstartedRun>>);

impl Unstarted {
    /// Adds the row of `record`, if it is such a one.
    pub(super) fn add(&mut self, record: &RunRecord) {
        if let Some(row) = unstarted(record) {
            let connector = record.connector.clone();
            self.0.entry(connector).or_default().push(row);
        }
    }
}

fn unstarted(record: &RunRecord) -> Option<UnstartedRun> {
    // One that was started is another daemon's, which writes its row itself.
    let status = match record.state {
        _ if record.started_at.is_some() => return None,
        RunState::Missed => RunStatus::Missed,
        RunState::Skipped => RunStatus::Skipped,
        _ => return None,
    };
    Some(UnstartedRun {
        run: record.run.clone(),
        campaign: record.campaign.clone(),
        campaign_version: record.campaign_version.clone(),
        fire_time: record.fire_time,
        status,
        reason: record.error.clone().unwrap_or_default(),
    })
}
