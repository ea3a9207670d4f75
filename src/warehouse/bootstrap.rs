//! The part of the bootstrap that the daemon's own login may run.

use super::ConnectorOptions;
use super::adapter::{SqlWarehouse, first_column};
use super::errors::error;
use super::pool::Session;
use crate::audience::{Dialect, Statement, identifier};
use crate::history::views::{
    CONTACT_PERFORMANCE, Conversions, HOLDOUT_LIFT, contact_performance, existing_view,
    holdout_lift,
};
use crate::history::{TABLES, Table};
use crate::run::{WarehouseError, WarehouseErrorClass};

/// What became of one thing that the bootstrap makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The schema, table or view.
    pub what: String,
    /// What was done.
    pub change: Change,
}

/// What was done about one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there.
    None,
    /// It was made.
    Created,
    /// It was there with columns missing, which were added.
    ColumnsAdded(usize),
}

/// Makes the schema and the tables that are missing, and the columns that are
/// missing in those that are there. Nothing is ever dropped or changed.
pub async fn apply_bootstrap(options: ConnectorOptions) -> Result<Vec<Applied>, WarehouseError> {
    SqlWarehouse::new(options).apply().await
}

/// Makes the view `holdout_lift` over `conversions`, which the connector's
/// login must be able to read.
pub async fn apply_lift(
    options: ConnectorOptions,
    conversions: &Conversions,
) -> Result<Applied, WarehouseError> {
    let warehouse = SqlWarehouse::new(options);
    let _turn = warehouse.cap_turn.lock().await;
    let mut session = warehouse.pool.session().await?;
    let create = holdout_lift(&warehouse.schema, conversions);
    let applied = warehouse
        .apply_view(&mut session, HOLDOUT_LIFT, &create)
        .await?;
    session.hand_back();
    Ok(applied)
}

impl SqlWarehouse {
    /// See [`apply_bootstrap`].
    pub(super) async fn apply(&self) -> Result<Vec<Applied>, WarehouseError> {
        let _turn = self.cap_turn.lock().await;
        let mut session = self.pool.session().await?;
        let mut applied = Vec::new();
        if self.schema.dialect != Dialect::Sqlite {
            applied.push(self.apply_schema(&mut session).await?);
        }
        let tables = match self.only_audiences {
            true => &[],
            false => TABLES,
        };
        for table in tables {
            applied.push(self.apply_table(&mut session, table).await?);
        }
        if !self.only_audiences {
            let create = contact_performance(&self.schema);
            let view = self.apply_view(&mut session, CONTACT_PERFORMANCE, &create);
            applied.push(view.await?);
        }
        session.hand_back();
        Ok(applied)
    }

    async fn apply_view(
        &self,
        session: &mut Session,
        name: &str,
        create: &Statement,
    ) -> Result<Applied, WarehouseError> {
        let there = first_column(session, &existing_view(&self.schema, name)).await?;
        session.run(create).await?;
        Ok(Applied {
            what: format!("view {name}"),
            change: match there.is_empty() {
                true => Change::Created,
                false => Change::None,
            },
        })
    }

    async fn apply_schema(&self, session: &mut Session) -> Result<Applied, WarehouseError> {
        let name = &self.schema.name;
        let look = format!(
            "select nspname from pg_namespace where nspname = {}",
            self.schema.name_literal()
        );
        let look = Statement::new("bootstrap", "schema", &look);
        let there = first_column(session, &look).await?;
        let mut change = Change::None;
        if there.is_empty() {
            let create = format!("create schema {}", identifier(name));
            let create = Statement::new("bootstrap", "schema", &create);
            session.run(&create).await.map_err(|failed| {
                let message = format!(
                    "the schema `{name}` cannot be made by this login ({}); \
                     let an administrator run what `campaignd bootstrap NAME` prints",
                    failed.message
                );
                error(WarehouseErrorClass::Configuration, message)
            })?;
            change = Change::Created;
        }
        Ok(Applied {
            what: format!("schema {name}"),
            change,
        })
    }

    async fn apply_table(
        &self,
        session: &mut Session,
        table: &Table,
    ) -> Result<Applied, WarehouseError> {
        let look = self.schema.columns_of("tables", table.name);
        let present = first_column(session, &look).await?;
        let change = if present.is_empty() {
            session.run(&table.create(&self.schema)).await?;
            Change::Created
        } else {
            let missing = table.add_missing(&self.schema, &present);
            session.run_all(&missing).await?;
            match missing.len() {
                0 => Change::None,
                added => Change::ColumnsAdded(added),
            }
        };
        if let Some(index) = table.index(&self.schema) {
            session.run(&index).await?;
        }
        Ok(Applied {
            what: format!("table {}", table.name),
            change,
        })
    }
}
