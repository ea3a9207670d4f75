//! What has become of the members of runs, as their rows and `deliveries` say.

use super::adapter::SqlWarehouse;
use super::errors::{error, unwritable};
use super::pool::Session;
use super::staging::number;
use crate::history::settle::{add_outcomes, add_to_tally, count_deliveries, tallies_so_far};
use crate::history::{BatchStatus, RunFacts, Settlement, Tally};
use crate::id::BatchPath;
use crate::run::{WarehouseError, WarehouseErrorClass};
use std::collections::HashMap;

/// What of the outcomes `deliveries` did not have.
#[derive(Debug, Default)]
pub(super) struct NewOutcomes {
    /// How many, by the id of their run.
    pub(super) counts: HashMap<String, u64>,
    /// Those among them that it had with another status.
    pub(super) changed: HashMap<String, Vec<BatchPath>>,
}

impl NewOutcomes {
    pub(super) fn has(&self, facts: &RunFacts) -> bool {
        self.counts.contains_key(facts.run.as_str())
    }

    /// Whether the settlement's can be added to what the run's row says: it had
    /// none of them.
    fn can_be_added(&self, settlement: &Settlement) -> bool {
        let run = settlement.facts.run.as_str();
        let new = self.counts.get(run).copied().unwrap_or_default();
        !settlement.counts_anew
            && !self.changed.contains_key(run)
            && new == settlement.outcomes.len() as u64
    }
}

impl SqlWarehouse {
    /// What has become of each run's members by now, by its id: what its row
    /// says, and what is new. Its `deliveries` are counted where that is asked
    /// for, where not all is new, and where it has no row or several.
    pub(super) async fn tallies_with(
        &self,
        session: &mut Session,
        settlements: &[Settlement],
        new: &NewOutcomes,
    ) -> Result<HashMap<String, Tally>, WarehouseError> {
        let (added, counted): (Vec<_>, Vec<_>) = settlements
            .iter()
            .partition(|settlement| new.can_be_added(settlement));
        let mut tallies = self.tallies_so_far(session, &added).await?;
        let mut to_count: Vec<&RunFacts> = counted.iter().map(|s| &*s.facts).collect();
        for settlement in added {
            match tallies.get_mut(settlement.facts.run.as_str()) {
                Some(tally) => add_outcomes(tally, &settlement.outcomes),
                None => to_count.push(&settlement.facts),
            }
        }
        if !to_count.is_empty() {
            tallies.extend(self.tallies(session, to_count).await?);
        }
        Ok(tallies)
    }

    /// What the row of each run says, by its id.
    async fn tallies_so_far(
        &self,
        session: &mut Session,
        settlements: &[&Settlement],
    ) -> Result<HashMap<String, Tally>, WarehouseError> {
        if settlements.is_empty() {
            return Ok(HashMap::new());
        }
        let runs = settlements.iter().map(|settlement| &*settlement.facts);
        let statement = tallies_so_far(&self.schema, runs).map_err(unwritable)?;
        let rows = session.rows(&statement).await?;
        let tally = |row: Vec<Option<String>>| {
            let count = |column: usize| number(row.get(column).and_then(Option::as_ref));
            let tally = Tally {
                delivered: count(1),
                rejected: count(2),
                failed: count(3),
                unknown: count(4),
                cancelled: count(5),
                still_open: 0,
            };
            Some((row.first()?.clone()?, tally))
        };
        Ok(rows.into_iter().filter_map(tally).collect())
    }

    /// What `deliveries` says of each run, by its id.
    pub(super) async fn tallies(
        &self,
        session: &mut Session,
        runs: impl IntoIterator<Item = &RunFacts>,
    ) -> Result<HashMap<String, Tally>, WarehouseError> {
        let statement = count_deliveries(&self.schema, runs).map_err(unwritable)?;
        let mut tallies: HashMap<String, Tally> = HashMap::new();
        for row in session.rows(&statement).await? {
            let [Some(run), Some(status), members, rejected] = row.as_slice() else {
                continue;
            };
            let status: BatchStatus = status
                .parse()
                .map_err(|unknown: String| error(WarehouseErrorClass::Statement, unknown))?;
            let tally = tallies.entry(run.clone()).or_default();
            add_to_tally(
                tally,
                status,
                number(members.as_ref()),
                number(rejected.as_ref()),
            );
        }
        Ok(tallies)
    }
}
