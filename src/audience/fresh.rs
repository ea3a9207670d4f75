//! Whether the data a campaign asks about is recent enough.

use super::{Dialect, Statement};
use crate::id::RunId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A campaign's `fresh_when`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshWhen {
    /// A read-only query for one value: a timestamp, or null for none.
    pub sql: String,
    /// How old it may be, in seconds.
    pub max_age_secs: u64,
    /// For how long, in seconds, it is asked again.
    pub wait_secs: u64,
}

impl FreshWhen {
    /// Whether data whose newest is from then is recent enough at `now`.
    pub fn is_fresh(&self, newest: Option<Timestamp>, now: Timestamp) -> bool {
        let max_age = i64::try_from(self.max_age_secs).unwrap_or(i64::MAX);
        newest
            .is_some_and(|newest| now.duration_since(newest) <= SignedDuration::from_secs(max_age))
    }

    /// Asks. Two rows are enough to see that there is more than one value.
    pub fn statement(&self, run: &RunId, dialect: Dialect) -> Statement {
        let sql = super::reading::without_semicolon(&self.sql, dialect);
        let parts = ["select q.* from (", &sql, ") as q limit 2"];
        Statement::around("fresh", run.as_str(), parts)
    }

    /// One row without a value, which has the columns of the query: no row of
    /// it is read.
    pub fn empty_row(&self, run: &RunId, dialect: Dialect) -> Statement {
        let sql = super::reading::without_semicolon(&self.sql, dialect);
        let parts = [
            "select q.* from (select 1 as cd_one) as o left join (select r.* from (",
            &sql,
            ") as r where 1 = 0) as q on 1 = 1",
        ];
        Statement::around("look", run.as_str(), parts)
    }
}
