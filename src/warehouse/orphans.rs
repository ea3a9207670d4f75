//! Tables of runs that nobody knows of: left behind where rows of ours were
//! deleted, or a warehouse was put back. Nothing says how old they are, so
//! they count from when this process has first seen them.

use super::adapter::{SqlWarehouse, first_column};
use crate::audience::{Lock, TableNames};
use crate::history::erase::is_of_a_run;
use crate::history::tidy::all_runs;
use crate::id::RunId;
use crate::run::WarehouseError;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

const WHAT: &str = "tables of no run";

impl SqlWarehouse {
    /// Drops the tables that have been seen for `age`, and whose run is
    /// neither in `runs` nor in `open_runs`. They are in `audience`, if not
    /// here. Under the lock under which runs are registered, which they are
    /// before they have a table.
    pub(super) async fn drop_orphans(
        &self,
        age: Duration,
        audience: Option<&Self>,
    ) -> Result<u64, WarehouseError> {
        let there = audience.unwrap_or(self).tables_of_runs().await?;
        let mut old = self.seen_for(age, there.into_iter().filter(|name| is_of_a_run(name)));
        if old.is_empty() {
            return Ok(0);
        }
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        session
            .run_all(&self.schema.begin(WHAT, Some(Lock::Cap)))
            .await?;
        for run in first_column(&mut session, &all_runs(&self.schema)).await? {
            if let Ok(run) = run.parse::<RunId>() {
                let names = TableNames::of(&run);
                old.retain(|table| ![&names.run, &names.stage, &names.admit].contains(&table));
            }
        }
        match audience {
            None => self.drop_each(&mut session, WHAT, &old).await?,
            Some(audience) => {
                let mut elsewhere = audience.pool.session().await?;
                audience.drop_each(&mut elsewhere, WHAT, &old).await?;
                elsewhere.hand_back();
            }
        }
        session.run(&self.schema.commit(WHAT)).await?;
        session.hand_back();
        Ok(old.len() as u64)
    }

    /// Notes which tables are there, and returns those that have been for
    /// `age`, in order.
    fn seen_for(&self, age: Duration, there: impl Iterator<Item = String>) -> Vec<String> {
        let now = Instant::now();
        let mut seen = self
            .tables_seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let since = |table: String| {
            let first = seen.get(&table).copied().unwrap_or(now);
            (table, first)
        };
        *seen = there.map(since).collect();
        let is_old = |(table, first): (&String, &Instant)| {
            (now.duration_since(*first) >= age).then(|| table.clone())
        };
        let mut old: Vec<String> = seen.iter().filter_map(is_old).collect();
        old.sort_unstable();
        old
    }
}
