//! Batches that are cut in two: where, and how far it is gone on with when
//! the destination refuses everything.

use crate::id::BatchPath;
use std::ops::Range;

/// Members that may be refused one by one however small the run is.
const SINGLED_OUT_AT_LEAST: u64 = 20;

/// Which of a batch's `rows` belong to the part of it: each digit halves what
/// is left, `0` the first half, which has one more where they are odd.
pub fn rows_of_part(rows: usize, part: &str) -> Range<usize> {
    part.bytes().fold(0..rows, |rows, half| {
        let middle = rows.start + rows.len().div_ceil(2);
        match half {
            b'0' => rows.start..middle,
            _ => middle..rows.end,
        }
    })
}

/// The two halves of a batch.
pub fn halves(path: &BatchPath) -> [BatchPath; 2] {
    ["0", "1"].map(|half| BatchPath {
        batch: path.batch,
        part: format!("{}{half}", path.part),
    })
}

/// How far a run's refused batches are looked through for the members that
/// are to blame. Only what this process has sent counts: a person who lets
/// the run go on gives it a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitBudget {
    planned: u64,
    suspicion: Suspicion,
    singled_out: u64,
}

/// Whether the destination may be one that refuses whatever it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    None,
    /// Nothing of what was cut has been accepted yet.
    Of {
        /// The batch that is looked through; none between two of them.
        batch: Option<u32>,
        requests_left: u32,
    },
    Cleared,
}

impl SplitBudget {
    /// The budget of a run of `planned` members.
    pub fn new(planned: u64) -> Self {
        Self {
            planned,
            suspicion: Suspicion::None,
            singled_out: 0,
        }
    }

    /// A batch of more than one member was refused, and is cut. The first of
    /// a run may cost 2·log2(members) + 8 requests before something of it is
    /// accepted.
    pub fn cut(&mut self, path: &BatchPath, members: u32) {
        if self.suspicion == Suspicion::None {
            self.suspicion = Suspicion::Of {
                batch: None,
                requests_left: 2 * members.max(1).ilog2() + 8,
            };
        }
        self.turn_to(path.batch);
    }

    /// The batch that is looked through alone: until something of it has been
    /// accepted, the parts of others wait.
    pub fn suspect(&self) -> Option<u32> {
        match self.suspicion {
            Suspicion::Of { batch, .. } => batch,
            Suspicion::None | Suspicion::Cleared => None,
        }
    }

    /// Nothing of the suspect is left to be sent just now. The next that is
    /// looked through may cost what is left.
    pub fn through(&mut self) {
        if let Suspicion::Of { batch, .. } = &mut self.suspicion {
            *batch = None;
        }
    }

    /// Looks a batch through, where no other is.
    pub fn turn_to(&mut self, other: u32) {
        if let Suspicion::Of { batch, .. } = &mut self.suspicion {
            batch.get_or_insert(other);
        }
    }

    /// Whether a part may be sent; if not, the destination does not take what
    /// it is sent at all. Asked once for each part.
    #[must_use]
    pub fn may_send(&mut self, path: &BatchPath) -> bool {
        if path.part.is_empty() {
            return true;
        }
        self.turn_to(path.batch);
        match &mut self.suspicion {
            Suspicion::Of {
                batch,
                requests_left,
            } if *batch == Some(path.batch) => {
                let may = *requests_left > 0;
                *requests_left = requests_left.saturating_sub(1);
                may
            }
            _ => true,
        }
    }

    /// Something of a batch was accepted.
    pub fn accepted(&mut self, path: &BatchPath) {
        if !path.part.is_empty() {
            self.turn_to(path.batch);
        }
        if self.suspect() == Some(path.batch) {
            self.suspicion = Suspicion::Cleared;
        }
    }

    /// A single member was refused. Returns whether the run goes on: no more
    /// than 1 % of it, and no less than 20 members, may be.
    #[must_use]
    pub fn singled_out(&mut self) -> bool {
        self.singled_out += 1;
        self.singled_out <= self.most_singled_out()
    }

    /// How many members may be refused one by one.
    pub fn most_singled_out(&self) -> u64 {
        (self.planned / 100).max(SINGLED_OUT_AT_LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{MessageId, RunId};
    use proptest::prelude::*;

    fn path(text: &str) -> BatchPath {
        text.parse().unwrap()
    }

    #[test]
    fn parts_halve_what_is_left() {
        for (part, rows) in [
            ("", 0..5),
            ("0", 0..3),
            ("1", 3..5),
            ("01", 2..3),
            ("00", 0..2),
            ("11", 4..5),
        ] {
            assert_eq!(rows_of_part(5, part), rows, "{part}");
        }
        let names = halves(&path("3.0")).map(|half| half.to_string());
        assert_eq!(names, ["3.00", "3.01"]);
    }

    proptest! {
        #[test]
        fn however_often_a_batch_is_cut_every_member_is_in_one_part(
            members in 1usize..600,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut parts = vec![path("7")];
            for cut in cuts {
                let part = parts.remove(cut.index(parts.len()));
                match rows_of_part(members, &part.part).len() {
                    0 | 1 => parts.push(part),
                    _ => parts.extend(halves(&part)),
                }
            }
            let mut rows: Vec<usize> = parts
                .iter()
                .flat_map(|part| rows_of_part(members, &part.part))
                .collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..members).collect::<Vec<_>>());
            for part in &parts {
                prop_assert!(!rows_of_part(members, &part.part).is_empty());
            }
            // Each part has an id of its own, the same whenever it is named.
            let run: RunId = "winback@20261122T140000Z".parse().unwrap();
            let id = |part: &BatchPath| MessageId::of(&run, part, 0);
            let named = parts.iter().map(|part| id(&path(&part.to_string())));
            prop_assert!(named.eq(parts.iter().map(id)));
            let ids: std::collections::HashSet<_> = parts.iter().map(|part| id(part).to_string()).collect();
            prop_assert_eq!(ids.len(), parts.len());
        }

        #[test]
        fn one_bad_member_is_always_found_within_the_budget(
            members in 2u32..10_000,
            bad in any::<prop::sample::Index>(),
        ) {
            let bad = bad.index(members as usize);
            let mut budget = SplitBudget::new(u64::from(members));
            budget.cut(&path("1"), members);
            let mut open = Vec::from(halves(&path("1")));
            while let Some(part) = open.pop() {
                prop_assert!(budget.may_send(&part));
                let rows = rows_of_part(members as usize, &part.part);
                if !rows.contains(&bad) {
                    budget.accepted(&part);
                } else if rows.len() > 1 {
                    open.extend(halves(&part));
                } else {
                    prop_assert!(budget.singled_out());
                }
            }
        }
    }

    #[test]
    fn a_destination_that_refuses_everything_costs_a_bounded_number_of_requests() {
        let mut budget = SplitBudget::new(1_000_000);
        budget.cut(&path("4"), 512);
        // Another batch is not what is suspected.
        budget.cut(&path("5"), 512);
        assert_eq!(budget.suspect(), Some(4));
        assert!((0..100).all(|_| budget.may_send(&path("5.0"))));
        let sent = (0..100).filter(|_| budget.may_send(&path("4.0"))).count();
        assert_eq!(sent, 2 * 9 + 8);
        budget.accepted(&path("4.01"));
        assert_eq!(budget.suspect(), None);
        assert!(budget.may_send(&path("4.1")));
    }

    #[test]
    fn batches_that_are_refused_to_the_last_member_share_the_budget() {
        let mut budget = SplitBudget::new(1_000_000);
        budget.cut(&path("1"), 4);
        assert!((0..6).all(|_| budget.may_send(&path("1.0"))));
        // Others wait until it is through.
        budget.turn_to(2);
        assert_eq!(budget.suspect(), Some(1));
        budget.through();
        assert_eq!(budget.suspect(), None);
        budget.turn_to(2);
        let sent = (0..100).filter(|_| budget.may_send(&path("2.0"))).count();
        assert_eq!(sent, 2 * 2 + 8 - 6);
        // Once something was accepted there is no suspect to turn from.
        budget.accepted(&path("2.1"));
        budget.cut(&path("3"), 4);
        assert_eq!(budget.suspect(), None);
    }

    #[test]
    fn few_members_may_be_singled_out() {
        for (planned, most) in [(10, 20), (1_999, 20), (100_000, 1_000)] {
            let mut budget = SplitBudget::new(planned);
            let singled = (0..planned.max(50))
                .filter(|_| budget.singled_out())
                .count();
            assert_eq!(singled as u64, most, "{planned}");
        }
    }
}
