//! What the ledger knows of a run's batches when it is taken up.

use super::parcel::Stands;
use super::records::BatchRecord;
use super::state::BatchState;
use crate::delivery::halves;
use crate::id::BatchPath;
use std::collections::BTreeMap;

/// Batches and parts of batches, by number and part.
#[derive(Debug, Default)]
pub(super) struct Known {
    batches: BTreeMap<u32, BTreeMap<String, BatchRecord>>,
}

impl Known {
    pub(super) fn new(records: Vec<BatchRecord>) -> Self {
        let mut batches: BTreeMap<u32, BTreeMap<String, BatchRecord>> = BTreeMap::new();
        for record in records {
            let parts = batches.entry(record.path.batch).or_default();
            parts.insert(record.path.part.clone(), record);
        }
        Self { batches }
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &BatchRecord> {
        self.batches.values().flat_map(BTreeMap::values)
    }

    /// The batches from `from` on of which anything was attempted.
    pub(super) fn attempted(&self, from: u32) -> Vec<u32> {
        self.batches
            .range(from..)
            .map(|(&batch, _)| batch)
            .collect()
    }

    /// Whether nothing of the batch is left to be sent.
    pub(super) fn has_ended(&self, batch: u32) -> bool {
        self.batches.contains_key(&batch) && self.open(batch).is_empty()
    }

    /// What of the batch has not ended, in order, with what is known of it.
    pub(super) fn open(&self, batch: u32) -> Vec<(BatchPath, Stands)> {
        let none = BTreeMap::new();
        let parts = self.batches.get(&batch).unwrap_or(&none);
        let mut open = Vec::new();
        let mut ahead = vec![BatchPath::whole(batch)];
        while let Some(path) = ahead.pop() {
            let record = parts.get(&path.part);
            // One that was too large was cut without being sent: only its
            // parts are known.
            let was_cut = match record {
                Some(record) => record.state == BatchState::Split,
                None => parts.keys().any(|part| part.starts_with(&path.part)),
            };
            if was_cut {
                let [first, second] = halves(&path);
                ahead.extend([second, first]);
            } else if !record.is_some_and(|record| record.state.has_ended()) {
                open.push((path, record.cloned().map_or(Stands::New, Stands::Known)));
            }
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use std::time::Duration;

    fn record(path: &str, state: BatchState) -> BatchRecord {
        BatchRecord {
            path: path.parse().unwrap(),
            generation: 0,
            state,
            status: None,
            attempts: 1,
            members: 4,
            body_hash: [0; 32],
            first_sending_at: Timestamp::UNIX_EPOCH,
            next_at: None,
            ended_at: None,
            excused: Duration::ZERO,
            was_ambiguous: false,
            http_status: None,
            error: None,
            settled: false,
            places: None,
            refused: Vec::new(),
        }
    }

    #[track_caller]
    fn check(records: &[(&str, BatchState)], expect: &[&str]) {
        let records = records.iter().map(|&(path, state)| record(path, state));
        let known = Known::new(records.collect());
        let open = known.open(3);
        let paths: Vec<String> = open.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, expect);
        assert_eq!(known.has_ended(3), expect.is_empty());
    }

    #[test]
    fn what_is_open_of_a_batch_is_found_however_often_it_was_cut() {
        use BatchState::{Accepted, Refused, Split, Waiting};
        check(&[], &["3"]);
        check(&[("4", Accepted)], &["3"]);
        check(&[("3", Waiting)], &["3"]);
        check(&[("3", Accepted)], &[]);
        check(&[("3", Split)], &["3.0", "3.1"]);
        let cut_twice = [
            ("3", Split),
            ("3.0", Split),
            ("3.00", Accepted),
            ("3.1", Waiting),
        ];
        check(&cut_twice, &["3.01", "3.1"]);
        // Cut before it was sent.
        check(&[("3.00", Accepted)], &["3.01", "3.1"]);
        let all = [("3.00", Accepted), ("3.01", Refused), ("3.1", Accepted)];
        check(&all, &[]);
    }
}
