//! How fit the key columns of campaigns are, by a look at some rows: counts,
//! and no values.

use super::report::Relation;
use crate::audience::identifier;
use crate::history::RunFacts;
use serde::Serialize;

/// The most rows of a relation that are looked at.
pub const MAX_SAMPLED: u32 = 10_000;

/// What some rows of a relation say of a column that campaigns name as their
/// key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeySample {
    /// The column.
    pub column: String,
    /// Rows looked at, at most [`MAX_SAMPLED`].
    pub rows: u64,
    /// Those without a key.
    pub nulls: u64,
    /// Those whose key an earlier row has.
    pub duplicates: u64,
}

/// The question of the column `key` of `relation`.
pub(super) fn question(schema: &str, table: &str, key: &str) -> String {
    let key = identifier(key);
    let relation = match schema.is_empty() {
        true => identifier(table),
        false => format!("{}.{}", identifier(schema), identifier(table)),
    };
    format!(
        "select count(*), count({key}), count(distinct {key}) \
         from (select {key} from {relation} limit {MAX_SAMPLED}) as sample"
    )
}

/// What its answer says; none where it is no answer.
pub(super) fn answer(column: &str, row: &[Option<String>]) -> Option<KeySample> {
    let number = |at: usize| row.get(at)?.as_deref()?.parse::<u64>().ok();
    let (rows, with_key, different) = (number(0)?, number(1)?, number(2)?);
    Some(KeySample {
        column: column.to_owned(),
        rows,
        nulls: rows.saturating_sub(with_key),
        duplicates: with_key.saturating_sub(different),
    })
}

/// The columns of `relation` that `campaigns` name as keys, as they are there.
pub(super) fn keys_of(relation: &Relation, campaigns: &[RunFacts]) -> Vec<String> {
    let names = relation.columns.iter().map(|column| &column.name);
    let is_key = |name: &&String| {
        let mut keys = campaigns.iter().map(|campaign| &campaign.audience.key);
        keys.any(|key| key.eq_ignore_ascii_case(name))
    };
    names.filter(is_key).cloned().collect()
}
