//! A run's own tables: frozen, admitted, laid out, read in pages.

use super::adapter::{MAX_LAYOUTS, SqlWarehouse, first_column};
use super::cells::{Layout, read_page, read_page_in_order};
use super::errors::{error, unwritable};
use super::pool::Session;
use crate::audience::{
    Column, Dialect, Funnel, Lock, RunTables, Statement, TableNames, check_columns, lint,
};
use crate::history::register::{
    ADMITTED, RunRow, funnel_of, open_run, read_funnel, replace_run, touch,
};
use crate::history::{RunFacts, RunStatus, Tally};
use crate::id::RunId;
use crate::run::{NOT_OURS, Page, WarehouseError, WarehouseErrorClass};
use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

impl SqlWarehouse {
    pub(super) fn tables<'a>(&'a self, run: &'a RunFacts) -> RunTables<'a> {
        RunTables::new(&self.schema, &run.run, &run.audience)
            .without(&run.suppress)
            .under(&run.policy)
            .counting(self.shown.as_ref())
    }

    /// FREEZE: one statement makes the stage table. Any table of the run is
    /// proof that it has been made.
    pub(super) async fn freeze_audience(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        refuse_unsound_sql(run, self.schema.dialect)?;
        let names = TableNames::of(&run.run);
        let ours = [&*names.stage, &*names.admit, &*names.run];
        let tables = self.tables(run);
        let _turn = self.writer_turn().await;
        let mut session = self.pool.session().await?;
        let there = self.existing(&mut session, run.run.as_str(), &ours).await?;
        if there.is_empty() {
            session.run_all(&tables.probe()).await?;
            let columns = columns(&mut session, &tables.probed_columns()).await?;
            session.run(&tables.drop_probe()).await?;
            let key = check_columns(&columns, &run.audience.key)
                .map_err(|bad| error(WarehouseErrorClass::Statement, bad.to_string()))?;
            let script = tables
                .freeze(&columns, key, run.cut())
                .map_err(|bad| error(WarehouseErrorClass::Statement, bad.to_string()))?;
            if let Err(failed) = self.make_stage(&mut session, run, &script).await {
                return self.done_meanwhile(run, &names.stage, failed).await;
            }
        }
        session.hand_back();
        Ok(())
    }

    /// Runs the statements that make the stage. Where a function that the query
    /// calls could write, all of it is one transaction, which is given up if
    /// one did: as if the run had never asked.
    async fn make_stage(
        &self,
        session: &mut Session,
        run: &RunFacts,
        script: &[Statement],
    ) -> Result<(), WarehouseError> {
        let Some(written_beside) = self.tables(run).written_beside() else {
            return session.run_all(script).await;
        };
        let what = run.run.as_str();
        session.run_all(&self.schema.begin(what, None)).await?;
        session.run_all(script).await?;
        if let Some(written) = first_column(session, &written_beside).await?.pop() {
            let message = format!(
                "the query writes: a function that it calls has changed {written}; an audience only \
                 reads, so all of it was undone"
            );
            return Err(error(WarehouseErrorClass::Statement, message));
        }
        session.run(&self.schema.commit(what)).await
    }

    /// ADMIT: what is counted, is counted before the lock; under it, members
    /// are numbered, unless all are planned under the number the stage gave
    /// them, and the run's row is written.
    pub(super) async fn admit_members(&self, run: &RunFacts) -> Result<Funnel, WarehouseError> {
        let what = run.run.as_str();
        let tables = self.tables(run);
        let mut session = self.pool.session().await?;
        if let Some(funnel) = self.admitted(&mut session, run).await? {
            session.hand_back();
            return Ok(funnel);
        }
        let funnel = count_stage(&mut session, &tables.count_stage()).await?;
        let _turn = self.cap_turn.lock().await;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let funnel = match self.admitted(&mut session, run).await? {
            Some(earlier) => earlier,
            None => {
                let all = funnel.planned == funnel.audience;
                let funnel = match all && !run.policy.decides_on(funnel.planned) {
                    true => funnel,
                    false => self.decide(&mut session, run, funnel).await?,
                };
                self.write_admitted(&mut session, run, &funnel).await?;
                funnel
            }
        };
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        Ok(funnel)
    }

    /// The run's row, and that it is admitted.
    pub(super) async fn write_admitted(
        &self,
        session: &mut Session,
        run: &RunFacts,
        funnel: &Funnel,
    ) -> Result<(), WarehouseError> {
        let tally = Tally {
            still_open: funnel.planned,
            ..Tally::default()
        };
        let row = RunRow {
            facts: run,
            funnel,
            tally: &tally,
            status: RunStatus::Open,
            finished_at: None,
            error: None,
        };
        let rows = replace_run(&self.schema, row).map_err(unwritable)?;
        session.run_all(&rows).await?;
        let admitted = touch(&self.schema, run, Some(ADMITTED)).map_err(unwritable)?;
        session.run(&admitted).await
    }

    /// The funnel, if the run has been admitted; an error if it is not ours.
    pub(super) async fn admitted(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Option<Funnel>, WarehouseError> {
        let state = self.our_state(session, run).await?;
        if state.as_deref() != Some(ADMITTED) {
            return match state {
                Some(_) => Ok(None),
                None => Err(not_ours(run)),
            };
        }
        let row = session
            .rows(&read_funnel(&self.schema, run).map_err(unwritable)?)
            .await?;
        let cells = row.into_iter().next().unwrap_or_default();
        let counts: Vec<u64> = cells
            .into_iter()
            .map(|cell| number(cell.as_ref()))
            .collect();
        let counts = <[u64; 10]>::try_from(counts).map_err(|_| {
            let message = format!("{} is admitted and yet has no row in `runs`", run.run);
            error(WarehouseErrorClass::Statement, message)
        })?;
        Ok(Some(funnel_of(counts)))
    }

    /// The run's state in `open_runs`, if it is there and ours.
    pub(super) async fn our_state(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Option<String>, WarehouseError> {
        let statement = open_run(&self.schema, run).map_err(unwritable)?;
        let rows = session.rows(&statement).await?;
        let owner = run.owner.to_string();
        Ok(rows.into_iter().find_map(|row| match row.as_slice() {
            [Some(by), Some(state)] if *by == owner => Some(state.clone()),
            _ => None,
        }))
    }

    /// Lay out: where the run table is, it is complete.
    pub(super) async fn lay_out_members(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        let names = TableNames::of(&run.run);
        let tables = self.tables(run);
        let _turn = self.writer_turn().await;
        let mut session = self.pool.session().await?;
        let what = run.run.as_str();
        let ours = [&*names.admit, &*names.run];
        let there = self.existing(&mut session, what, &ours).await?;
        if !there.contains(&names.run) {
            let is_admitted = there.contains(&names.admit);
            let laid_out = async {
                let script = if is_admitted {
                    let statement = self.schema.columns_of(what, &names.stage);
                    let columns = members_columns(&mut session, &statement).await?;
                    tables.lay_out_admitted(&columns, run.cut())
                } else {
                    tables.lay_out_all()
                };
                session.run_all(&script).await
            };
            if let Err(failed) = laid_out.await {
                return self.done_meanwhile(run, &names.run, failed).await;
            }
        }
        session.hand_back();
        Ok(())
    }

    /// A statement whose reply was lost may still have been at work when it
    /// was run again, and the two meet in the catalog in many ways. If `table`
    /// is there by now, it is complete and the step is done; else `failed`
    /// stands.
    async fn done_meanwhile(
        &self,
        run: &RunFacts,
        table: &str,
        failed: WarehouseError,
    ) -> Result<(), WarehouseError> {
        use WarehouseErrorClass as C;
        if !matches!(failed.class, C::Statement | C::Conflict) {
            return Err(failed);
        }
        let mut session = self.pool.session().await?;
        let there = self
            .existing(&mut session, run.run.as_str(), &[table])
            .await?;
        session.hand_back();
        match there.is_empty() {
            true => Err(failed),
            false => Ok(()),
        }
    }

    /// PAGE: the connection is held for one statement only.
    pub(super) async fn read_members(
        &self,
        run: &RunFacts,
        (first, last): (u64, u64),
        most_bytes: usize,
    ) -> Result<Page, WarehouseError> {
        let mut session = self.pool.session().await?;
        let layout = self.layout(&mut session, run).await?;
        let tables = self.tables(run);
        let found = match tables.page_as_it_lies(&layout.columns, first, last) {
            Some(lying) => read_page_in_order(&mut session, &lying, &layout, most_bytes).await?,
            None => None,
        };
        let page = match found {
            Some(page) => page,
            None => {
                let sorted = tables.page(&layout.columns, first, last);
                read_page(&mut session, &sorted, &layout, most_bytes).await?
            }
        };
        session.hand_back();
        Ok(page)
    }

    pub(super) async fn layout(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Arc<Layout>, WarehouseError> {
        if let Some(layout) = self.known_layouts().get(&run.run) {
            return Ok(Arc::clone(layout));
        }
        let names = TableNames::of(&run.run);
        let statement = self.schema.columns_of(run.run.as_str(), &names.run);
        let columns = members_columns(session, &statement).await?;
        let layout = Arc::new(Layout::new(self.schema.dialect, columns));
        let mut known = self.known_layouts();
        if known.len() >= MAX_LAYOUTS {
            known.clear();
        }
        known.insert(run.run.clone(), Arc::clone(&layout));
        Ok(layout)
    }

    pub(super) fn known_layouts(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Layout>>> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only one read-only query is ever wrapped, whoever checked it before.
pub(super) fn refuse_unsound_sql(run: &RunFacts, dialect: Dialect) -> Result<(), WarehouseError> {
    let problems = lint(&run.audience.sql, &run.audience.key, dialect);
    match problems.into_iter().find(|problem| !problem.is_note) {
        None => Ok(()),
        Some(problem) => Err(WarehouseError {
            place: Some((problem.line, problem.column)),
            ..error(WarehouseErrorClass::Statement, problem.message)
        }),
    }
}

/// What to say of a run that somebody took away.
pub(super) fn not_ours(run: &RunFacts) -> WarehouseError {
    let message = format!(
        "{} is not registered as ours in `open_runs`: another daemon has taken it over, or it has ended",
        run.run
    );
    WarehouseError {
        code: Some(NOT_OURS.to_owned()),
        ..error(WarehouseErrorClass::Statement, message)
    }
}

pub(super) async fn columns(
    session: &mut Session,
    statement: &Statement,
) -> Result<Vec<Column>, WarehouseError> {
    let rows = session.rows(statement).await?;
    let column = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter();
        Column {
            name: cells.next().flatten().unwrap_or_default(),
            type_name: cells.next().flatten().unwrap_or_default(),
        }
    };
    Ok(rows.into_iter().map(column).collect())
}

/// The columns that the campaign's query returned, in a table of ours.
async fn members_columns(
    session: &mut Session,
    statement: &Statement,
) -> Result<Vec<Column>, WarehouseError> {
    let mut found = columns(session, statement).await?;
    found.retain(|column| !column.is_ours());
    if found.is_empty() {
        let message = "the run's frozen members are not there any more; somebody dropped the table";
        return Err(error(WarehouseErrorClass::Statement, message));
    }
    Ok(found)
}

pub(super) async fn count_stage(
    session: &mut Session,
    statement: &Statement,
) -> Result<Funnel, WarehouseError> {
    count_rows(session, statement, Funnel::default()).await
}

/// Adds the rows of `statement`, a status and its count each, to `funnel`.
pub(super) async fn count_rows(
    session: &mut Session,
    statement: &Statement,
    mut funnel: Funnel,
) -> Result<Funnel, WarehouseError> {
    for row in session.rows(statement).await? {
        let status = row.first().cloned().flatten().unwrap_or_default();
        let rows = number(row.get(1).and_then(Option::as_ref));
        funnel.count(&status, rows).map_err(|unknown| {
            let message = format!("a table of the run holds the unknown status `{unknown}`");
            error(WarehouseErrorClass::Statement, message)
        })?;
    }
    Ok(funnel)
}

/// A count; what is not there counts nothing.
pub(super) fn number(cell: Option<&String>) -> u64 {
    cell.and_then(|text| text.parse().ok()).unwrap_or(0)
}
