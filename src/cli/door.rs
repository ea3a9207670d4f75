//! The door of a run in the foreground: where other commands reach it, as they
//! reach a daemon.

use crate::admin::{Handler, Reply, Request, serve};
use crate::daemon::{Desk, World};
use crate::id::RunId;
use async_trait::async_trait;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Where a run in the foreground is paused and cancelled from beside it.
pub(super) struct Door {
    desk: Arc<Desk>,
    /// The run that is carried, and what ends it.
    carried: Mutex<Option<(RunId, CancellationToken)>>,
}

/// That a run is carried.
pub(super) struct Carried<'a> {
    door: &'a Door,
    /// Cancelled when the run is.
    pub(super) cancel: CancellationToken,
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        *self.door.carried() = None;
    }
}

impl Door {
    /// The door to what is carried in `world`.
    pub(super) fn of(world: &World) -> Arc<Self> {
        Arc::new(Self {
            desk: Arc::clone(&world.desk),
            carried: Mutex::default(),
        })
    }

    /// `run` is carried until what is returned is dropped, or cancelled.
    pub(super) fn carries(&self, run: &RunId) -> Carried<'_> {
        let cancel = CancellationToken::new();
        *self.carried() = Some((run.clone(), cancel.clone()));
        Carried { door: self, cancel }
    }

    /// Does `work`, and answers meanwhile at the socket `control`. Without one
    /// it is done all the same.
    pub(super) async fn open_while<T>(
        self: &Arc<Self>,
        control: &Path,
        work: impl Future<Output = T>,
    ) -> T {
        let stop = CancellationToken::new();
        let handler: Arc<dyn Handler> = Arc::clone(self) as _;
        let answering = async {
            if let Err(error) = serve(control, handler, stop.clone()).await {
                let control = control.display();
                tracing::warn!("commands cannot reach this run at {control}: {error}");
            }
        };
        let working = async {
            let found = work.await;
            stop.cancel();
            found
        };
        tokio::join!(answering, working).1
    }

    fn carried(&self) -> MutexGuard<'_, Option<(RunId, CancellationToken)>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn cancel(&self, run: &RunId, by: &str) -> Reply {
        let carried = self.carried().clone();
        let Some((_, cancel)) = carried.filter(|(carried, _)| carried == run) else {
            return Reply::NobodyThere;
        };
        match self.desk.cancel(run, by).await {
            Ok(_) => {
                cancel.cancel();
                Reply::Done(format!(
                    "{run} is cancelled; what is on the wire ends, and nothing else leaves"
                ))
            }
            Err(reply) => reply,
        }
    }
}

#[async_trait]
impl Handler for Door {
    async fn answer(&self, request: Request, by: &str) -> Reply {
        match request {
            Request::Pause { scope } => self.desk.set_pause(&scope, true, by).await,
            Request::Unpause { scope } => self.desk.set_pause(&scope, false, by).await,
            Request::Cancel { run } => self.cancel(&run, by).await,
            _ => Reply::NobodyThere,
        }
    }
}
