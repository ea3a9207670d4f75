//! What has been kept long enough is removed.

use super::adapter::{SqlWarehouse, first_column};
use super::errors::unwritable;
use super::pool::Session;
use crate::audience::{Lock, TableNames};
use crate::history::tidy::{ended_before, forget_runs, is_open, newest_runs, run_tables};
use crate::history::{Retention, Tidied};
use crate::id::RunId;
use crate::run::WarehouseError;
use std::collections::HashSet;

impl SqlWarehouse {
    /// Drops the tables of runs that ended long ago, which are in `audience` if
    /// not here, then forgets those that ended longer ago still, save
    /// `except`. What is cut short is done the next time.
    pub(super) async fn tidy_up(
        &self,
        keep: Retention,
        except: Option<&RunId>,
        audience: Option<&Self>,
    ) -> Result<Tidied, WarehouseError> {
        self.prepare().await?;
        let of_runs = self.drop_old_tables(keep, audience).await?;
        let of_no_run = self.drop_orphans(keep.tables, audience).await?;
        Ok(Tidied {
            tables: of_runs + of_no_run,
            runs: self.forget_old_runs(keep, except).await?,
        })
    }

    /// A table is a run's by the hash in its name, and the run's row says when
    /// it ended. One whose run has no row is not judged here.
    async fn drop_old_tables(
        &self,
        keep: Retention,
        audience: Option<&Self>,
    ) -> Result<u64, WarehouseError> {
        let there = audience.unwrap_or(self).tables_of_runs().await?;
        if there.is_empty() {
            return Ok(0);
        }
        let mut session = self.pool.session().await?;
        let ended = first_column(&mut session, &ended_before(&self.schema, keep.tables)).await?;
        session.hand_back();
        let mut dropped = 0;
        for run in ended.iter().filter_map(|run| run.parse::<RunId>().ok()) {
            let names = TableNames::of(&run);
            let mut old = vec![names.run, names.stage, names.admit];
            old.retain(|name| there.contains(name));
            if !old.is_empty() {
                dropped += self.drop_tables_of(&run, keep, &old, audience).await?;
            }
        }
        Ok(dropped)
    }

    pub(super) async fn tables_of_runs(&self) -> Result<HashSet<String>, WarehouseError> {
        let mut session = self.pool.session().await?;
        let there = first_column(&mut session, &run_tables(&self.schema)).await?;
        session.hand_back();
        Ok(there.into_iter().collect())
    }

    /// Under the lock under which a run is opened again, which looks whether
    /// its table is there: where it was opened meanwhile, nothing is dropped.
    async fn drop_tables_of(
        &self,
        run: &RunId,
        keep: Retention,
        tables: &[String],
        audience: Option<&Self>,
    ) -> Result<u64, WarehouseError> {
        let what = run.as_str();
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let open = is_open(&self.schema, run).map_err(unwritable)?;
        let is_open = !session.rows(&open).await?.is_empty();
        // It may have been opened and closed since it was looked for.
        let ended = first_column(&mut session, &ended_before(&self.schema, keep.tables)).await?;
        let mut dropped = 0;
        if !is_open && ended.iter().any(|ended| ended == what) {
            dropped = tables.len() as u64;
            match audience {
                None => self.drop_each(&mut session, what, tables).await?,
                Some(audience) => {
                    let mut elsewhere = audience.pool.session().await?;
                    audience.drop_each(&mut elsewhere, what, tables).await?;
                    elsewhere.hand_back();
                }
            }
        }
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        Ok(dropped)
    }

    pub(super) async fn drop_each(
        &self,
        session: &mut Session,
        what: &str,
        tables: &[String],
    ) -> Result<(), WarehouseError> {
        for table in tables {
            session.run(&self.schema.drop_table(what, table)).await?;
        }
        Ok(())
    }

    async fn forget_old_runs(
        &self,
        keep: Retention,
        except: Option<&RunId>,
    ) -> Result<u64, WarehouseError> {
        let mut session = self.pool.session().await?;
        let newest = first_column(&mut session, &newest_runs(&self.schema)).await?;
        let mut old = first_column(&mut session, &ended_before(&self.schema, keep.history)).await?;
        session.hand_back();
        let newest: HashSet<String> = newest.into_iter().collect();
        let except = except.map(RunId::as_str);
        old.retain(|run| !newest.contains(run) && Some(run.as_str()) != except);
        let what = "ended runs";
        for script in forget_runs(&self.schema, &old).map_err(unwritable)? {
            let _turn = self.settle_turn.lock().await;
            let mut session = self.pool.session().await?;
            session
                .run_all(&self.schema.begin(what, Some(Lock::Settle)))
                .await?;
            session.run_all(&script).await?;
            session.run(&self.schema.commit(what)).await?;
            session.hand_back();
        }
        Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
    }
}
