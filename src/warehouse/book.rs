//! What the daemon writes for good: runs registered, settled and closed.

use super::adapter::{SqlWarehouse, first_column};
use super::carry::{Carried, Source};
use super::errors::{TABLES_MISSING, error, unwritable};
use super::pool::Session;
use super::staging::{not_ours, number};
use super::tallies::NewOutcomes;
use crate::audience::{Lock, TableNames};
use crate::history::register::{
    RunRow, deregister, known_runs, may_begin_again, open_run, register, replace_run, run_status,
    touch, unstarted,
};
use crate::history::reopen::forget_batches;
use crate::history::settle::{
    changed_outcomes, close_tally, contact_history, count_new, deliveries, drop_outcomes,
    forget_known, outcomes,
};
use crate::history::{
    Closing, RunFacts, RunStatus, Settlement, TABLES, Tally, UnstartedRun, cancelled,
    withheld_history,
};
use crate::id::{BatchPath, RunId};
use crate::run::{Registration, WarehouseError, WarehouseErrorClass};
use std::collections::HashSet;

/// Rows of fire times without a run that one transaction writes: some seconds
/// on Redshift, in which no run is admitted.
const ROWS_AT_A_TIME: usize = 2_000;

impl SqlWarehouse {
    /// Whether it answers and our tables are there.
    pub(super) async fn look_at_tables(&self) -> Result<(), WarehouseError> {
        self.prepare().await?;
        let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let mut session = self.pool.session().await?;
        let there = self.existing(&mut session, "tables", &names).await?;
        let is_complete = there.len() == names.len();
        session.hand_back();
        match is_complete {
            true => Ok(()),
            false => {
                let class = WarehouseErrorClass::Configuration;
                Err(error(class, TABLES_MISSING))
            }
        }
    }

    /// REGISTER: the row in `open_runs` is the lock against another daemon.
    pub(super) async fn register_run(
        &self,
        run: &RunFacts,
    ) -> Result<Registration, WarehouseError> {
        self.prepare().await?;
        let what = run.run.as_str();
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let registration = self.registration(&mut session, run).await?;
        let statement = match &registration {
            Some(Registration::Taken { .. }) => None,
            Some(Registration::Ours) => Some(touch(&self.schema, run, None)),
            None => Some(register(&self.schema, run, &self.mark)),
        };
        if let Some(statement) = statement {
            session.run(&statement.map_err(unwritable)?).await?;
        }
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        Ok(registration.unwrap_or(Registration::Ours))
    }

    /// What the tables say of the run; nothing if they do not know it.
    async fn registration(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Option<Registration>, WarehouseError> {
        let open = open_run(&self.schema, run).map_err(unwritable)?;
        if let Some(owner) = first_column(session, &open).await?.pop() {
            return Ok(Some(match owner == run.owner.to_string() {
                true => Registration::Ours,
                false => Registration::Taken {
                    by: format!("another daemon ({owner})"),
                },
            }));
        }
        let status = self.status_to_respect(session, run).await?;
        Ok(status.map(|status| Registration::Taken {
            by: format!("an earlier run that is {status}"),
        }))
    }

    /// The run's status in `runs`, if there is one that must not be lost.
    async fn status_to_respect(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Option<String>, WarehouseError> {
        let statement = run_status(&self.schema, run).map_err(unwritable)?;
        let rows = session.rows(&statement).await?;
        Ok(rows.into_iter().find_map(|row| {
            let ended = number(row.get(1).and_then(Option::as_ref));
            let status = row.into_iter().next().flatten()?;
            (!may_begin_again(&status, ended)).then_some(status)
        }))
    }

    /// SETTLE: outcomes in, then history, then deliveries, then the runs'
    /// rows. In this order: the other way round would write no history. The
    /// members are those of the runs' tables, or were `carried` here.
    pub(super) async fn settle_batches(
        &self,
        settlements: &[Settlement],
        carried: Option<Carried>,
    ) -> Result<Vec<Tally>, WarehouseError> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let runs: HashSet<&RunId> = settlements.iter().map(|s| &s.facts.run).collect();
        if runs.len() < settlements.len() {
            // Each would write the other's members too.
            let message = "two settlements of one run were to be written at once";
            return Err(error(WarehouseErrorClass::Conflict, message));
        }
        let _turn = self.settle_turn.lock().await;
        let (mut session, source) = self.source(carried).await?;
        let what = "batches";
        session
            .run_all(&self.schema.begin(what, Some(Lock::Settle)))
            .await?;
        let script = outcomes(&self.schema, settlements).map_err(unwritable)?;
        session.run_all(&script).await?;
        let new = self.find_new_outcomes(&mut session, settlements).await?;
        for settlement in settlements {
            if new.has(&settlement.facts) {
                let members = source.members(&self.schema, &settlement.facts.run)?;
                let history = contact_history(&self.schema, settlement, &members);
                let history = history.map_err(unwritable)?;
                session.run(&history).await?;
            }
        }
        if !new.counts.is_empty() {
            session.run(&deliveries(&self.schema)).await?;
        }
        let tallies = self.write_run_rows(&mut session, settlements, &new).await?;
        session.run_all(&drop_outcomes(settlements)).await?;
        session.run_all(&source.end()).await?;
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        Ok(tallies)
    }

    /// The outcomes that `deliveries` does not have, to which the outcomes come
    /// down. Where it has others, because a person has decided a batch since,
    /// these are forgotten.
    async fn find_new_outcomes(
        &self,
        session: &mut Session,
        settlements: &[Settlement],
    ) -> Result<NewOutcomes, WarehouseError> {
        let outcomes: usize = settlements.iter().map(|s| s.outcomes.len()).sum();
        if outcomes == 0 {
            return Ok(NewOutcomes::default());
        }
        let new = self.count_new_outcomes(session, settlements).await?;
        let known = new.counts.values().sum::<u64>() != outcomes as u64;
        for (run, paths) in &new.changed {
            let script = forget_batches(&self.schema, run, paths).map_err(unwritable)?;
            session.run_all(&script).await?;
        }
        if known && !new.counts.is_empty() {
            let forget = forget_known(&self.schema, settlements).map_err(unwritable)?;
            session.run(&forget).await?;
        }
        Ok(new)
    }

    async fn count_new_outcomes(
        &self,
        session: &mut Session,
        settlements: &[Settlement],
    ) -> Result<NewOutcomes, WarehouseError> {
        let mut new = NewOutcomes::default();
        let count = count_new(&self.schema, settlements).map_err(unwritable)?;
        for row in session.rows(&count).await? {
            let others = number(row.get(1).and_then(Option::as_ref));
            let all = number(row.get(2).and_then(Option::as_ref));
            let Some(run) = row.into_iter().next().flatten() else {
                continue;
            };
            if others > 0 {
                new.changed.insert(run.clone(), Vec::new());
            }
            new.counts.insert(run, all);
        }
        if new.changed.is_empty() {
            return Ok(new);
        }
        let find = changed_outcomes(&self.schema, settlements).map_err(unwritable)?;
        for row in session.rows(&find).await? {
            let [Some(run), Some(batch), part] = row.as_slice() else {
                continue;
            };
            let path = BatchPath {
                batch: u32::try_from(number(Some(batch))).unwrap_or(u32::MAX),
                part: part.clone().unwrap_or_default(),
            };
            new.changed.entry(run.clone()).or_default().push(path);
        }
        Ok(new)
    }

    /// Replaces the row of each run that is still open and ours. A run that
    /// has ended keeps its last row, and may have nothing new to settle.
    async fn write_run_rows(
        &self,
        session: &mut Session,
        settlements: &[Settlement],
        new: &NewOutcomes,
    ) -> Result<Vec<Tally>, WarehouseError> {
        let counted = self.tallies_with(session, settlements, new).await?;
        let mut tallies = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let facts = &*settlement.facts;
            let counted = counted.get(facts.run.as_str());
            let mut tally = counted.copied().unwrap_or_default();
            close_tally(&mut tally, settlement.funnel.planned);
            tallies.push(tally);
            if self.our_state(session, facts).await?.is_none() {
                match new.has(facts) {
                    true => return Err(not_ours(facts)),
                    false => continue,
                }
            }
            let row = RunRow {
                facts,
                funnel: &settlement.funnel,
                tally: &tally,
                status: settlement.status,
                finished_at: None,
                error: settlement.error.as_deref(),
            };
            let row = replace_run(&self.schema, row).map_err(unwritable)?;
            session.run_all(&row).await?;
            let touch = touch(&self.schema, facts, None).map_err(unwritable)?;
            session.run(&touch).await?;
        }
        Ok(tallies)
    }

    /// CLOSE: the run's last row, out of `open_runs`, its tables dropped. Where
    /// its tables are elsewhere, members to be cancelled were `carried` here,
    /// and withheld ones are counts only.
    pub(super) async fn close_run(
        &self,
        closing: &Closing,
        carried: Option<Carried>,
    ) -> Result<Tally, WarehouseError> {
        let facts = &*closing.facts;
        let what = facts.run.as_str();
        if closing.status == RunStatus::Cancelled {
            self.pool.none_given_up().await;
        }
        let _turn = self.cap_turn.lock().await;
        let (mut session, source) = self.source(carried).await?;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let open = open_run(&self.schema, facts).map_err(unwritable)?;
        let owner = first_column(&mut session, &open).await?.pop();
        if owner
            .as_ref()
            .is_some_and(|owner| *owner != facts.owner.to_string())
        {
            return Err(not_ours(facts));
        }
        let has_members = match source {
            Source::Here => {
                let table = TableNames::of(&facts.run).run;
                let there = self.existing(&mut session, what, &[&table]).await?;
                !there.is_empty()
            }
            Source::Carried { .. } => source.has(&facts.run),
        };
        if let Some(reason) = &closing.cancels_rest
            && owner.is_some()
            && has_members
        {
            let members = source.members(&self.schema, &facts.run)?;
            let rows = cancelled(&self.schema, facts, &members, reason).map_err(unwritable)?;
            session.run_all(&rows).await?;
        }
        let mut counted = self.tallies(&mut session, [facts]).await?;
        let mut tally = counted.remove(what).unwrap_or_default();
        close_tally(&mut tally, closing.funnel.planned);
        if owner.is_none() && self.status_to_respect(&mut session, facts).await?.is_some() {
            // Closed before, by us or by another daemon: its row and what it
            // kept stand.
            session.run_all(&source.end()).await?;
            session.run(&self.schema.commit(what)).await?;
            session.hand_back();
            return Ok(tally);
        }
        let row = RunRow {
            facts,
            funnel: &closing.funnel,
            tally: &tally,
            status: closing.status,
            finished_at: Some(closing.finished_at),
            error: closing.error.as_deref(),
        };
        let row = replace_run(&self.schema, row).map_err(unwritable)?;
        session.run_all(&row).await?;
        // A run held before anything was sent is staged anew, and may then
        // find other reasons.
        let begins_anew = closing.status == RunStatus::Held && tally.still_open == tally.total();
        let is_here = matches!(source, Source::Here);
        let has_rows = closing.withheld_rows && closing.funnel.withheld() > 0;
        if has_rows && is_here && has_members && !begins_anew {
            let rows = withheld_history(&self.schema, facts).map_err(unwritable)?;
            session.run(&rows).await?;
        }
        let deregister = deregister(&self.schema, facts).map_err(unwritable)?;
        session.run(&deregister).await?;
        match source {
            Source::Here => {
                let keeps = closing.keep_run_table;
                self.drop_tables(&mut session, &facts.run, keeps).await?;
            }
            Source::Carried { .. } => session.run_all(&source.end()).await?,
        }
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        self.known_layouts().remove(&facts.run);
        Ok(tally)
    }

    pub(super) async fn drop_tables(
        &self,
        session: &mut Session,
        run: &RunId,
        keeps_run_table: bool,
    ) -> Result<(), WarehouseError> {
        let what = run.as_str();
        let names = TableNames::of(run);
        let run = (!keeps_run_table).then_some(&names.run);
        for table in [&names.stage, &names.admit].into_iter().chain(run) {
            session.run(&self.schema.drop_table(what, table)).await?;
        }
        Ok(())
    }

    /// Rows for fire times without a run, where there is no row yet. Which have
    /// one is looked at without the lock first, since mostly all have; then so
    /// many at a time that others get their turn.
    pub(super) async fn write_unstarted(
        &self,
        runs: &[UnstartedRun],
    ) -> Result<(), WarehouseError> {
        if runs.is_empty() {
            return Ok(());
        }
        self.prepare().await?;
        let what = "fire times";
        let mut session = self.pool.session().await?;
        let new = self.not_known(&mut session, runs).await?;
        for some in new.chunks(ROWS_AT_A_TIME) {
            let _turn = self.cap_turn.lock().await;
            session
                .run_all(&self.schema.begin(what, Some(Lock::Cap)))
                .await?;
            let new = self.not_known(&mut session, some).await?;
            let script = unstarted(&self.schema, &new).map_err(unwritable)?;
            session.run_all(&script).await?;
            session.run(&self.schema.commit(what)).await?;
        }
        session.hand_back();
        Ok(())
    }

    /// Those of `runs` that `runs` does not have, each once.
    async fn not_known(
        &self,
        session: &mut Session,
        runs: &[UnstartedRun],
    ) -> Result<Vec<UnstartedRun>, WarehouseError> {
        let mut known = HashSet::new();
        for statement in known_runs(&self.schema, runs).map_err(unwritable)? {
            known.extend(first_column(session, &statement).await?);
        }
        let is_new = |run: &&UnstartedRun| known.insert(run.run.as_str().to_owned());
        Ok(runs.iter().filter(is_new).cloned().collect())
    }
}
