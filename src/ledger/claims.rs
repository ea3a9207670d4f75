//! What claims of several campaigns come to, whichever database keeps them.

use super::command::Written;
use super::trouble::conflict;
use crate::id::{RunId, Trigger};
use crate::run::{Claim, NewRun};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What a statement has written: the names of campaigns, or the ids of runs.
pub(super) type Names = BTreeSet<String>;

/// A run to be written.
pub(super) struct Row<'a> {
    pub(super) run: &'a NewRun,
    pub(super) id: &'a RunId,
    /// None where it is not a manual one.
    pub(super) number: Option<u32>,
    pub(super) at: Timestamp,
}

impl Row<'_> {
    pub(super) fn trigger(&self) -> Trigger {
        match self.number {
            Some(_) => Trigger::Manual,
            None => self.run.trigger,
        }
    }
}

/// The runs of the claims whose cursors were `moved`, in their order.
pub(super) fn rows<'a>(claims: &'a [Claim], moved: &Names) -> Vec<Row<'a>> {
    let is_moved = |claim: &&Claim| moved.contains(claim.campaign.as_str());
    let rows_of = |claim: &'a Claim| {
        claim.runs.iter().map(|run| Row {
            run,
            id: &run.run,
            number: None,
            at: claim.at,
        })
    };
    claims.iter().filter(is_moved).flat_map(rows_of).collect()
}

/// The versions and specifications of the runs that were `written`, each once.
pub(super) fn specs<'a>(rows: &[Row<'a>], written: &Names) -> Vec<(&'a str, &'a str)> {
    let is_written = |row: &&Row<'_>| written.contains(row.id.as_str());
    let specs = rows.iter().filter(is_written).map(|row| row.run);
    let specs: BTreeMap<_, _> = specs
        .map(|run| (run.campaign_version.as_str(), &*run.spec))
        .collect();
    specs.into_iter().collect()
}

/// An answer for each claim.
pub(super) fn answers(claims: &[Claim], moved: &Names, written: &Names) -> Written {
    let answers = claims.iter().map(|claim| {
        if !moved.contains(claim.campaign.as_str()) {
            return Err(conflict(format!(
                "the cursor of campaign {}",
                claim.campaign
            )));
        }
        let ids = claim.runs.iter().map(|run| run.run.clone());
        Ok(ids.filter(|id| written.contains(id.as_str())).collect())
    });
    Written {
        claims: answers.collect(),
        ..Written::default()
    }
}
