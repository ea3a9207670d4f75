//! Members are erased from what the daemon keeps of them.

use super::ConnectorOptions;
use super::adapter::{SqlWarehouse, first_column};
use super::errors::unwritable;
use super::pool::Session;
use super::staging::number;
use crate::audience::{Lock, Statement};
use crate::history::ErasedKeys;
use crate::history::erase::{
    count_in_history, count_in_table, erase_history, is_of_a_run, load, open_runs, unload,
};
use crate::history::tidy::run_tables;
use crate::run::WarehouseError;

const WHAT: &str = "members";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// Nothing was removed: these runs, by their ids, are open and would write
    /// their members again.
    RunsOpen(Vec<String>),
    /// What was removed, table by table: history, and the runs' tables that
    /// had one of the members.
    Done(Vec<Erased>),
}

/// What was removed from one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// The table's name.
    pub table: String,
    /// The rows in it that were of the members.
    pub rows: u64,
    /// Whether the whole table was dropped, and not only these rows.
    pub dropped: bool,
}

/// Removes the members with `keys` from the connector's contact history, and
/// drops each table of a run that has one of them, since the places in it must
/// not shift. Nothing happens while a run is open. What is cut short is done
/// by doing it again.
pub async fn erase(
    options: ConnectorOptions,
    keys: &ErasedKeys,
) -> Result<Erasure, WarehouseError> {
    match options.apart().cloned() {
        None => SqlWarehouse::new(options).erase_members(keys, None).await,
        Some(apart) => {
            let audience = SqlWarehouse::new(options);
            SqlWarehouse::new(apart.history)
                .erase_members(keys, Some(&audience))
                .await
        }
    }
}

impl SqlWarehouse {
    /// Under the lock under which runs are registered, opened again and taken
    /// over: none begins meanwhile. Runs' tables are in `audience`, if not
    /// here.
    async fn erase_members(
        &self,
        keys: &ErasedKeys,
        audience: Option<&Self>,
    ) -> Result<Erasure, WarehouseError> {
        self.prepare().await?;
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        self.load_keys(&mut session, keys).await?;
        session
            .run_all(&self.schema.begin(WHAT, Some(Lock::Cap)))
            .await?;
        let open = first_column(&mut session, &open_runs(&self.schema)).await?;
        if !open.is_empty() {
            // The session is dropped, and its transaction with it.
            return Ok(Erasure::RunsOpen(open));
        }
        let mut erased = match audience {
            None => self.erase_tables(&mut session).await?,
            Some(audience) => audience.erase_own_tables(keys).await?,
        };
        let rows = number_in(&mut session, &count_in_history(&self.schema)).await?;
        if rows > 0 {
            session.run(&erase_history(&self.schema)).await?;
        }
        erased.insert(
            0,
            Erased {
                table: "contact_history".to_owned(),
                rows,
                dropped: false,
            },
        );
        session.run(&unload()).await?;
        session.run(&self.schema.commit(WHAT)).await?;
        session.hand_back();
        Ok(Erasure::Done(erased))
    }

    async fn load_keys(
        &self,
        session: &mut Session,
        keys: &ErasedKeys,
    ) -> Result<(), WarehouseError> {
        session.run_all(&self.schema.begin(WHAT, None)).await?;
        for statement in load(&self.schema, keys).map_err(unwritable)? {
            session.run(&statement).await?;
        }
        session.run(&self.schema.commit(WHAT)).await
    }

    /// The same where history is elsewhere, in a transaction of its own.
    async fn erase_own_tables(&self, keys: &ErasedKeys) -> Result<Vec<Erased>, WarehouseError> {
        let mut session = self.pool.session().await?;
        self.load_keys(&mut session, keys).await?;
        session.run_all(&self.schema.begin(WHAT, None)).await?;
        let erased = self.erase_tables(&mut session).await?;
        session.run(&unload()).await?;
        session.run(&self.schema.commit(WHAT)).await?;
        session.hand_back();
        Ok(erased)
    }

    /// Drops the tables of runs that have one of the members.
    async fn erase_tables(&self, session: &mut Session) -> Result<Vec<Erased>, WarehouseError> {
        let mut tables = first_column(session, &run_tables(&self.schema)).await?;
        tables.retain(|table| is_of_a_run(table));
        tables.sort_unstable();
        let mut erased = Vec::new();
        for table in tables {
            let rows = number_in(session, &count_in_table(&self.schema, &table)).await?;
            if rows > 0 {
                session.run(&self.schema.drop_table(WHAT, &table)).await?;
                erased.push(Erased {
                    table,
                    rows,
                    dropped: true,
                });
            }
        }
        Ok(erased)
    }
}

async fn number_in(session: &mut Session, statement: &Statement) -> Result<u64, WarehouseError> {
    Ok(number(
        first_column(session, statement).await?.pop().as_ref(),
    ))
}
