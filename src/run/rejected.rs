//! Members that a receiver refused one by one while it took the rest of their
//! batch: found among the batch's rows, kept by their places.

use super::consent::Places;
use super::parcel::Delivery;
use crate::delivery::{Outcome, Rejections, matching_rows};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The most reasons remembered: 512 bytes each.
const MAX_REMEMBERED: usize = 20_000;

/// The receivers' words, by place, until history has them. They are in memory
/// only: after a crash history says no more than that a member was refused.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(Arc<Mutex<BTreeMap<u64, String>>>);

impl Words {
    fn remember(&self, place: u64, reason: String) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !reason.is_empty() && words.len() < MAX_REMEMBERED {
            words.insert(place, reason);
        }
    }

    /// What was said of the member at `place`; forgotten with that.
    pub(super) fn take(&self, place: u64) -> Option<String> {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.remove(&place)
    }
}

/// What it takes to find a delivery's members by the keys in an answer.
pub(super) struct Roll {
    keys: Vec<String>,
    places: Places,
}

impl Roll {
    /// The keys of a delivery's members, which are in the column `key`.
    pub(super) fn of(delivery: &Delivery, key: &str) -> Self {
        let columns = delivery.page.columns();
        let column = columns.iter().position(|c| c.eq_ignore_ascii_case(key));
        let key_of = |row: usize| {
            let mut cells = delivery.page.row(row).cells();
            let cell = column.and_then(|column| cells.nth(column));
            cell.map_or_else(String::new, |(_, text)| text.to_owned())
        };
        Self {
            keys: delivery.rows.clone().map(key_of).collect(),
            places: delivery.places.clone(),
        }
    }

    /// The places of the members that an answer refuses, in order. What it
    /// says of others is counted, and what cannot be read is said so.
    pub(super) fn refused(&self, outcome: &Outcome, words: &Words, run: &str) -> Vec<u64> {
        let list = match outcome {
            Outcome::Answered { rejections, .. } => match rejections {
                Rejections::None => return Vec::new(),
                Rejections::List(list) => list,
                Rejections::Unreadable(why) => {
                    tracing::warn!(
                        run.id = run,
                        "the members refused one by one are not known, and all count as delivered: {why}",
                    );
                    return Vec::new();
                }
            },
            _ => return Vec::new(),
        };
        let (rows, strangers) = matching_rows(list, &self.keys);
        if strangers > 0 {
            tracing::warn!(
                run.id = run,
                "the destination has refused {strangers} members who were not in the batch"
            );
        }
        let mut places = Vec::with_capacity(rows.len());
        for (row, reason) in rows {
            if let Some(place) = self.places.of(row) {
                words.remember(place, reason.to_owned());
                places.push(place);
            }
        }
        places
    }
}
