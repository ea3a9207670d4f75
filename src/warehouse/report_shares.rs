//! What data shares bring into a Redshift database, as far as the login may
//! see it.

use super::pool::Session;
use super::report_ask::{cell, first, visible_rows};
use super::report_sql as ask;
use crate::run::WarehouseError;
use serde::Serialize;

/// The most relations of data shares that are listed.
pub const MAX_SHARED: usize = 200;

/// What comes from other warehouses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DataShares {
    /// The databases that were made from data shares.
    pub databases: Vec<String>,
    /// Their relations, at most [`MAX_SHARED`].
    pub relations: Vec<SharedRelation>,
    /// Whether there is more of it.
    pub relations_left_out: bool,
}

/// A relation of a data share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedRelation {
    /// The data share.
    pub share: String,
    /// With its schema.
    pub name: String,
    /// `table`, `view`, `late binding view` and the like, in Redshift's words.
    pub kind: String,
}

impl DataShares {
    /// What the login of `session` sees of them.
    pub(super) async fn of(session: &mut Session) -> Result<Self, WarehouseError> {
        let databases = visible_rows(session, ask::SHARED_DATABASES).await?;
        let databases = databases.unwrap_or_default().into_iter();
        let question = ask::shared_objects(MAX_SHARED + 1);
        let objects = visible_rows(session, &question).await?;
        let objects = objects.unwrap_or_default();
        let relations_left_out = objects.len() > MAX_SHARED;
        let relation = |row: Vec<Option<String>>| SharedRelation {
            share: cell(&row, 0),
            name: cell(&row, 1),
            kind: cell(&row, 2),
        };
        let relations = objects.into_iter().take(MAX_SHARED).map(relation);
        Ok(Self {
            databases: databases.filter_map(first).collect(),
            relations: relations.collect(),
            relations_left_out,
        })
    }
}
