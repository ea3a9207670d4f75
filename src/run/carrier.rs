//! Carries one run from its fire time to its contact history.

use super::alive::Alive;
use super::ask::Work;
use super::cancel::CANCELLED;
use super::clock::Clock;
use super::expiry::EXPIRED;
use super::guards::Guards;
use super::lease::{Held, Keeper, lease_for};
use super::memory::Memory;
use super::pauses::Pauses;
use super::place::{Place, rest};
use super::ports::{
    Destination, Ledger, LedgerError, Registration, Warehouse, WarehouseError, WarehouseErrorClass,
};
use super::progress::Reporter;
use super::records::{RunChange, RunRecord};
use super::rejected::Words;
use super::reopen::Reopened;
use super::settler::Settler;
use super::state::{IllegalTransition, RunEvent, RunState};
use super::throttle::Throttle;
use super::turns::Turns;
use crate::audience::Funnel;
use crate::campaign::RunSpec;
use crate::delivery::Rules;
use crate::history::{Closing, RunFacts, RunStatus, Tally, Withheld};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a run is carried with: the world, and how much of it it may use.
#[derive(Clone)]
pub struct Kit {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Our own book.
    pub ledger: Arc<dyn Ledger>,
    /// The run's connector.
    pub warehouse: Arc<dyn Warehouse>,
    /// The connector's settling task.
    pub settler: Settler,
    /// Where the run sends.
    pub destination: Arc<dyn Destination>,
    /// What the operator has laid down for it.
    pub rules: Arc<Rules>,
    /// Statements at a time on the connector.
    pub queries: Turns,
    /// Lets requests to the destination begin.
    pub throttle: Throttle,
    /// Bytes of member data that runs hold.
    pub memory: Memory,
    /// What nothing is to be sent for.
    pub pauses: Pauses,
    /// How long a lease lasts, at least: [`super::DEFAULT_LEASE`].
    pub lease: Duration,
    /// How long a lost warehouse is asked again; none for without end.
    pub give_up_on_warehouse: Option<Duration>,
    /// When a run stops sending by itself.
    pub guards: Guards,
}

/// Why a run could not be carried to its end. It stays open in the ledger, and
/// is carried on from there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The warehouse.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// We are shutting down.
    #[error("stopped before its end; it is carried on at the next start")]
    Interrupted,
    /// Its data is not recent enough yet; it is taken up again after that
    /// long.
    #[error("its data is not fresh; looked at again in {0:?}")]
    NotFresh(Duration),
    /// Another host has the run's lease.
    #[error("another host carries it")]
    Elsewhere,
    /// The ledger holds a run specification that this version cannot read.
    #[error("the run specification cannot be read: {0}")]
    Spec(String),
    /// The settings no longer define what it needs.
    #[error("{0}")]
    Undefined(String),
    /// The warehouse has forgotten runs.
    #[error("{0}")]
    Restored(String),
    /// A bug.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A bug.
    #[error("a task of the run ended unexpectedly: {0}")]
    Task(String),
}

/// What a state's work came to.
pub(super) struct Step {
    pub(super) event: RunEvent,
    pub(super) funnel: Option<Funnel>,
    pub(super) tally: Option<Tally>,
    pub(super) error: Option<String>,
}

impl From<RunEvent> for Step {
    fn from(event: RunEvent) -> Self {
        Self {
            event,
            funnel: None,
            tally: None,
            error: None,
        }
    }
}

/// A run and what it is carried with.
pub struct Carrier {
    pub(super) kit: Kit,
    pub(super) facts: Arc<RunFacts>,
    pub(super) spec: RunSpec,
    pub(super) reporter: Reporter,
    /// Cancelled when we are to stop at the next safe place.
    pub(super) stop: CancellationToken,
    /// Whether the warehouse still has it as ours.
    pub(super) alive: Arc<Alive>,
    pub(super) held: Held,
    /// Cancelled when a person has cancelled the run.
    pub(super) cancel: CancellationToken,
    /// Its place among the runs under way; none where those are not limited.
    pub(super) place: Option<Place>,
    /// What receivers have said of members, until history has it.
    pub(super) words: Words,
    /// What it has done since it began to stage, or was taken up.
    pub(super) work: Work,
    pub(super) state: RunState,
    funnel: Option<Funnel>,
    tally: Option<Tally>,
    /// Why it failed, is held, or ends as it does, as the ledger has it.
    reason: Option<String>,
    /// Who was withheld since the members were numbered, as far as it has
    /// been asked. A blocking mutex: never held across an await.
    pub(super) withheld: Mutex<Arc<Withheld>>,
}

impl Carrier {
    /// Takes up the run where `record` says it is.
    pub fn new(
        record: &RunRecord,
        kit: Kit,
        reporter: Reporter,
        stop: CancellationToken,
    ) -> Result<Self, RunError> {
        let spec =
            RunSpec::from_json(&record.spec).map_err(|error| RunError::Spec(error.to_string()))?;
        let audience = spec
            .audience_of(&record.run, record.fire_time, kit.warehouse.dialect())
            .map_err(|error| RunError::Spec(error.to_string()))?;
        let facts = RunFacts {
            run: record.run.clone(),
            campaign: record.campaign.clone(),
            campaign_version: record.campaign_version.clone(),
            fire_time: record.fire_time,
            trigger: record.trigger,
            started_at: record.started_at.unwrap_or_else(|| kit.clock.now()),
            audience,
            batch_size: spec.batch_size.get(),
            destination: spec.destination.clone(),
            channel: spec.channel.clone(),
            attributes: spec.attributes_text(),
            owner: kit.ledger.installation().id,
            suppress: spec.suppress.clone(),
            policy: spec.policy.clone(),
            canary: spec.canary.map_or(0, NonZeroU32::get),
            term: record.term,
        };
        Ok(Self {
            alive: Arc::new(Alive::new()),
            work: Work::since(kit.clock.elapsed()),
            kit,
            facts: Arc::new(facts),
            spec,
            reporter,
            stop,
            held: Held::nothing(),
            cancel: CancellationToken::new(),
            words: Words::default(),
            place: None,
            state: record.state,
            funnel: record.funnel,
            tally: record.tally,
            reason: record.error.clone(),
            withheld: Mutex::default(),
        })
    }

    /// Ends the run early once `cancel` is cancelled; the ledger has it before.
    #[must_use]
    pub fn until_cancelled(mut self, cancel: CancellationToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Gives `place` back whenever nothing of the run can go on.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Carries the run until it has ended or is held, and returns that state.
    /// Each state's work may have been begun before, by us or by a process
    /// that died in it. The lease is taken before anything else;
    /// [`RunError::Elsewhere`] while another host's is in force.
    pub async fn carry(mut self) -> Result<RunState, RunError> {
        self.refuse_restored().await?;
        let ttl = lease_for(self.kit.lease, self.kit.rules.timeout);
        let run = self.facts.run.clone();
        let taken = Keeper::take(Arc::clone(&self.kit.ledger), run, ttl).await?;
        let keeper = taken.ok_or(RunError::Elsewhere)?;
        self.held = keeper.held();
        self.stop = self.stop.child_token();
        let stop = self.stop.clone();
        let alive = Arc::clone(&self.alive);
        let (kit, facts) = (self.kit.clone(), Arc::clone(&self.facts));
        let carrying = async {
            tokio::select! {
                ended = self.carry_on() => ended,
                never = alive.keep(&kit, &facts) => match never {},
            }
        };
        Self::under(&keeper, stop, carrying).await
    }

    async fn carry_on(mut self) -> Result<RunState, RunError> {
        // Another host may have moved it before the lease was ours.
        if let Some(newest) = self.kit.ledger.run(&self.facts.run).await? {
            self.state = newest.state;
            self.funnel = newest.funnel;
            self.tally = newest.tally;
            self.reason = newest.error;
            let facts = Arc::make_mut(&mut self.facts);
            facts.started_at = newest.started_at.unwrap_or(facts.started_at);
        }
        Arc::make_mut(&mut self.facts).term = self.held.term();
        if self.kit.ledger.is_cancelled(&self.facts.run).await? {
            self.cancel.cancel();
        }
        if self.state == RunState::Held {
            self.settle_held().await?;
        }
        while self.state.is_open() {
            self.reporter.entered(self.state);
            match self.reopen().await? {
                Reopened::Nothing => {}
                Reopened::Done(tally) => self.tally = tally.or(self.tally),
                Reopened::Never(step) => {
                    self.advance(step).await?;
                    continue;
                }
            }
            let step = match self.state {
                RunState::Queued | RunState::WaitingFresh if self.cancel.is_cancelled() => {
                    self.cancel_unsent().await
                }
                RunState::Queued | RunState::WaitingFresh if self.has_expired() => {
                    self.expire_unbegun().await
                }
                RunState::Queued => self.wait_while_paused().await,
                RunState::WaitingFresh => self.unless_cancelled(self.look_whether_fresh()).await,
                RunState::Staging => self.unless_cancelled(self.stage()).await,
                RunState::Admitting => self.unless_cancelled(self.admit()).await,
                RunState::Guarding => self.unless_cancelled(self.guard()).await,
                RunState::Sending => self.send().await,
                RunState::Settling => self.settle().await,
                RunState::Closing => self.close().await,
                state => Err(IllegalTransition {
                    state,
                    event: RunEvent::Admitted,
                }
                .into()),
            };
            let step = match step {
                Err(RunError::Warehouse(error)) if self.may_fail_for(&error) => {
                    self.fail(error).await?
                }
                // Whoever has taken the run over has written its end.
                Err(RunError::Warehouse(error)) if error.is_not_ours() => Step {
                    error: Some(error.message),
                    ..RunEvent::TakenElsewhere.into()
                },
                step => step?,
            };
            self.advance(step).await?;
        }
        self.reporter.entered(self.state);
        Ok(self.state)
    }

    /// A run of what is paused rests before it asks the warehouse anything.
    async fn wait_while_paused(&self) -> Result<Step, RunError> {
        let (campaign, destination) = (&self.facts.campaign, &self.facts.destination);
        let mut pauses = self.kit.pauses.clone();
        let lifted = async {
            while pauses.cover(campaign, destination) {
                rest(self.place.as_ref(), pauses.lifted(campaign, destination)).await;
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(RunError::Interrupted),
            () = self.cancel.cancelled() => self.cancel_unsent().await,
            () = self.expired() => self.expire_unbegun().await,
            () = lifted => Ok(self.begun().into()),
        }
    }

    /// Before anything is sent an error that no retry mends ends the run;
    /// later it stays open, so that what was sent is settled once a person has
    /// mended it.
    fn may_fail_for(&self, error: &WarehouseError) -> bool {
        let nothing_sent = matches!(
            self.state,
            RunState::WaitingFresh | RunState::Staging | RunState::Admitting | RunState::Guarding
        );
        nothing_sent && error.class != WarehouseErrorClass::Lost
    }

    async fn stage(&self) -> Result<Step, RunError> {
        let registration = self
            .ask(|warehouse| async move { warehouse.register(&self.facts).await })
            .await?;
        if registration == Registration::Ours {
            self.alive.registered();
        }
        if let Registration::Taken { by } = registration {
            let error = Some(format!("not carried here: {by}"));
            return Ok(Step {
                error,
                ..RunEvent::TakenElsewhere.into()
            });
        }
        self.ask(|warehouse| async move { warehouse.freeze(&self.facts).await })
            .await?;
        Ok(RunEvent::Frozen.into())
    }

    async fn admit(&self) -> Result<Step, RunError> {
        let funnel = self
            .ask(|warehouse| async move { warehouse.admit(&self.facts).await })
            .await?;
        self.ask(|warehouse| async move { warehouse.lay_out(&self.facts).await })
            .await?;
        Ok(Step {
            funnel: Some(funnel),
            ..RunEvent::LaidOut.into()
        })
    }

    async fn settle(&self) -> Result<Step, RunError> {
        let tally = self.settle_ended(RunStatus::Open, None).await?;
        Ok(Step {
            tally: Some(tally),
            ..RunEvent::HistoryWritten.into()
        })
    }

    /// What a person has decided of a held run's batches goes to history.
    async fn settle_held(&self) -> Result<(), RunError> {
        let (unsettled, _) = self.kit.ledger.unsettled_backlog(&self.facts.run).await?;
        if unsettled > 0 {
            let record = self.kit.ledger.run(&self.facts.run).await?;
            let why = record.and_then(|record| record.error);
            self.settle_ended(RunStatus::Held, why).await?;
        }
        Ok(())
    }

    async fn close(&self) -> Result<Step, RunError> {
        let tally = self.tally.unwrap_or_default();
        let gaps = tally.undelivered() > tally.rejected;
        let unsent = tally.cancelled + tally.still_open > 0;
        let (status, event, why) = if self.cancel.is_cancelled() && unsent {
            let why = Some(CANCELLED.to_owned());
            (RunStatus::Cancelled, RunEvent::ClosedCancelled, why)
        } else if gaps {
            // As decided when sending ended: the clock may say otherwise now.
            let why = self.reason.clone().filter(|why| why == EXPIRED);
            (RunStatus::Incomplete, RunEvent::ClosedWithGaps, why)
        } else {
            (RunStatus::Finished, RunEvent::ClosedWhole, None)
        };
        let closing = self.closing(status, why);
        let tally = self
            .ask(|warehouse| {
                let closing = &closing;
                async move { warehouse.close(closing).await }
            })
            .await?;
        Ok(Step {
            tally: Some(tally),
            ..event.into()
        })
    }

    /// What is left of a run that was cancelled or has expired is cancelled for
    /// the same reason.
    pub(super) fn closing(&self, status: RunStatus, error: Option<String>) -> Closing {
        let cancels = match status {
            RunStatus::Cancelled => error.clone(),
            RunStatus::Incomplete => error.clone().filter(|why| why == EXPIRED),
            _ => None,
        };
        Closing {
            facts: Arc::clone(&self.facts),
            funnel: self.funnel(),
            status,
            finished_at: self.kit.clock.now(),
            error,
            cancels_rest: cancels,
            keep_run_table: matches!(status, RunStatus::Incomplete | RunStatus::Cancelled),
            withheld_rows: self.kit.guards.withheld_rows,
        }
    }

    /// Closes the failed run. Where the warehouse cannot be told, the run
    /// stays as it is and fails another time: it would else be left in
    /// `open_runs` for good.
    async fn fail(&self, error: WarehouseError) -> Result<Step, RunError> {
        let text = match error.place {
            Some((line, column)) => format!(
                "audience.sql, line {line}, column {column}: {}",
                error.message
            ),
            None => error.message,
        };
        let closing = self.closing(RunStatus::Failed, Some(text.clone()));
        let closed = self
            .ask(|warehouse| {
                let closing = &closing;
                async move { warehouse.close(closing).await }
            })
            .await;
        match closed {
            Ok(_) => {}
            // It is not ours, or its row cannot be written: never.
            Err(RunError::Warehouse(never)) if never.class == WarehouseErrorClass::Statement => {
                tracing::warn!(
                    campaign.name = %self.facts.campaign, run.id = %self.facts.run,
                    "the failed run {} has no row in the warehouse: {never}", self.facts.run,
                );
            }
            Err(later) => return Err(later),
        }
        Ok(Step {
            error: Some(text),
            ..RunEvent::Broken.into()
        })
    }

    /// Enters the next state: first in the ledger, then here.
    async fn advance(&mut self, step: Step) -> Result<(), RunError> {
        let to = self.state.after(step.event)?;
        let at = match self.state {
            RunState::Queued => self.facts.started_at,
            _ => self.kit.clock.now(),
        };
        let reason = step.error.clone();
        let now = self.kit.clock.elapsed();
        if to == RunState::Staging {
            self.work = Work::since(now);
        }
        self.kit
            .ledger
            .change_run(RunChange {
                run: self.facts.run.clone(),
                term: self.facts.term,
                from: self.state,
                to,
                at,
                asked: (self.state == RunState::Guarding).then(|| self.work.until(now)),
                funnel: step.funnel,
                tally: step.tally,
                error: step.error,
            })
            .await?;
        self.state = to;
        if let Some(reason) = reason {
            self.reason = Some(reason).filter(|reason| !reason.is_empty());
        }
        self.funnel = step.funnel.or(self.funnel);
        self.tally = step.tally.or(self.tally);
        Ok(())
    }

    /// The funnel, which every state after admission has.
    pub(super) fn funnel(&self) -> Funnel {
        self.less_withheld(self.funnel.unwrap_or_default())
    }
}
