//! At most so many members a run, and who of them comes first.

use super::columns::Column;
use super::policy::Policy;
use super::{BadText, Dialect};
use serde::{Deserialize, Serialize};

/// One term of `policy.order_by`. Members without a value come last, either
/// way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBy {
    /// A selected column.
    pub column: String,
    /// Whether the greatest comes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub descending: bool,
}

/// A policy that the columns of the query, or the warehouse, cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// A text that no literal can hold.
    #[error(transparent)]
    Text(#[from] BadText),
    /// An order by a column that is not there.
    #[error("`policy.order_by` names `{0}`, which the query does not return; select it")]
    NoColumn(String),
    /// An order by values that have none.
    #[error("`policy.order_by` names `{0}`, whose type has no order; name another column")]
    NoOrder(String),
}

impl Policy {
    /// The terms rows `row` of `columns` are ordered by, most important first.
    /// Spelt without `nulls last`, which Redshift's windows do not know.
    pub(super) fn order_terms(
        &self,
        dialect: Dialect,
        columns: &[Column],
        row: &str,
    ) -> Result<Vec<String>, BadPolicy> {
        let mut terms = Vec::with_capacity(2 * self.order_by.len());
        for order in &self.order_by {
            let exact = columns.iter().find(|c| c.name == order.column);
            let mut folded = columns
                .iter()
                .filter(|c| c.name.eq_ignore_ascii_case(&order.column));
            let column = exact
                .or_else(|| folded.next())
                .ok_or_else(|| BadPolicy::NoColumn(order.column.clone()))?;
            let term = column
                .order_term(dialect, row)
                .ok_or_else(|| BadPolicy::NoOrder(order.column.clone()))?;
            terms.push(format!("case when {term} is null then 1 else 0 end"));
            terms.push(match order.descending {
                true => format!("{term} desc"),
                false => term,
            });
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(column: &str, type_name: &str) -> Result<Vec<String>, BadPolicy> {
        let policy = Policy {
            order_by: vec![OrderBy {
                column: column.to_owned(),
                descending: true,
            }],
            ..Policy::default()
        };
        let columns = [Column {
            name: "Spend".to_owned(),
            type_name: type_name.to_owned(),
        }];
        policy.order_terms(Dialect::Redshift, &columns, "k")
    }

    #[test]
    fn members_without_a_value_come_last_also_in_descending_order() {
        assert_eq!(
            ordered("spend", "20").unwrap(),
            [
                "case when k.\"Spend\" is null then 1 else 0 end",
                "k.\"Spend\" desc"
            ]
        );
    }

    #[test]
    fn an_order_by_what_is_not_there_or_has_none_is_refused() {
        assert_eq!(
            ordered("age", "20"),
            Err(BadPolicy::NoColumn("age".to_owned()))
        );
        let refused = ordered("spend", "4000");
        assert_eq!(refused, Err(BadPolicy::NoOrder("spend".to_owned())));
    }
}
