//! Runs that have ended, opened again.

use super::adapter::{SqlWarehouse, first_column};
use super::errors::unwritable;
use super::pool::Session;
use super::staging::{not_ours, number};
use crate::audience::{Funnel, Lock, TableNames};
use crate::history::register::{RunRow, open_run, replace_run, run_status, touch};
use crate::history::reopen::{forget, forget_run, register_again, was_never_staged};
use crate::history::settle::close_tally;
use crate::history::{RunFacts, RunStatus, Tally};
use crate::run::{WarehouseError, gone};

/// The run's frozen members are not there any more.
const NO_TABLE: &str = "its frozen members are not in the warehouse any more: they are kept for \
    `stage_retention` after its end, or until a member of it is erased; start a new run";

/// Somebody else has sent of it, or settled for it.
const OTHERS_WORK: &str = "the warehouse's history has more of it than the state store knows: \
    another daemon has taken it over, or the state store was lost; nothing of it is sent from here";

impl SqlWarehouse {
    /// REOPEN: back into `open_runs`, what will be written anew forgotten, and
    /// an open row in `runs`; one transaction. The run's own table is in
    /// `audience`, if not here.
    pub(super) async fn reopen_run(
        &self,
        run: &RunFacts,
        funnel: &Funnel,
        known: &Tally,
        resends: bool,
        audience: Option<&Self>,
    ) -> Result<Tally, WarehouseError> {
        self.prepare().await?;
        let what = run.run.as_str();
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let is_open = self.is_open_and_ours(&mut session, run).await?;
        let table = TableNames::of(&run.run).run;
        let there = match audience {
            None => self.existing(&mut session, what, &[&table]).await?,
            Some(audience) => {
                let mut elsewhere = audience.pool.session().await?;
                let there = audience.existing(&mut elsewhere, what, &[&table]).await?;
                elsewhere.hand_back();
                there
            }
        };
        if there.is_empty() {
            return Err(gone(NO_TABLE));
        }
        let before = self.tally_of(&mut session, run).await?;
        let sent = |tally: &Tally| (tally.delivered + tally.rejected, tally.unknown);
        if resends && sent(&before) != sent(known) {
            return Err(gone(OTHERS_WORK));
        }
        let script = forget(&self.schema, run, resends).map_err(unwritable)?;
        session.run_all(&script).await?;
        let shown = match is_open {
            true => touch(&self.schema, run, None),
            false => register_again(&self.schema, run, &self.mark),
        };
        session.run(&shown.map_err(unwritable)?).await?;
        let mut tally = self.tally_of(&mut session, run).await?;
        close_tally(&mut tally, funnel.planned);
        let row = RunRow {
            facts: run,
            funnel,
            tally: &tally,
            status: RunStatus::Open,
            finished_at: None,
            error: None,
        };
        let row = replace_run(&self.schema, row).map_err(unwritable)?;
        session.run_all(&row).await?;
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        Ok(tally)
    }

    /// Forgets a run that ended before its members were numbered, and what a
    /// statement that was given up has left of it. Returns whether there was
    /// something to forget: not, where it is begun again already.
    pub(super) async fn forget_run(&self, run: &RunFacts) -> Result<bool, WarehouseError> {
        self.prepare().await?;
        let what = run.run.as_str();
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let is_open = self.is_open_and_ours(&mut session, run).await?;
        if !is_open {
            let look = run_status(&self.schema, run).map_err(unwritable)?;
            for row in session.rows(&look).await? {
                let ended = number(row.get(1).and_then(Option::as_ref));
                let status = row.into_iter().next().flatten().unwrap_or_default();
                if !was_never_staged(&status, ended) {
                    return Err(gone(format!("the warehouse has it as {status}")));
                }
            }
            let forget = forget_run(&self.schema, run).map_err(unwritable)?;
            session.run(&forget).await?;
            self.drop_tables(&mut session, &run.run, false).await?;
        }
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        Ok(!is_open)
    }

    async fn is_open_and_ours(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<bool, WarehouseError> {
        let open = open_run(&self.schema, run).map_err(unwritable)?;
        match first_column(session, &open).await?.pop() {
            None => Ok(false),
            Some(owner) if owner == run.owner.to_string() => Ok(true),
            Some(_) => Err(not_ours(run)),
        }
    }

    async fn tally_of(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Tally, WarehouseError> {
        let mut counted = self.tallies(session, [run]).await?;
        Ok(counted.remove(run.run.as_str()).unwrap_or_default())
    }
}
