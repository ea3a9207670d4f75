//! A run that a person has cancelled: what has not been sent is not.

use super::carrier::{Carrier, RunError, Step};
use super::records::BatchChange;
use super::state::{BatchState, RunEvent};
use crate::audience::Funnel;
use crate::history::{BatchStatus, Closing, RunStatus, Tally};

/// What the ledger and history say.
pub(super) const CANCELLED: &str = "the run was cancelled";

impl Carrier {
    /// Does `step`, of a run of which nothing was sent, unless a person cancels
    /// it first: then what the warehouse is at is given up.
    pub(super) async fn unless_cancelled(
        &self,
        step: impl Future<Output = Result<Step, RunError>>,
    ) -> Result<Step, RunError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            step = step => return step,
        }
        self.cancel_unsent().await
    }

    /// Ends a run that a person has cancelled before anything was sent.
    pub(super) async fn cancel_unsent(&self) -> Result<Step, RunError> {
        self.end_unsent(CANCELLED, RunEvent::CancelAsked).await
    }

    /// Ends a run of which nothing was sent, as if it had never been staged:
    /// the warehouse gets its last row, and keeps no table of it.
    pub(super) async fn end_unsent(&self, why: &str, event: RunEvent) -> Result<Step, RunError> {
        let closing = Closing {
            funnel: Funnel::default(),
            cancels_rest: None,
            keep_run_table: false,
            ..self.closing(RunStatus::Cancelled, Some(why.to_owned()))
        };
        self.ask(|warehouse| {
            let closing = &closing;
            async move { warehouse.close(closing).await }
        })
        .await?;
        Ok(Step {
            funnel: Some(Funnel::default()),
            tally: Some(Tally::default()),
            error: Some(why.to_owned()),
            ..event.into()
        })
    }

    /// Ends every batch that was begun and has not ended: what waits on a
    /// definite no is cancelled, what may have arrived is parked. Batches that
    /// were never begun need no row here; closing finds them by that.
    pub(super) async fn cancel_rest(&self) -> Result<Step, RunError> {
        let step = self.end_rest(CANCELLED).await?;
        Ok(Step {
            event: RunEvent::CancelAsked,
            ..step
        })
    }

    /// The same, because of `why`; the run has then no more to send.
    pub(super) async fn end_rest(&self, why: &str) -> Result<Step, RunError> {
        for batch in self.kit.ledger.batches(&self.facts.run).await? {
            let mut from = batch.state;
            if from == BatchState::Sending {
                self.change_batch_of(&batch, (from, BatchState::Ambiguous), None, why)
                    .await?;
                from = BatchState::Ambiguous;
            }
            let ended = match from {
                BatchState::Waiting => (BatchState::Refused, BatchStatus::Cancelled),
                BatchState::Ambiguous => (BatchState::Parked, BatchStatus::Unknown),
                _ => continue,
            };
            self.change_batch_of(&batch, (from, ended.0), Some(ended.1), why)
                .await?;
        }
        Ok(Step {
            funnel: Some(self.funnel()),
            error: Some(why.to_owned()),
            ..RunEvent::LastBatchEnded.into()
        })
    }

    async fn change_batch_of(
        &self,
        batch: &super::records::BatchRecord,
        (from, to): (BatchState, BatchState),
        status: Option<BatchStatus>,
        why: &str,
    ) -> Result<(), RunError> {
        let change = BatchChange {
            run: self.facts.run.clone(),
            term: self.held.term(),
            path: batch.path.clone(),
            attempt: batch.attempts,
            from,
            to,
            status,
            http_status: None,
            at: self.kit.clock.now(),
            next_at: None,
            excused: batch.excused,
            error: Some(why.to_owned()),
            refused: Vec::new(),
        };
        Ok(self.kit.ledger.change_batch(change).await?)
    }
}
