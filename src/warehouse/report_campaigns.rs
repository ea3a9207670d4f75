//! What campaigns use of a connector, and what of it is not there.

use super::ConnectorOptions;
use super::preview::{Blamed, look_at_campaign};
use super::report::Relation;
use crate::audience::{Dialect, Uses, is_named};
use crate::history::RunFacts;
use crate::run::WarehouseError;
use serde::Serialize;

/// A campaign that reads a relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsedBy {
    /// The campaign.
    pub campaign: String,
    /// The columns of the relation that it names, in their order.
    pub columns: Vec<String>,
}

/// What each of `campaigns` names.
pub(super) fn uses(campaigns: &[RunFacts], dialect: Dialect) -> Vec<(&RunFacts, Uses)> {
    let uses = campaigns.iter();
    uses.map(|campaign| (campaign, Uses::of(&campaign.audience.sql, dialect)))
        .collect()
}

/// Which campaigns read `relation`, whose schema and name these are: in their
/// query, or as a list of the suppressed.
pub(super) fn used_by(
    relation: &Relation,
    (schema, name): (&str, &str),
    uses: &[(&RunFacts, Uses)],
) -> Vec<UsedBy> {
    let used = uses.iter().filter_map(|(campaign, uses)| {
        let lists = campaign.suppress.iter().map(String::as_str);
        let is_list = is_named(lists, schema, name);
        let is_read = uses.reads(schema, name);
        let key = &campaign.audience.key;
        let is_used = |column: &str| {
            (is_read && uses.names(column)) || (is_list && column.eq_ignore_ascii_case(key))
        };
        let columns = relation.columns.iter().map(|column| &column.name);
        (is_read || is_list).then(|| UsedBy {
            campaign: campaign.campaign.to_string(),
            columns: columns.filter(|name| is_used(name)).cloned().collect(),
        })
    });
    used.collect()
}

/// What the warehouse has against each of `campaigns`: a relation or a column
/// that is not there, a key that the query does not return.
pub(super) async fn missing(options: &ConnectorOptions, campaigns: &[RunFacts]) -> Vec<String> {
    let mut findings = Vec::new();
    for campaign in campaigns {
        let name = &campaign.campaign;
        match look_at_campaign(options.clone(), campaign, None).await {
            Ok(looked) => {
                let problems = looked.problems.iter();
                findings.extend(problems.filter_map(|(blamed, problem)| {
                    finding(*blamed, problem).map(|what| format!("the campaign `{name}`: {what}"))
                }));
            }
            Err(failed) => findings.push(format!(
                "the campaign `{name}` could not be looked at: {}",
                failed.message
            )),
        }
    }
    findings
}

/// What stands in the way of its policy is looked at as our own tables are.
fn finding(blamed: Blamed, problem: &WarehouseError) -> Option<String> {
    let what = &problem.message;
    Some(match blamed {
        Blamed::Query => {
            format!("{what}; share what its `audience.sql` names, or correct it there")
        }
        Blamed::Key => format!("{what}; select it in `audience.sql`, or correct `audience.key`"),
        Blamed::Suppress => format!("{what}; share it with the key column"),
        _ => return None,
    })
}
