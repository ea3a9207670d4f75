//! A run that has ended and is opened again, because a person resumes it or
//! decides one of its batches.

use super::carrier::{Carrier, RunError, Step};
use super::records::Reopening;
use super::state::{RunEvent, RunState};
use crate::history::Tally;

impl Carrier {
    /// Does what the run was opened again for, before anything else of it;
    /// nothing where that is done. The warehouse first: with the ledger's
    /// word of it still there, a crash between the two does it once more.
    pub(super) async fn reopen(&self) -> Result<Reopened, RunError> {
        let run = &self.facts.run;
        let Some(reopening) = self.kit.ledger.reopening(run).await? else {
            return Ok(Reopened::Nothing);
        };
        let done = match reopening {
            // Noted until the guard is passed.
            Reopening::BeginApproved if self.state == RunState::Sending => Ok(None),
            Reopening::BeginApproved if self.state != RunState::Queued => {
                return Ok(Reopened::Nothing);
            }
            Reopening::BeginAgain | Reopening::BeginApproved => self
                .ask(|warehouse| async move { warehouse.forget_unstaged(&self.facts).await })
                .await
                .map(|()| None),
            Reopening::Resume | Reopening::Resolve(_) => {
                let resends = reopening == Reopening::Resume;
                let (funnel, known) = (&self.funnel(), &self.settled_so_far().await?);
                self.ask(|warehouse| async move {
                    warehouse.reopen(&self.facts, funnel, known, resends).await
                })
                .await
                .map(Some)
            }
        };
        let tally = match done {
            Ok(tally) => tally,
            Err(RunError::Warehouse(error)) if error.is_gone() => {
                return Ok(Reopened::Never(Step {
                    event: RunEvent::CannotReopen,
                    funnel: None,
                    tally: None,
                    error: Some(format!("not opened again: {}", error.message)),
                }));
            }
            Err(error) => return Err(error),
        };
        if reopening == Reopening::BeginApproved && self.state == RunState::Queued {
            return Ok(Reopened::Done(None));
        }
        let now = self.kit.clock.now();
        let applied = self.kit.ledger.apply_reopening(run, self.held.term(), now);
        applied.await?;
        if tally.is_some() {
            self.alive.registered();
        }
        Ok(Reopened::Done(tally))
    }

    /// What the ledger says that the warehouse has.
    async fn settled_so_far(&self) -> Result<Tally, RunError> {
        let mut tally = Tally::default();
        for batch in self.kit.ledger.batches(&self.facts.run).await? {
            if batch.settled {
                batch.count(&mut tally);
            }
        }
        Ok(tally)
    }
}

/// What opening a run again came to.
pub(super) enum Reopened {
    /// There was nothing to be done.
    Nothing,
    /// It is open, with this tally where its members are numbered.
    Done(Option<Tally>),
    /// It cannot be.
    Never(Step),
}
