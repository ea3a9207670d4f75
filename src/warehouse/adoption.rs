//! Runs shown to be alive, and runs that nobody shows to be alive.

use super::adapter::SqlWarehouse;
use super::errors::{error, unwritable};
use super::pool::Session;
use super::staging::{not_ours, number};
use crate::audience::{Funnel, Lock, TableNames};
use crate::history::adoption::{
    UNKNOWN_DESTINATION, bare_facts, batches, instant_of_cell, owner_and_term, settled_batches,
    silent_runs, take_over, version_and_start,
};
use crate::history::register::{funnel_of, read_funnel, touch};
use crate::history::{Remains, RunFacts, SilentRun};
use crate::id::RunId;
use crate::run::{WarehouseError, WarehouseErrorClass};
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

impl SqlWarehouse {
    /// Notes that the run is alive, in a transaction of its own.
    pub(super) async fn touch_run(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        let what = run.run.as_str();
        let _turn = self.settle_turn.lock().await;
        let mut session = self.pool.session().await?;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Settle)))
            .await?;
        let is_ours = self.our_state(&mut session, run).await?.is_some();
        if is_ours {
            let touch = touch(&self.schema, run, None).map_err(unwritable)?;
            session.run(&touch).await?;
        }
        session.run(&self.schema.commit(what)).await?;
        session.hand_back();
        match is_ours {
            true => Ok(()),
            false => Err(not_ours(run)),
        }
    }

    /// Whether `runs` has the run.
    pub(super) async fn is_known(&self, run: &RunId) -> Result<bool, WarehouseError> {
        self.prepare().await?;
        let statement = version_and_start(&self.schema, run).map_err(unwritable)?;
        let mut session = self.pool.session().await?;
        let rows = session.rows(&statement).await?;
        session.hand_back();
        Ok(!rows.is_empty())
    }

    /// The runs nobody has shown to be alive for so long.
    pub(super) async fn runs_not_seen(
        &self,
        older_than: Duration,
    ) -> Result<Vec<SilentRun>, WarehouseError> {
        self.prepare().await?;
        let mut session = self.pool.session().await?;
        let rows = session.rows(&silent_runs(&self.schema, older_than)).await?;
        session.hand_back();
        let ours = |row: &Vec<Option<String>>| {
            let table = row.get(6).and_then(Option::as_deref).unwrap_or_default();
            let mark = table.find('@').map_or("", |at| &table[at..]);
            mark == self.mark
        };
        let rows = rows.into_iter().filter(ours);
        Ok(rows.filter_map(silent_run).collect())
    }

    /// ADOPT: owner and term by compare-and-set, then what else is known. The
    /// run's own table is in `audience`, if not here.
    pub(super) async fn adopt_run(
        &self,
        silent: &SilentRun,
        by: Uuid,
        older_than: Duration,
        audience: Option<&Self>,
    ) -> Result<Option<Remains>, WarehouseError> {
        let what = silent.run.as_str();
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        session
            .run_all(&self.schema.begin(what, Some(Lock::Cap)))
            .await?;
        let statement = take_over(&self.schema, silent, by, older_than).map_err(unwritable)?;
        session.run(&statement).await?;
        let statement = owner_and_term(&self.schema, &silent.run).map_err(unwritable)?;
        let row = session.rows(&statement).await?.into_iter().next();
        session.run(&self.schema.commit(what)).await?;
        let ours = [by.to_string(), silent.term.saturating_add(1).to_string()];
        let is_ours = row.is_some_and(|row| row.into_iter().flatten().eq(ours));
        let remains = match is_ours {
            true => Some(self.remains(&mut session, silent, by, audience).await?),
            false => None,
        };
        session.hand_back();
        Ok(remains)
    }

    /// Read after the run has become ours: its former owner settles nothing
    /// new any more.
    async fn remains(
        &self,
        session: &mut Session,
        silent: &SilentRun,
        by: Uuid,
        audience: Option<&Self>,
    ) -> Result<Remains, WarehouseError> {
        let what = silent.run.as_str();
        // What it was settling as it lost the run is settled by now.
        session
            .run_all(&self.schema.begin(what, Some(Lock::Settle)))
            .await?;
        let statement = version_and_start(&self.schema, &silent.run).map_err(unwritable)?;
        let start = session.rows(&statement).await?.into_iter().next();
        let mut facts = bare_facts(silent, by, Timestamp::UNIX_EPOCH);
        if let Some([Some(version), started_at]) = start.as_deref() {
            facts.campaign_version.clone_from(version);
            let started_at = started_at.as_deref().and_then(instant_of_cell);
            facts.started_at = started_at.unwrap_or(facts.started_at);
        }
        let statement = read_funnel(&self.schema, &facts).map_err(unwritable)?;
        let counts = session.rows(&statement).await?.into_iter().next();
        let counts: Vec<u64> = counts
            .unwrap_or_default()
            .iter()
            .map(|cell| number(cell.as_ref()))
            .collect();
        let funnel = <[u64; 10]>::try_from(counts).map(funnel_of);
        let mut funnel = funnel.unwrap_or_default();
        let table = TableNames::of(&silent.run).run;
        let mut elsewhere = match audience {
            None => None,
            Some(audience) => Some((audience, audience.pool.session().await?)),
        };
        let there = match &mut elsewhere {
            None => self.existing(session, what, &[&table]).await?,
            Some((audience, session)) => audience.existing(session, what, &[&table]).await?,
        };
        let laid_out = !there.is_empty();
        let unsettled = match laid_out {
            true => {
                let members = (&mut facts, &mut funnel);
                self.unsettled(session, elsewhere.as_mut(), silent, members)
                    .await?
            }
            false => Vec::new(),
        };
        session.run(&self.schema.commit(what)).await?;
        if let Some((_, elsewhere)) = elsewhere {
            elsewhere.hand_back();
        }
        Ok(Remains {
            facts,
            funnel,
            laid_out,
            unsettled,
        })
    }

    /// The batches that nothing is known of, and where the others went.
    async fn unsettled(
        &self,
        session: &mut Session,
        elsewhere: Option<&mut (&Self, Session)>,
        silent: &SilentRun,
        (facts, funnel): (&mut RunFacts, &mut Funnel),
    ) -> Result<Vec<(u32, u32)>, WarehouseError> {
        let statement = settled_batches(&self.schema, &silent.run).map_err(unwritable)?;
        let mut settled = HashMap::new();
        for row in session.rows(&statement).await? {
            let [Some(batch), destination, members] = row.as_slice() else {
                continue;
            };
            settled.insert(batch.clone(), number(members.as_ref()));
            let name = destination.as_deref().unwrap_or(UNKNOWN_DESTINATION);
            facts.destination = name.parse().unwrap_or_else(|_| facts.destination.clone());
        }
        let mut unsettled = Vec::new();
        let mut planned = 0;
        let rows = match elsewhere {
            None => session.rows(&batches(&self.schema, &silent.run)).await?,
            Some((audience, session)) => {
                let batches = batches(&audience.schema, &silent.run);
                session.rows(&batches).await?
            }
        };
        for row in rows {
            let [Some(batch), members, last] = row.as_slice() else {
                continue;
            };
            let members = small(number(members.as_ref()))?;
            let place = small(number(Some(batch)))?;
            match place {
                1 => facts.batch_size = small(number(last.as_ref()))?.max(1),
                2 => sized_by_second(facts, small(number(last.as_ref()))?),
                _ => {}
            }
            planned += u64::from(members);
            let known = settled.get(batch).copied().unwrap_or(0);
            let rest = u64::from(members).saturating_sub(known);
            if rest > 0 {
                unsettled.push((place, small(rest)?));
            }
        }
        // Some may have been withheld since the run's row was written.
        funnel.suppressed = (funnel.suppressed + funnel.planned).saturating_sub(planned);
        funnel.planned = planned;
        Ok(unsettled)
    }
}

/// A first batch that is shorter than the second is a canary's, or the end of
/// one.
fn sized_by_second(facts: &mut RunFacts, last: u32) {
    let (first, second) = (facts.batch_size, last.saturating_sub(facts.batch_size));
    if second > first {
        facts.batch_size = second;
        facts.canary = first;
    }
}

fn small(number: u64) -> Result<u32, WarehouseError> {
    u32::try_from(number).map_err(|_| {
        let message = "the table of a run holds more batches than a run can have";
        error(WarehouseErrorClass::Statement, message)
    })
}

/// A row that another program has written, and that is none, is left alone.
fn silent_run(row: Vec<Option<String>>) -> Option<SilentRun> {
    let [
        Some(run),
        Some(campaign),
        channel,
        Some(owner),
        Some(term),
        seconds,
        ..,
    ] = row.as_slice()
    else {
        return None;
    };
    Some(SilentRun {
        run: run.parse().ok()?,
        campaign: campaign.parse().ok()?,
        channel: channel.clone().unwrap_or_default(),
        owner: owner.parse().ok()?,
        term: term.parse().ok()?,
        silent_for: Duration::from_secs(number(seconds.as_ref())),
    })
}
