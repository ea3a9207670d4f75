//! What people ask of the running daemon, done.

use super::runs::Runs;
use crate::admin::{Erasing, Reply};
use crate::id::{ConnectorName, RunId};
use crate::run::{
    Action, Clock, Ledger, LedgerError, PauseChange, PauseScope, Pauses, RunChange, RunEvent,
    RunRecord, RunState,
};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often what is paused is read again where other hosts may pause too: an
/// emergency stop is effective within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
        let reply = self.try_pause(scope, paused, by).await;
        let verb = if paused { "pause" } else { "unpause" };
        // What was done the ledger has noted with it.
        if outcome(&reply) != DONE {
            let action = self.action(by, verb, scope);
            self.note_end(action, outcome(&reply)).await;
        }
        reply
    }

    async fn try_pause(&self, scope: &str, paused: bool, by: &str) -> Reply {
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
            self.look().await?;
            let was_paused = self.is_paused(&scope);
            // Who unpauses a destination has seen to it.
            if let (PauseScope::Destination(name), false) = (&scope, paused) {
                let refusing = PauseScope::Refusing(name.clone());
                self.lift(refusing, by).await?;
            }
            self.ledger.set_pause(change).await?;
            self.look().await.map(|()| was_paused)
        };
        let was_paused = match done.await {
            Ok(was_paused) => was_paused,
            Err(error) => return Reply::Failed(error.to_string()),
        };
        let word = match (paused, was_paused) {
            (true, _) => "paused",
            (false, true) => "unpaused",
            (false, false) => "was not paused",
        };
        let others: Vec<String> = self
            .paused
            .borrow()
            .iter()
            .map(ToString::to_string)
            .collect();
        let after = match (paused, others.as_slice()) {
            (true, _) => "no new request leaves until it is unpaused".to_owned(),
            (false, []) if was_paused => "what was waiting goes on".to_owned(),
            (false, []) => "nothing is".to_owned(),
            (false, others) => format!("still paused: {}", others.join(", ")),
        };
        tracing::warn!(pause.scope = %scope, pause.by = by, "{scope} {word}, says {by}");
        Reply::Done(format!("{scope} {word}; {after}"))
    }

    /// Whether it is paused by itself, and not only with everything.
    fn is_paused(&self, scope: &PauseScope) -> bool {
        let paused = self.paused.borrow();
        paused.contains(scope)
            || matches!(scope, PauseScope::Destination(name)
                if paused.contains(&PauseScope::Refusing(name.clone())))
    }
}

impl Desk {
    /// Notes that a run is cancelled, and makes a held one ready to be ended.
    /// Returns the run, to be carried to its end.
    pub async fn cancel(&self, run: &RunId, by: &str) -> Result<RunRecord, Reply> {
        let done = self.try_cancel(run, by).await;
        // What was done the ledger has noted with it.
        if let Err(reply) = &done {
            let action = self.action(by, "cancel", run.as_str());
            self.note_end(action, outcome(reply)).await;
        }
        done
    }

    async fn try_cancel(&self, run: &RunId, by: &str) -> Result<RunRecord, Reply> {
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
            self.move_on(&record, event, None).await?;
        }
        self.find(run).await
    }

    /// Moves a run that nobody carries; `error` is what is said of it then, if
    /// that changes.
    pub(super) async fn move_on(
        &self,
        record: &RunRecord,
        event: RunEvent,
        error: Option<String>,
    ) -> Result<(), Reply> {
        let to = record.state.after(event);
        let change = RunChange {
            run: record.run.clone(),
            term: record.term,
            from: record.state,
            to: to.map_err(|error| Reply::Refused(error.to_string()))?,
            at: self.clock.now(),
            asked: None,
            funnel: None,
            tally: None,
            error,
        };
        self.ledger.change_run(change).await.map_err(failed)
    }

    /// Notes that a restored warehouse is taken as it is.
    pub async fn accept(&self, connector: &ConnectorName, by: &str) -> Reply {
        let action = self.action(by, "accept", connector.as_str());
        let accepted = self.noted(action, async {
            let done = self.ledger.accept_connector(connector).await;
            done.map_err(failed)
        });
        match accepted.await {
            Ok(()) => Reply::Done(format!("{connector} is accepted as it is")),
            Err(reply) => reply,
        }
    }

    /// Notes that `by` erases members, or what came of it.
    pub async fn note_erasure(
        &self,
        erasing: &Erasing,
        outcome: Option<String>,
        by: &str,
    ) -> Reply {
        let target = format!("{}: {} keys", erasing.connector, erasing.keys);
        let action = Action {
            outcome: outcome.as_deref().map(cut),
            at: erasing.at,
            ..self.action(by, "erase", &target)
        };
        match self.ledger.note_action(action).await {
            Ok(()) => Reply::Done("noted".to_owned()),
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    pub(super) async fn find(&self, run: &RunId) -> Result<RunRecord, Reply> {
        let found = self.ledger.run(run).await.map_err(failed)?;
        found.ok_or_else(|| Reply::Refused(format!("there is no run `{run}`")))
    }
}

/// The outcome of what was done.
const DONE: &str = "done";

/// The longest outcome and target that are noted, in characters.
const NOTED: usize = 500;

/// What is noted of how a command ended.
fn outcome(reply: &Reply) -> String {
    match reply {
        Reply::Done(_) | Reply::Seen(_) | Reply::Told(_) => DONE.to_owned(),
        Reply::Refused(why) | Reply::Problems(why) | Reply::Undelivered(why) => {
            format!("refused: {why}")
        }
        Reply::Failed(why) => format!("failed: {why}"),
        Reply::NobodyThere => "failed: nobody was there".to_owned(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(NOTED).collect()
}

impl Desk {
    /// What `by` asks now.
    pub(super) fn action(&self, by: &str, verb: &str, target: &str) -> Action {
        Action {
            by: by.to_owned(),
            verb: verb.to_owned(),
            target: cut(target),
            outcome: None,
            at: self.clock.now(),
        }
    }

    /// Notes what is asked, does it, and notes what came of it: a process
    /// that dies in between leaves the first note.
    pub(super) async fn noted<T>(
        &self,
        action: Action,
        act: impl Future<Output = Result<T, Reply>>,
    ) -> Result<T, Reply> {
        let begun = self.ledger.note_action(action.clone()).await;
        begun.map_err(failed)?;
        let done = act.await;
        let how = match &done {
            Ok(_) => DONE.to_owned(),
            Err(reply) => outcome(reply),
        };
        self.note_end(action, how).await;
        done
    }

    async fn note_end(&self, action: Action, outcome: String) {
        let (verb, target) = (action.verb.clone(), action.target.clone());
        let ended = Action {
            outcome: Some(cut(&outcome)),
            ..action
        };
        if let Err(error) = self.ledger.note_action(ended).await {
            tracing::error!("that {verb} of {target} ended as {outcome} is not noted: {error}");
        }
    }
}

pub(super) fn failed(error: LedgerError) -> Reply {
    Reply::Failed(error.to_string())
}
