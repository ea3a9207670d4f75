//! What people ask of the running daemon, done.

use crate::admin::{Handler, Reply, Request};
use crate::run::{Clock, Ledger, LedgerError, PauseChange, PauseScope, Pauses};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often what is paused is read again where other hosts may pause too: an
/// emergency stop is effective within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Takes requests and does them, in the ledger first.
pub struct Desk {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
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
        Pauses::new(self.paused.subscribe())
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

    /// Reads it again and again until `stop`, for pauses of other hosts.
    pub async fn keep_looking(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look().await {
                tracing::warn!("what is paused cannot be read: {error}");
            }
        }
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
        let done = match self.ledger.set_pause(change).await {
            Ok(()) => self.look().await,
            Err(error) => Err(error),
        };
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

#[async_trait]
impl Handler for Desk {
    async fn answer(&self, request: Request, by: &str) -> Reply {
        match request {
            Request::Pause { scope } => self.set_pause(&scope, true, by).await,
            Request::Unpause { scope } => self.set_pause(&scope, false, by).await,
        }
    }
}
