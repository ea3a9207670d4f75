//! The dream's ledger: kept in memory, and as strict as a real one.

use super::dream::{Dream, begin, change, conflict};
use async_trait::async_trait;
use campaignd::id::{BatchPath, CampaignName, ConnectorName, RunId};
use campaignd::run::{
    Action, Adopted, AttemptBegun, BatchChange, BatchRecord, BatchState, BatchStatus, Claim,
    Cursor, Installation, Lease, Ledger, LedgerError, NewRun, PauseChange, PauseScope, RunChange,
    RunRecord, RunState,
};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

#[async_trait]
impl Ledger for Dream {
    fn installation(&self) -> &Installation {
        &self.installation
    }

    async fn cursor(&self, _: &CampaignName) -> Result<Option<Cursor>, LedgerError> {
        Ok(None)
    }

    async fn claim_all(&self, claims: Vec<Claim>) -> Vec<Result<Vec<RunId>, LedgerError>> {
        vec![Ok(Vec::new()); claims.len()]
    }

    async fn claim_manual(&self, run: NewRun, _: Timestamp) -> Result<RunId, LedgerError> {
        Ok(run.run)
    }

    async fn run(&self, _: &RunId) -> Result<Option<RunRecord>, LedgerError> {
        Ok(self.kept.lock().unwrap().run.clone())
    }

    async fn runs(&self, _: Option<&CampaignName>, _: u32) -> Result<Vec<RunRecord>, LedgerError> {
        Ok(self.kept.lock().unwrap().run.clone().into_iter().collect())
    }

    async fn open_runs(&self) -> Result<Vec<RunRecord>, LedgerError> {
        self.runs(None, 1).await
    }

    async fn change_run(&self, change: RunChange) -> Result<(), LedgerError> {
        self.write(|kept| {
            let run = kept.run.as_mut().ok_or_else(conflict)?;
            if run.state != change.from {
                return Err(conflict());
            }
            if change.from == RunState::Queued {
                run.started_at = Some(change.at);
            }
            run.state = change.to;
            run.finished_at = (!change.to.is_open()).then_some(change.at);
            run.asked = change.asked.or(run.asked);
            run.funnel = change.funnel.or(run.funnel);
            run.tally = change.tally.or(run.tally);
            run.error = change
                .error
                .or(run.error.take())
                .filter(|error| !error.is_empty());
            Ok(())
        })
        .await
    }

    async fn begin_attempt(&self, attempt: AttemptBegun) -> Result<(), LedgerError> {
        self.write(|kept| begin(kept, attempt)).await
    }

    async fn change_batch(&self, to: BatchChange) -> Result<(), LedgerError> {
        self.write(|kept| change(kept, to)).await
    }

    async fn take_back(&self, to: BatchChange) -> Result<bool, LedgerError> {
        self.write(|kept| {
            let batch = kept.batches.get(&to.path).ok_or_else(conflict)?;
            let is_first = batch.attempts == 1 && batch.generation == 0 && !batch.was_ambiguous;
            if batch.state != BatchState::Sending || !is_first {
                return Err(conflict());
            }
            kept.batches.remove(&to.path);
            Ok(true)
        })
        .await
    }

    async fn batches(&self, _: &RunId) -> Result<Vec<BatchRecord>, LedgerError> {
        Ok(self
            .kept
            .lock()
            .unwrap()
            .batches
            .values()
            .cloned()
            .collect())
    }

    async fn unsettled(&self, _: &RunId, limit: u32) -> Result<Vec<BatchRecord>, LedgerError> {
        let kept = self.kept.lock().unwrap();
        let owed = kept
            .batches
            .values()
            .filter(|b| b.state.has_ended() && !b.settled);
        Ok(owed.take(limit as usize).cloned().collect())
    }

    async fn take_lease(&self, _: &RunId, _: Duration) -> Result<Option<Lease>, LedgerError> {
        let mut kept = self.kept.lock().unwrap();
        let run = kept.run.as_mut().ok_or_else(conflict)?;
        run.term += 1;
        Ok(Some(Lease::lasting(run.term)))
    }

    async fn renew_lease(&self, _: &RunId, term: i32, _: Duration) -> Result<Lease, LedgerError> {
        Ok(Lease::lasting(term))
    }

    async fn release_lease(&self, _: &RunId, _: i32) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn adopt(&self, _: Adopted) -> Result<(), LedgerError> {
        Err(conflict())
    }

    async fn unsettled_backlog(
        &self,
        run: &RunId,
    ) -> Result<(u64, Option<Timestamp>), LedgerError> {
        let owed = self.unsettled(run, u32::MAX).await?;
        let oldest = owed.iter().filter_map(|batch| batch.ended_at).min();
        Ok((owed.len() as u64, oldest))
    }

    async fn newest_settled(&self, _: &ConnectorName) -> Result<Option<RunId>, LedgerError> {
        Ok(None)
    }

    async fn connector_alarms(&self) -> Result<Vec<(ConnectorName, String)>, LedgerError> {
        Ok(Vec::new())
    }

    async fn set_connector_alarm(
        &self,
        _: &ConnectorName,
        _: Option<String>,
    ) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn accept_connector(&self, _: &ConnectorName) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn pauses(&self) -> Result<BTreeSet<PauseScope>, LedgerError> {
        Ok(BTreeSet::new())
    }

    async fn cancel(&self, _: &RunId, _: &str, _: Timestamp) -> Result<(), LedgerError> {
        Err(conflict())
    }

    async fn note_action(&self, _: Action) -> Result<(), LedgerError> {
        Err(conflict())
    }

    async fn is_cancelled(&self, _: &RunId) -> Result<bool, LedgerError> {
        Ok(false)
    }

    async fn set_pause(&self, _: PauseChange) -> Result<(), LedgerError> {
        self.write(|_| Ok(())).await
    }

    async fn mark_settled(
        &self,
        _: &RunId,
        _: i32,
        settled: Vec<(BatchPath, BatchStatus)>,
    ) -> Result<(), LedgerError> {
        self.write(|kept| {
            for (path, status) in settled {
                let batch = kept.batches.get_mut(&path).ok_or_else(conflict)?;
                batch.settled |= batch.status == Some(status);
            }
            Ok(())
        })
        .await
    }
}
