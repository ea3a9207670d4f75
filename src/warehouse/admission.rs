//! Who is contacted, decided under the lock: earlier contacts and the runs
//! under way are counted, and the limit is kept.

use super::adapter::SqlWarehouse;
use super::errors::unwritable;
use super::pool::Session;
use super::staging::count_rows;
use crate::audience::{Funnel, OpenMembers};
use crate::history::RunFacts;
use crate::history::register::admitted_runs;
use crate::run::{WarehouseError, WarehouseErrorClass};

/// What PostgreSQL and Redshift call a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

impl SqlWarehouse {
    /// Makes the run's admit table, and returns what became of the members of
    /// `frozen` that were to be contacted.
    pub(super) async fn decide(
        &self,
        session: &mut Session,
        run: &RunFacts,
        frozen: Funnel,
    ) -> Result<Funnel, WarehouseError> {
        let open = match run.policy.counts_contacts() {
            true => self.open_members(session, run).await?,
            false => Vec::new(),
        };
        let tables = self.tables(run);
        let admit = tables.admit(&run.campaign, &open).map_err(unwritable)?;
        session.run(&admit).await.map_err(moved)?;
        count_rows(session, &tables.count_admitted(), frozen.before_admission()).await
    }

    /// Where the members of the other runs under way are: in the run's table
    /// once it is laid out, before that in `admit`, or in the stage where all
    /// of it is planned.
    pub(super) async fn open_members(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Vec<OpenMembers>, WarehouseError> {
        if self.only_audiences {
            // `open_runs` is elsewhere.
            return Ok(Vec::new());
        }
        let others = admitted_runs(&self.schema, run).map_err(unwritable)?;
        let mut open = Vec::new();
        for row in session.rows(&others).await? {
            let [Some(campaign), channel, Some(run_table)] = row.as_slice() else {
                continue;
            };
            let Some(hash) = run_table.strip_prefix("run_") else {
                continue;
            };
            let stages = [format!("admit_{hash}"), format!("stage_{hash}")];
            let candidates = [run_table, &stages[0], &stages[1]];
            open.push((
                campaign.clone(),
                channel.clone().unwrap_or_default(),
                candidates.map(String::clone),
            ));
        }
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = open.iter().flat_map(|(.., t)| t).map(|t| &**t).collect();
        let there = self.existing(session, run.run.as_str(), &names).await?;
        let members = open.into_iter().filter_map(|(campaign, channel, tables)| {
            let table = tables.into_iter().find(|table| there.contains(table))?;
            Some(OpenMembers {
                table,
                campaign,
                channel,
            })
        });
        Ok(members.collect())
    }
}

/// Another run was laid out since we looked where its members are: its table
/// has another name by now, and the whole transaction is done again.
pub(super) fn moved(failed: WarehouseError) -> WarehouseError {
    match failed.code.as_deref() {
        Some(UNDEFINED_TABLE) => WarehouseError {
            class: WarehouseErrorClass::Conflict,
            ..failed
        },
        _ => failed,
    }
}
