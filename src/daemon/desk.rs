//! What people ask of the running daemon, done.

use super::runs::Runs;
use crate::admin::{Handler, Reply, Request};
use crate::id::{ConnectorName, RunId};
use crate::run::{
    Clock, Ledger, LedgerError, PauseChange, PauseScope, Pauses, RunChange, RunEvent, RunRecord,
    RunState,
};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often what is paused is read again where other hosts may pause too: an
/// emergency stop is effective within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often, and how many times, it is looked whether what a person has
/// decided is in history: for 15 seconds.
const SETTLED_LOOK: Duration = Duration::from_millis(100);
const SETTLED_LOOKS: u32 = 150;

/// Takes requests and does them, in the ledger first.
pub struct Desk {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    paused: watch::Sender<BTreeSet<PauseScope>>,
}

impl Desk {
    /// A desk for `ledger`; nothing is paused before [`Desk::look`] was asked.
    pub fn new(ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>) -> Self {
        Self {
            ledger,
            clock,
            paused: watch::channel(BTreeSet::new()).0,
        }
    }

    /// What is paused, now and later.
    pub fn pauses(&self) -> Pauses {
        Pauses::new(self.paused.clone())
    }

    /// Reads what is paused.
    pub async fn look(&self) -> Result<(), LedgerError> {
        let paused = self.ledger.pauses().await?;
        self.paused.send_if_modified(|now| {
            let changed = *now != paused;
            *now = paused;
            changed
        });
        Ok(())
    }

    /// Reads it again and again until `stop`, and what was cancelled with it:
    /// for what is said on other hosts.
    pub(super) async fn keep_looking(&self, runs: &Runs, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look().await {
                tracing::warn!("what is paused cannot be read: {error}");
            }
            runs.look_for_cancels().await;
        }
    }

    /// Lifts a pause if there is one.
    pub(super) async fn lift(&self, scope: PauseScope, by: &str) -> Result<(), LedgerError> {
        if !self.ledger.pauses().await?.contains(&scope) {
            return Ok(());
        }
        let change = PauseChange {
            scope,
            paused: false,
            by: by.to_owned(),
            at: self.clock.now(),
        };
        self.ledger.set_pause(change).await?;
        self.look().await
    }

    /// Begins or lifts a pause: durable, then effective, then answered.
    pub async fn set_pause(&self, scope: &str, paused: bool, by: &str) -> Reply {
        let scope: PauseScope = match scope.parse() {
            Ok(scope) => scope,
            Err(error) => return Reply::Refused(format!("{error}")),
        };
        let change = PauseChange {
            scope: scope.clone(),
            paused,
            by: by.to_owned(),
            at: self.clock.now(),
        };
        let done = async {
            // Who unpauses a destination has seen to it.
            if let (PauseScope::Destination(name), false) = (&scope, paused) {
                let refusing = PauseScope::Refusing(name.clone());
                self.lift(refusing, by).await?;
            }
            self.ledger.set_pause(change).await?;
            self.look().await
        };
        let done = done.await;
        let (word, after) = match paused {
            true => ("paused", "no new request leaves until it is unpaused"),
            false => ("unpaused", "what was waiting goes on"),
        };
        match done {
            Ok(()) => {
                tracing::warn!(pause.scope = %scope, pause.by = by, "{scope} {word} by {by}");
                Reply::Done(format!("{scope} {word}; {after}"))
            }
            Err(error) => Reply::Failed(error.to_string()),
        }
    }
}

impl Desk {
    /// Notes that a run is cancelled, and makes a held one ready to be ended.
    /// Returns the run, to be carried to its end.
    pub async fn cancel(&self, run: &RunId, by: &str) -> Result<RunRecord, Reply> {
        let record = self.find(run).await?;
        let is_held = record.state == RunState::Held;
        if !record.state.is_open() && !is_held {
            let state = record.state.as_str();
            return Err(Reply::Refused(format!(
                "{run} is {state}: nothing of it is left to cancel"
            )));
        }
        let now = self.clock.now();
        self.ledger.cancel(run, by, now).await.map_err(failed)?;
        tracing::warn!(run.id = %run, cancel.by = by, "{run} cancelled by {by}");
        if is_held {
            let event = match self.nothing_was_sent(run).await? {
                true => RunEvent::BegunAgain,
                false => RunEvent::CancelAsked,
            };
            self.move_on(&record, event).await?;
        }
        self.find(run).await
    }

    pub(super) async fn move_on(&self, record: &RunRecord, event: RunEvent) -> Result<(), Reply> {
        let to = record.state.after(event);
        let change = RunChange {
            run: record.run.clone(),
            term: record.term,
            from: record.state,
            to: to.map_err(|error| Reply::Refused(error.to_string()))?,
            at: self.clock.now(),
            funnel: None,
            tally: None,
            error: None,
        };
        self.ledger.change_run(change).await.map_err(failed)
    }

    /// Notes that a restored warehouse is taken as it is.
    async fn accept(&self, connector: &ConnectorName, by: &str) -> Reply {
        let now = self.clock.now();
        let noted = self
            .ledger
            .note_action(by, "accept", connector.as_str(), now);
        let done = match noted.await {
            Ok(()) => self.ledger.accept_connector(connector).await,
            Err(error) => Err(error),
        };
        done.map_or_else(failed, |()| {
            Reply::Done(format!("{connector} is accepted as it is"))
        })
    }

    pub(super) async fn find(&self, run: &RunId) -> Result<RunRecord, Reply> {
        let found = self.ledger.run(run).await.map_err(failed)?;
        found.ok_or_else(|| Reply::Refused(format!("there is no run `{run}`")))
    }
}

pub(super) fn failed(error: LedgerError) -> Reply {
    Reply::Failed(error.to_string())
}

/// The desk of a running daemon.
pub(super) struct Counter {
    pub(super) desk: Arc<Desk>,
    pub(super) runs: Runs,
}

impl Counter {
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

#[async_trait]
impl Handler for Counter {
    async fn answer(&self, request: Request, by: &str) -> Reply {
        match request {
            Request::Pause { scope } => self.desk.set_pause(&scope, true, by).await,
            Request::Unpause { scope } => self.desk.set_pause(&scope, false, by).await,
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
