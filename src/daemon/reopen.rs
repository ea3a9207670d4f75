//! Runs that people open again: resumed, or one of their batches decided.

use super::desk::{Desk, failed};
use crate::admin::Reply;
use crate::campaign::RunSpec;
use crate::id::{BatchPath, CampaignName, DestinationName, RunId};
use crate::run::{
    BatchRecord, BatchState, LedgerError, PauseScope, Reopen, Reopening, Resolution, RunEvent,
    RunRecord, RunState, reason_of_resumed,
};

/// Parked batches that a message names.
const NAMED: usize = 5;

impl Desk {
    /// Lets a held run go on, and opens one that has ended short of its end
    /// again. Returns it, to be carried.
    pub async fn resume(&self, run: &RunId, by: &str) -> Result<RunRecord, Reply> {
        let action = self.action(by, "resume", run.as_str());
        self.noted(action, self.try_resume(run, by)).await
    }

    async fn try_resume(&self, run: &RunId, by: &str) -> Result<RunRecord, Reply> {
        let record = self.find(run).await?;
        let (event, reopening) = match record.state {
            RunState::Held if self.nothing_was_sent(run).await? => {
                (RunEvent::BegunAgain, Some(Reopening::BeginApproved))
            }
            RunState::Held => (RunEvent::Resumed, None),
            RunState::Incomplete => (RunEvent::Resumed, Some(Reopening::Resume)),
            RunState::Cancelled if record.funnel.is_some_and(|funnel| funnel.planned > 0) => {
                (RunEvent::Resumed, Some(Reopening::Resume))
            }
            RunState::Cancelled | RunState::Failed => {
                let before = self.ledger.reopening(run).await.map_err(failed)?;
                let approved = before.filter(|before| *before == Reopening::BeginApproved);
                let reopening = approved.unwrap_or(Reopening::BeginAgain);
                (RunEvent::BegunAgain, Some(reopening))
            }
            state => {
                return Err(Reply::Refused(format!(
                    "{run} is {}: only a held, incomplete, failed or cancelled run is resumed",
                    state.as_str()
                )));
            }
        };
        if is_stand_in(&record) {
            return Err(Reply::Refused(format!(
                "{run} was taken over from a daemon that was lost, and what it was to send is not \
                 known here: resolve its parked batches, and start a new run for the rest"
            )));
        }
        match reopening {
            // What is queued behind it waits for it.
            None => self.refuse_beside_begun(&record).await?,
            Some(_) => self.refuse_beside_another(&record).await?,
        }
        tracing::warn!(run.id = %run, resume.by = by, "{run} resumed by {by}");
        if let Some(destination) = destination(&record) {
            // Who lets its run go on has seen to it.
            let refusing = PauseScope::Refusing(destination);
            self.lift(refusing, by).await.map_err(failed)?;
        }
        match reopening {
            None => {
                let held = record.error.as_deref().unwrap_or_default();
                let said = reason_of_resumed(has_canary(&record), Some(held));
                let said = said.unwrap_or_default();
                self.move_on(&record, event, Some(said)).await?;
            }
            Some(reopening) => self.open_again(&record, event, reopening).await?,
        }
        self.find(run).await
    }

    /// Has the run of a fire time that was missed or skipped begun after all.
    pub(super) async fn begin_missed(&self, run: &RunId, by: &str) -> Result<RunRecord, Reply> {
        let action = self.action(by, "run", &format!("{run}, which was missed"));
        self.noted(action, self.try_begin_missed(run)).await
    }

    async fn try_begin_missed(&self, run: &RunId) -> Result<RunRecord, Reply> {
        let Some(record) = self.ledger.run(run).await.map_err(failed)? else {
            return Err(Reply::Refused(format!(
                "there is no run `{run}`: --missed names a fire time that `campaignd runs` \
                 shows as missed or skipped"
            )));
        };
        if !matches!(record.state, RunState::Missed | RunState::Skipped) {
            return Err(Reply::Refused(format!(
                "{run} is {}: only a missed or skipped fire time is carried after all",
                record.state.as_str()
            )));
        }
        if is_stand_in(&record) {
            return Err(Reply::Refused(format!(
                "{run} was missed because its destination or connector was not in campaignd.yaml, \
                 so it is not known what it was to send: start a new run with --fire-time {}",
                record.fire_time
            )));
        }
        self.refuse_beside_another(&record).await?;
        self.open_again(&record, RunEvent::BegunAgain, Reopening::BeginAgain)
            .await?;
        self.find(run).await
    }

    /// Decides a parked batch. Returns the run, to be carried where it is not
    /// under way.
    pub async fn resolve(
        &self,
        run: &RunId,
        resolution: Resolution,
        by: &str,
    ) -> Result<RunRecord, Reply> {
        let what = match resolution.delivered {
            true => "delivered",
            false => "not delivered",
        };
        let target = format!("{run} batch {}: {what}", resolution.path);
        let action = self.action(by, "resolve", &target);
        let resolved = self.noted(action, self.try_resolve(run, resolution));
        let record = resolved.await?;
        tracing::warn!(run.id = %run, resolve.by = by, "{target}, says {by}");
        Ok(record)
    }

    async fn try_resolve(&self, run: &RunId, resolution: Resolution) -> Result<RunRecord, Reply> {
        let record = self.find(run).await?;
        self.refuse_unparked(run, &resolution.path).await?;
        match record.state {
            RunState::Incomplete | RunState::Cancelled => {
                let reopening = Reopening::Resolve(resolution);
                self.open_again(&record, RunEvent::Resolved, reopening)
                    .await?;
            }
            RunState::Sending | RunState::Held => {
                let now = self.clock.now();
                let resolved = self.ledger.resolve(run, &resolution, now);
                resolved.await.map_err(refused)?;
            }
            state => {
                return Err(Reply::Refused(format!(
                    "{run} is {}: ask again when it has ended",
                    state.as_str()
                )));
            }
        }
        self.find(run).await
    }

    /// Whether no batch of the run was begun: it is held because its audience
    /// is not what is expected.
    pub(super) async fn nothing_was_sent(&self, run: &RunId) -> Result<bool, Reply> {
        let batches = self.ledger.batches(run).await.map_err(failed)?;
        Ok(batches.is_empty())
    }

    async fn open_again(
        &self,
        record: &RunRecord,
        event: RunEvent,
        reopening: Reopening,
    ) -> Result<(), Reply> {
        let to = record.state.after(event);
        let error = match reopening {
            Reopening::Resume => reason_of_resumed(has_canary(record), None),
            Reopening::Resolve(_) => record.error.clone(),
            Reopening::BeginAgain | Reopening::BeginApproved => None,
        };
        let reopen = Reopen {
            error,
            run: record.run.clone(),
            campaign: record.campaign.clone(),
            from: record.state,
            to: to.map_err(|error| Reply::Refused(error.to_string()))?,
            reopening,
            at: self.clock.now(),
        };
        self.ledger.reopen(reopen).await.map_err(refused)
    }

    /// One run of a campaign is open at a time, and none beside one that is
    /// held with something sent.
    async fn refuse_beside_another(&self, record: &RunRecord) -> Result<(), Reply> {
        self.refuse_beside_open(record, |_| true).await?;
        self.refuse_beside_held(&record.campaign).await
    }

    /// The same for a run that is such a held one itself.
    async fn refuse_beside_begun(&self, record: &RunRecord) -> Result<(), Reply> {
        let has_begun = |other: &RunRecord| other.state != RunState::Queued;
        self.refuse_beside_open(record, has_begun).await
    }

    async fn refuse_beside_open(
        &self,
        record: &RunRecord,
        counts: impl Fn(&RunRecord) -> bool,
    ) -> Result<(), Reply> {
        let open = self.ledger.open_runs_of(&record.campaign).await;
        let open = open.map_err(failed)?;
        open.iter()
            .find(|other| counts(other))
            .map_or(Ok(()), |other| {
                Err(Reply::Refused(format!(
                    "{} of the same campaign is open: resume {} when it has ended",
                    other.run, record.run
                )))
            })
    }

    /// Whoever was sent a part of a held run must not be sent another's first.
    pub(super) async fn refuse_beside_held(&self, campaign: &CampaignName) -> Result<(), Reply> {
        let held = self.ledger.held_runs_of(campaign).await.map_err(failed)?;
        let other = held.iter().find(|held| held.has_sent);
        other.map_or(Ok(()), |held| {
            let run = &held.record.run;
            Err(Reply::Refused(format!(
                "{run} of the same campaign is held with a part of it sent: first \
                 `campaignd resume {run}`, which sends the others, or `campaignd cancel {run}`, \
                 which does not"
            )))
        })
    }

    /// Only a parked batch is there to be decided.
    async fn refuse_unparked(&self, run: &RunId, path: &BatchPath) -> Result<(), Reply> {
        let batches = self.ledger.batches(run).await.map_err(failed)?;
        let there = batches.iter().find(|batch| batch.path == *path);
        if there.is_some_and(|batch| batch.state == BatchState::Parked) {
            return Ok(());
        }
        let state = match there {
            Some(batch) => format!("batch {path} of {run} is {}", batch.state.as_str()),
            None => format!("{run} has sent no batch {path}"),
        };
        Err(Reply::Refused(format!(
            "{state}: only a parked batch is resolved; {}",
            parked(&batches)
        )))
    }
}

fn parked(batches: &[BatchRecord]) -> String {
    let parked = batches
        .iter()
        .filter(|batch| batch.state == BatchState::Parked);
    let mut names: Vec<String> = parked.map(|batch| batch.path.to_string()).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    match (names.is_empty(), more) {
        (true, _) => "none of its batches is parked".to_owned(),
        (false, 0) => format!("parked: {}", names.join(", ")),
        (false, more) => format!("parked: {} and {more} more", names.join(", ")),
    }
}

fn destination(record: &RunRecord) -> Option<DestinationName> {
    let spec = RunSpec::from_json(&record.spec).ok()?;
    Some(spec.destination)
}

fn has_canary(record: &RunRecord) -> bool {
    RunSpec::from_json(&record.spec).is_ok_and(|spec| spec.canary.is_some())
}

/// Whether the ledger has only the name of what the run was to send.
fn is_stand_in(record: &RunRecord) -> bool {
    RunSpec::from_json(&record.spec).is_ok_and(|spec| spec.max_body == 0)
}

fn refused(error: LedgerError) -> Reply {
    match error {
        LedgerError::Conflict { .. } => Reply::Refused(error.to_string()),
        error => failed(error),
    }
}
