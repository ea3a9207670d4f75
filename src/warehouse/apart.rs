//! Two warehouses behind one port: audiences are frozen and read in one, and
//! history is written in the other. Whatever says that a run exists is on the
//! side of history, and is written first and taken back last.

use super::adapter::SqlWarehouse;
use super::admission::moved;
use super::carry::Carried;
use super::errors::{error, unwritable};
use super::pool::Session;
use super::staging::{count_rows, count_stage};
use super::{ApartOptions, ConnectorOptions};
use crate::audience::{Dialect, FreshWhen, Funnel, Lock, OpenMembers, ShownContacts, TableNames};
use crate::history::carried::{admitted_runs, mark, places};
use crate::history::{
    Closing, Remains, Retention, RunFacts, Settlement, SilentRun, Tally, Tidied, UnstartedRun,
    Withheld,
};
use crate::id::RunId;
use crate::run::{Page, Registration, Warehouse, WarehouseError, WarehouseErrorClass};
use async_trait::async_trait;
use jiff::Timestamp;
use std::time::Duration;
use uuid::Uuid;

/// The two of them.
pub(super) struct Apart {
    /// Runs' own tables, and what campaigns read.
    audience: SqlWarehouse,
    /// Our tables for good.
    history: SqlWarehouse,
}

impl Apart {
    /// `options` with their `apart`.
    pub(super) fn new(options: ConnectorOptions, apart: ApartOptions) -> Self {
        Self {
            audience: SqlWarehouse::new(options),
            history: SqlWarehouse::new(apart.history).marking(mark(&apart.name)),
        }
    }

    /// ADMIT: under the lock of history, so that runs that are admitted
    /// through this connector see each other; then the run's row there. Until
    /// that is written, an admit table is worth nothing and is made anew.
    async fn admit_apart(&self, run: &RunFacts) -> Result<Funnel, WarehouseError> {
        let (audience, history) = (&self.audience, &self.history);
        let what = run.run.as_str();
        let mut past = history.pool.session().await?;
        if let Some(funnel) = history.admitted(&mut past, run).await? {
            past.hand_back();
            return Ok(funnel);
        }
        past.hand_back();
        let mut session = audience.pool.session().await?;
        let funnel = count_stage(&mut session, &audience.tables(run).count_stage()).await?;
        let _turn = history.cap_turn.lock().await;
        let mut past = history.pool.session().await?;
        past.run_all(&history.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let funnel = match history.admitted(&mut past, run).await? {
            Some(earlier) => earlier,
            None => {
                let all = funnel.planned == funnel.audience;
                let funnel = match all && !run.policy.decides_on(funnel.planned) {
                    true => funnel,
                    false => self.decide(&mut past, &mut session, run, funnel).await?,
                };
                history.write_admitted(&mut past, run, &funnel).await?;
                funnel
            }
        };
        past.run(&history.schema.commit(what)).await?;
        past.hand_back();
        session.hand_back();
        Ok(funnel)
    }

    async fn decide(
        &self,
        past: &mut Session,
        session: &mut Session,
        run: &RunFacts,
        frozen: Funnel,
    ) -> Result<Funnel, WarehouseError> {
        let what = run.run.as_str();
        let mut shown = self.audience.shown.clone();
        let mut open = Vec::new();
        if run.policy.counts_contacts() {
            let Some(shown) = &mut shown else {
                let message = "caps and cooldown count contacts, and the connector does not see \
                               its history; give it a `history_relation` in campaignd.yaml";
                return Err(error(WarehouseErrorClass::Configuration, message));
            };
            open = self.open_members(past, session, run, shown).await?;
        }
        let admit = TableNames::of(&run.run).admit;
        let tables = self.audience.tables(run).counting(shown.as_ref());
        let statement = tables.admit(&run.campaign, &open).map_err(unwritable)?;
        session
            .run(&self.audience.schema.drop_table(what, &admit))
            .await?;
        if let Err(failed) = session.run(&statement).await {
            return Err(self.met_another(run, &admit, moved(failed)).await);
        }
        count_rows(session, &tables.count_admitted(), frozen.before_admission()).await
    }

    /// A statement whose reply was lost may have made the table meanwhile:
    /// then the whole step is done again.
    async fn met_another(
        &self,
        run: &RunFacts,
        table: &str,
        failed: WarehouseError,
    ) -> WarehouseError {
        if failed.class != WarehouseErrorClass::Statement {
            return failed;
        }
        let look = async {
            let mut session = self.audience.pool.session().await?;
            let what = run.run.as_str();
            let there = self.audience.existing(&mut session, what, &[table]).await?;
            session.hand_back();
            Ok::<_, WarehouseError>(!there.is_empty())
        };
        match look.await {
            Ok(true) => WarehouseError {
                class: WarehouseErrorClass::Conflict,
                ..failed
            },
            _ => failed,
        }
    }

    /// The planned members of the other runs of this connector under way.
    /// What `shown` has of these runs does not count twice.
    async fn open_members(
        &self,
        past: &mut Session,
        session: &mut Session,
        run: &RunFacts,
        shown: &mut ShownContacts,
    ) -> Result<Vec<OpenMembers>, WarehouseError> {
        let statement = admitted_runs(&self.history.schema, run).map_err(unwritable)?;
        let mut others: Vec<(RunId, OpenMembers)> = Vec::new();
        for row in past.rows(&statement).await? {
            let [Some(id), Some(campaign), channel, Some(table)] = row.as_slice() else {
                continue;
            };
            let table = table.strip_suffix(&self.history.mark);
            if let (Ok(id), Some(table)) = (id.parse(), table) {
                let members = OpenMembers {
                    table: table.to_owned(),
                    campaign: campaign.clone(),
                    channel: channel.clone().unwrap_or_default(),
                };
                others.push((id, members));
            }
        }
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let candidates = |id: &RunId| {
            let TableNames { stage, admit, run } = TableNames::of(id);
            [run, admit, stage]
        };
        let names: Vec<String> = others.iter().flat_map(|(id, _)| candidates(id)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let audience = &self.audience;
        let there = audience.existing(session, run.run.as_str(), &names).await?;
        let mut open = Vec::new();
        for (id, members) in others {
            let table = candidates(&id)
                .into_iter()
                .find(|name| there.contains(name));
            if let Some(table) = table {
                open.push(OpenMembers { table, ..members });
                shown.under_way.push(id);
            }
        }
        Ok(open)
    }

    /// CLOSE: history first. What is dropped afterwards is dropped by the
    /// repetition if a crash comes between.
    async fn close_apart(&self, closing: &Closing) -> Result<Tally, WarehouseError> {
        let (audience, run) = (&self.audience, &closing.facts.run);
        audience.pool.none_given_up().await;
        let carried: Carried = match closing.cancels_rest {
            Some(_) => audience.carry_rest(&self.history, &closing.facts).await?,
            None => audience.carry(&self.history, &[]).await?,
        };
        let tally = self.history.close_run(closing, Some(carried)).await?;
        let keeps = closing.keep_run_table || !self.history.ended_as(closing).await?;
        let mut session = audience.pool.session().await?;
        audience.drop_tables(&mut session, run, keeps).await?;
        session.hand_back();
        audience.known_layouts().remove(run);
        Ok(tally)
    }
}

#[async_trait]
impl Warehouse for Apart {
    fn dialect(&self) -> Dialect {
        self.audience.dialect()
    }

    async fn ping(&self) -> Result<(), WarehouseError> {
        self.history.ping().await?;
        self.audience.look_at_schema().await
    }

    async fn newest_data(
        &self,
        run: &RunFacts,
        fresh_when: &FreshWhen,
    ) -> Result<Option<Timestamp>, WarehouseError> {
        self.audience.newest_data(run, fresh_when).await
    }

    async fn register(&self, run: &RunFacts) -> Result<Registration, WarehouseError> {
        self.history.register(run).await
    }

    async fn freeze(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.audience.freeze(run).await
    }

    async fn admit(&self, run: &RunFacts) -> Result<Funnel, WarehouseError> {
        self.admit_apart(run).await
    }

    async fn lay_out(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.audience.lay_out(run).await
    }

    async fn page(
        &self,
        run: &RunFacts,
        places: (u64, u64),
        most_bytes: usize,
    ) -> Result<Page, WarehouseError> {
        self.audience.page(run, places, most_bytes).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Tally>, WarehouseError> {
        let wanted = settlements.iter().map(|settlement| {
            let facts = &*settlement.facts;
            (facts, places(facts, &settlement.outcomes))
        });
        let wanted: Vec<_> = wanted.collect();
        let carried = self.audience.carry(&self.history, &wanted).await?;
        self.history
            .settle_batches(settlements, Some(carried))
            .await
    }

    async fn close(&self, closing: &Closing) -> Result<Tally, WarehouseError> {
        self.close_apart(closing).await
    }

    async fn record_unstarted(&self, runs: &[UnstartedRun]) -> Result<(), WarehouseError> {
        self.history.record_unstarted(runs).await
    }

    async fn withhold(
        &self,
        run: &RunFacts,
        from: u32,
        except: &[u32],
    ) -> Result<(), WarehouseError> {
        self.audience.withhold(run, from, except).await
    }

    async fn reopen(
        &self,
        run: &RunFacts,
        funnel: &Funnel,
        known: &Tally,
        resends: bool,
    ) -> Result<Tally, WarehouseError> {
        let audience = Some(&self.audience);
        self.history
            .reopen_run(run, funnel, known, resends, audience)
            .await
    }

    async fn tidy(
        &self,
        keep: Retention,
        except: Option<&RunId>,
    ) -> Result<Tidied, WarehouseError> {
        let audience = Some(&self.audience);
        self.history.tidy_up(keep, except, audience).await
    }

    async fn forget_unstaged(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        if self.history.forget_run(run).await? {
            let mut session = self.audience.pool.session().await?;
            let dropped = self.audience.drop_tables(&mut session, &run.run, false);
            dropped.await?;
            session.hand_back();
        }
        Ok(())
    }

    async fn withheld(&self, run: &RunFacts) -> Result<Withheld, WarehouseError> {
        self.audience.withheld(run).await
    }

    async fn has_run(&self, run: &RunId) -> Result<bool, WarehouseError> {
        self.history.has_run(run).await
    }

    async fn touch(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.history.touch(run).await
    }

    async fn silent_runs(&self, older_than: Duration) -> Result<Vec<SilentRun>, WarehouseError> {
        self.history.silent_runs(older_than).await
    }

    async fn adopt(
        &self,
        silent: &SilentRun,
        by: Uuid,
        older_than: Duration,
    ) -> Result<Option<Remains>, WarehouseError> {
        let audience = Some(&self.audience);
        self.history
            .adopt_run(silent, by, older_than, audience)
            .await
    }
}
