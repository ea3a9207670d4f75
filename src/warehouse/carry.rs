//! Keys of members on their way from the warehouse that has the runs' tables
//! to the one that has history: through memory, a few thousand at a time.

use super::adapter::{SqlWarehouse, first_column};
use super::errors::{error, unwritable};
use super::pool::Session;
use super::staging::number;
use crate::audience::{Schema, Statement, TableNames};
use crate::history::adoption::{batches, settled_batches};
use crate::history::carried::{
    CarriedMember, carried, create, drop_carried, insert, keys, places_of_batches, together,
};
use crate::history::register::run_status;
use crate::history::{Closing, RunFacts};
use crate::id::RunId;
use crate::run::{WarehouseError, WarehouseErrorClass};
use std::collections::HashMap;

/// A session with history in whose temporary table members are.
pub(super) struct Carried {
    session: Session,
    /// The runs whose members are in it.
    runs: Vec<RunId>,
    /// Whether there is such a table: not where nobody is to be carried.
    has_table: bool,
}

/// Where the members of runs are, seen from history.
pub(super) enum Source {
    /// In the runs' own tables.
    Here,
    /// In the session's temporary table.
    Carried {
        /// The runs whose members are in it.
        runs: Vec<RunId>,
        /// Whether there is such a table.
        has_table: bool,
    },
}

impl Source {
    /// Whether members of `run` were carried.
    pub(super) fn has(&self, run: &RunId) -> bool {
        matches!(self, Self::Carried { runs, .. } if runs.contains(run))
    }

    /// What statements name as the members of `run`.
    pub(super) fn members(&self, schema: &Schema, run: &RunId) -> Result<String, WarehouseError> {
        match self {
            Self::Here => Ok(schema.table(&TableNames::of(run).run)),
            Self::Carried { .. } if self.has(run) => carried(schema, run).map_err(unwritable),
            Self::Carried { .. } => {
                let message = format!(
                    "the frozen members of {run} are not there any more; somebody dropped the table"
                );
                Err(error(WarehouseErrorClass::Statement, message))
            }
        }
    }

    /// What is done at the end of the transaction.
    pub(super) fn end(&self) -> Vec<Statement> {
        match self {
            Self::Carried {
                has_table: true, ..
            } => vec![drop_carried()],
            Self::Here | Self::Carried { .. } => Vec::new(),
        }
    }
}

impl SqlWarehouse {
    /// A session, and where it finds members.
    pub(super) async fn source(
        &self,
        carried: Option<Carried>,
    ) -> Result<(Session, Source), WarehouseError> {
        Ok(match carried {
            None => (self.pool.session().await?, Source::Here),
            Some(Carried {
                session,
                runs,
                has_table,
            }) => (session, Source::Carried { runs, has_table }),
        })
    }

    /// Carries members of this warehouse's run tables to `history`: of each
    /// run those at the places given. No lock is held meanwhile, and what is
    /// carried is gone with the session. A run whose table is not there any
    /// more is left out.
    pub(super) async fn carry(
        &self,
        history: &Self,
        wanted: &[(&RunFacts, Vec<(u64, u64)>)],
    ) -> Result<Carried, WarehouseError> {
        if wanted.iter().all(|(_, pieces)| pieces.is_empty()) {
            return Ok(Carried {
                session: history.pool.session().await?,
                runs: Vec::new(),
                has_table: false,
            });
        }
        let what = "members";
        let tables: Vec<String> = wanted
            .iter()
            .map(|(facts, _)| TableNames::of(&facts.run).run)
            .collect();
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let mut from = self.pool.session().await?;
        let there = self.existing(&mut from, what, &names).await?;
        let _turn = history.writer_turn().await;
        let mut to = history.pool.session().await?;
        to.run_all(&history.schema.begin(what, None)).await?;
        to.run(&create()).await?;
        let mut runs = Vec::new();
        for ((facts, pieces), table) in wanted.iter().zip(&tables) {
            if !there.contains(table) {
                continue;
            }
            for group in together(pieces) {
                let members = self.members_at(&mut from, &facts.run, group).await?;
                if !members.is_empty() {
                    let rows = insert(&history.schema, &facts.run, &members);
                    to.run(&rows.map_err(unwritable)?).await?;
                }
            }
            runs.push(facts.run.clone());
        }
        to.run(&history.schema.commit(what)).await?;
        from.hand_back();
        Ok(Carried {
            session: to,
            runs,
            has_table: true,
        })
    }

    /// The members at the places of `group`, which are close together.
    async fn members_at(
        &self,
        session: &mut Session,
        run: &RunId,
        group: &[(u64, u64)],
    ) -> Result<Vec<CarriedMember>, WarehouseError> {
        let (Some((first, _)), Some((_, last))) = (group.first(), group.last()) else {
            return Ok(Vec::new());
        };
        let rows = session
            .rows(&keys(&self.schema, run, *first, *last))
            .await?;
        let member = |row: Vec<Option<String>>| {
            let mut cells = row.into_iter();
            let key = cells.next().flatten()?;
            let place = number(cells.next().flatten().as_ref());
            let batch = number(cells.next().flatten().as_ref());
            let is_wanted = group.iter().any(|(a, b)| (*a..=*b).contains(&place));
            is_wanted.then_some(CarriedMember { key, place, batch })
        };
        Ok(rows.into_iter().filter_map(member).collect())
    }

    /// Carries to `history` every member of a run's table whose batch is not
    /// wholly in `deliveries` there.
    pub(super) async fn carry_rest(
        &self,
        history: &Self,
        facts: &RunFacts,
    ) -> Result<Carried, WarehouseError> {
        let what = facts.run.as_str();
        let table = TableNames::of(&facts.run).run;
        let mut session = self.pool.session().await?;
        if self
            .existing(&mut session, what, &[&table])
            .await?
            .is_empty()
        {
            session.hand_back();
            return self.carry(history, &[]).await;
        }
        let all = session.rows(&batches(&self.schema, &facts.run)).await?;
        session.hand_back();
        let mut session = history.pool.session().await?;
        let statement = settled_batches(&history.schema, &facts.run).map_err(unwritable)?;
        let mut settled = HashMap::new();
        for row in session.rows(&statement).await? {
            if let [Some(batch), _, members] = row.as_slice() {
                settled.insert(batch.clone(), number(members.as_ref()));
            }
        }
        session.hand_back();
        let rest = all.into_iter().filter_map(|row| match row.as_slice() {
            [Some(batch), members, _]
                if number(members.as_ref()) > settled.get(batch).copied().unwrap_or(0) =>
            {
                batch.parse().ok()
            }
            _ => None,
        });
        let rest: Vec<u32> = rest.collect();
        let pieces = places_of_batches(facts, &rest);
        self.carry(history, &[(facts, pieces)]).await
    }

    /// Whether `runs` has the run as ended the way `closing` says, not as
    /// somebody else has ended it.
    pub(super) async fn ended_as(&self, closing: &Closing) -> Result<bool, WarehouseError> {
        let statement = run_status(&self.schema, &closing.facts).map_err(unwritable)?;
        let mut session = self.pool.session().await?;
        let status = first_column(&mut session, &statement).await?.pop();
        session.hand_back();
        Ok(status.as_deref() == Some(closing.status.as_str()))
    }

    /// Whether there is a schema of ours.
    pub(super) async fn look_at_schema(&self) -> Result<(), WarehouseError> {
        let look = format!(
            "select nspname from pg_namespace where nspname = {}",
            self.schema.name_literal()
        );
        let look = Statement::new("look", "schema", &look);
        let mut session = self.pool.session().await?;
        let there = first_column(&mut session, &look).await?;
        session.hand_back();
        match there.is_empty() {
            false => Ok(()),
            true => {
                let message = format!(
                    "the schema `{}` is not there; let an administrator run what \
                     `campaignd bootstrap NAME` prints",
                    self.schema.name
                );
                Err(error(WarehouseErrorClass::Configuration, message))
            }
        }
    }
}
