//! How many statements at a time a warehouse takes well. Told the time, never
//! asks: every instant is a time since the same fixed one.

use super::ports::{WarehouseError, WarehouseErrorClass};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long without strain gives one statement back.
pub(super) const RECOVERY: Duration = Duration::from_mins(1);

/// The weight of the newest statement in the mean time.
const ALPHA: f64 = 0.4;

/// How many times its mean a statement may take.
const SLOW: f64 = 2.0;

/// What a statement may take over its mean in any case: short ones vary.
const SLACK: f64 = 1.0;

/// Statements whose times can be compared with each other: those that read
/// members, by the order of magnitude of their number. Those that freeze an
/// audience cannot: each campaign's takes its own time. Nor can those that
/// take a lock: theirs is the time of whoever has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timed(u32);

impl Timed {
    /// A page of so many members.
    pub(super) fn page(members: u64) -> Self {
        Self(members.max(1).ilog2() / 2)
    }
}

/// What is new of a limit, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It was halved.
    Halved {
        /// What it was before.
        from: u32,
        /// What it is.
        to: u32,
    },
    /// It is whole again.
    Whole(u32),
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Well, or in an error that says nothing of strain.
    Well(Option<Timed>),
    /// The warehouse had no connection or slot for it, or cut it off.
    Refused,
}

/// What a statement's error, if it had one, says of strain.
pub(super) fn how_it_ended(error: Option<&WarehouseError>, timed: Option<Timed>) -> Ended {
    use WarehouseErrorClass as C;
    match error.map(|error| error.class) {
        Some(C::Busy | C::Cancelled) => Ended::Refused,
        Some(C::Lost | C::Conflict | C::Configuration | C::Statement) => Ended::Well(None),
        None => Ended::Well(timed),
    }
}

/// A limit that is halved under strain, and comes back by one each minute
/// without.
#[derive(Debug)]
pub(super) struct Strain {
    ceiling: u32,
    limit: u32,
    /// The limit that people were told of.
    told: u32,
    /// When the limit was last halved or found to have recovered by one.
    changed_at: Duration,
    /// When the limit was last halved: what was begun before says nothing new.
    halved_at: Option<Duration>,
    /// Mean times in seconds.
    means: BTreeMap<Timed, f64>,
}

impl Strain {
    /// A limit of `ceiling`, at least 1, of a warehouse nothing is known of.
    pub(super) fn new(ceiling: u32) -> Self {
        let ceiling = ceiling.max(1);
        Self {
            ceiling,
            limit: ceiling,
            told: ceiling,
            changed_at: Duration::ZERO,
            halved_at: None,
            means: BTreeMap::new(),
        }
    }

    /// Statements at a time, at `now`.
    pub(super) fn get(&mut self, now: Duration) -> u32 {
        while self.limit < self.ceiling && self.changed_at + RECOVERY <= now {
            self.limit += 1;
            self.changed_at += RECOVERY;
        }
        self.limit
    }

    /// When the limit grows by one, if it is not whole.
    pub(super) fn recovers_at(&self) -> Option<Duration> {
        (self.limit < self.ceiling).then(|| self.changed_at + RECOVERY)
    }

    /// What people have not been told yet; each step back is not worth it.
    pub(super) fn news(&mut self, now: Duration) -> Option<News> {
        let (from, to) = (self.told, self.get(now));
        let news = match to {
            _ if to < from => News::Halved { from, to },
            _ if to > from && to == self.ceiling => News::Whole(to),
            _ => return None,
        };
        self.told = to;
        Some(news)
    }

    /// Counts a statement that was begun at `begun` and has ended at `now`.
    pub(super) fn ended(&mut self, begun: Duration, now: Duration, ended: Ended) {
        let is_strain = match ended {
            Ended::Refused => true,
            Ended::Well(None) => false,
            Ended::Well(Some(kind)) => self.is_slow(kind, now.saturating_sub(begun)),
        };
        if !is_strain {
            return;
        }
        self.get(now);
        self.changed_at = now;
        // One for all that ran side by side.
        if self.halved_at.is_none_or(|at| begun >= at) {
            self.limit = (self.limit / 2).max(1);
            self.halved_at = Some(now);
        }
    }

    fn is_slow(&mut self, kind: Timed, took: Duration) -> bool {
        let took = took.as_secs_f64();
        let mean = self.means.entry(kind).or_insert(took);
        let is_slow = took > *mean * SLOW && took > *mean + SLACK;
        *mean += ALPHA * (took - *mean);
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_refusal_halves_the_limit_down_to_one() {
        let mut strain = Strain::new(6);
        for (second, limit) in [(1, 3), (2, 1), (3, 1)] {
            strain.ended(at(second), at(second), Ended::Refused);
            assert_eq!(strain.get(at(second)), limit);
        }
    }

    #[test]
    fn statements_refused_side_by_side_halve_it_once() {
        let mut strain = Strain::new(8);
        for _ in 0..8 {
            strain.ended(at(1), at(5), Ended::Refused);
        }
        assert_eq!(strain.get(at(5)), 4);
    }

    #[test]
    fn each_minute_without_strain_gives_one_back() {
        let mut strain = Strain::new(6);
        strain.ended(at(0), at(10), Ended::Refused);
        assert_eq!(strain.recovers_at(), Some(at(70)));
        for (second, limit) in [(69, 3), (70, 4), (130, 5), (190, 6), (900, 6)] {
            assert_eq!(strain.get(at(second)), limit, "at {second}");
        }
        assert_eq!(strain.recovers_at(), None);
    }

    #[test]
    fn people_are_told_of_each_halving_and_of_its_end() {
        let mut strain = Strain::new(6);
        assert_eq!(strain.news(at(1)), None);
        for (second, from, to) in [(10, 6, 3), (20, 3, 1)] {
            strain.ended(at(second), at(second), Ended::Refused);
            assert_eq!(strain.news(at(second)), Some(News::Halved { from, to }));
        }
        strain.ended(at(30), at(30), Ended::Refused);
        assert_eq!(strain.news(at(30)), None, "it cannot come down further");
        assert_eq!(strain.news(at(200)), None);
        assert_eq!(strain.news(at(400)), Some(News::Whole(6)));
        assert_eq!(strain.news(at(500)), None);
    }

    #[test]
    fn a_page_that_takes_over_twice_as_long_as_usual_halves_it() {
        let mut strain = Strain::new(6);
        let page = Ended::Well(Some(Timed::page(50_000)));
        for second in [10, 20, 30] {
            strain.ended(at(second), at(second + 3), page);
        }
        strain.ended(at(40), at(46), page);
        assert_eq!(strain.get(at(46)), 6, "twice is not over twice");
        strain.ended(at(50), at(62), page);
        assert_eq!(strain.get(at(62)), 3);
    }

    #[test]
    fn short_statements_may_vary_and_sizes_are_not_compared() {
        let mut strain = Strain::new(6);
        let milli = Duration::from_millis;
        strain.ended(milli(0), milli(2), Ended::Well(Some(Timed::page(7))));
        strain.ended(milli(10), milli(900), Ended::Well(Some(Timed::page(7))));
        strain.ended(at(1), at(2), Ended::Well(Some(Timed::page(1_000))));
        strain.ended(at(3), at(9), Ended::Well(Some(Timed::page(50_000))));
        strain.ended(at(9), at(900), Ended::Well(None));
        assert_eq!(strain.get(at(900)), 6);
    }

    proptest! {
        #[test]
        fn the_limit_stays_between_one_and_its_ceiling(
            ceiling in 0_u32..50, events in prop::collection::vec((0_u64..300, any::<bool>()), 0..60)
        ) {
            let mut strain = Strain::new(ceiling);
            let mut now = 0;
            for (wait, refused) in events {
                now += wait;
                let ended = if refused { Ended::Refused } else { Ended::Well(Some(Timed::page(9))) };
                strain.ended(at(now.saturating_sub(wait)), at(now), ended);
                prop_assert!((1..=ceiling.max(1)).contains(&strain.get(at(now))));
            }
        }
    }
}
