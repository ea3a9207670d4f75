//! The waiting line: who is let through next where only so many may be.

use jiff::Timestamp;
use std::cmp::Reverse;
use std::time::Duration;

/// What one point of standing is waited for.
const POINT: Duration = Duration::from_mins(1);

/// The most points that waiting brings.
const MOST_POINTS: u64 = 50;

/// Where one belongs in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is under way: it goes on before anything new is begun.
    pub under_way: bool,
    /// The campaign's priority, 0 to 100; higher goes first.
    pub priority: u8,
    /// The instant the run is for; earlier goes first.
    pub fire_time: Timestamp,
}

/// Names one who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Waiting<T> {
    ticket: Ticket,
    standing: Standing,
    since: Duration,
    who: T,
}

/// Those who wait. The next is found by looking at all of them, since their
/// order changes while they wait.
#[derive(Debug)]
pub struct Line<T> {
    waiting: Vec<Waiting<T>>,
    next_ticket: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            next_ticket: 0,
        }
    }
}

impl<T> Line<T> {
    /// Joins the line at `now`, a time since any fixed instant.
    pub fn join(&mut self, standing: Standing, now: Duration, who: T) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push(Waiting {
            ticket,
            standing,
            since: now,
            who,
        });
        ticket
    }

    /// Takes out who goes next: whoever is under way or has waited for all the
    /// points there are, then by priority and points, then by fire time, then
    /// by who came first.
    pub fn next(&mut self, now: Duration) -> Option<T> {
        let places = self.waiting.iter().enumerate();
        let (best, _) = places.max_by_key(|(_, waiting)| waiting.rank(now))?;
        Some(self.waiting.swap_remove(best).who)
    }

    /// Leaves the line. Returns who it was, if they still waited.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let place = self.waiting.iter().position(|at| at.ticket == ticket)?;
        Some(self.waiting.swap_remove(place).who)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<T> Waiting<T> {
    /// The highest goes next.
    fn rank(&self, now: Duration) -> (bool, u64, Reverse<Timestamp>, Reverse<Ticket>) {
        let waited = now.saturating_sub(self.since).as_secs() / POINT.as_secs();
        let points = waited.min(MOST_POINTS);
        (
            self.standing.under_way || points == MOST_POINTS,
            u64::from(self.standing.priority) + points,
            Reverse(self.standing.fire_time),
            Reverse(self.ticket),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn standing(priority: u8, fire_second: i64) -> Standing {
        Standing {
            under_way: false,
            priority,
            fire_time: Timestamp::from_second(fire_second).unwrap(),
        }
    }

    #[test]
    fn priority_goes_first_then_fire_time_then_who_came_first() {
        let mut line = Line::default();
        for (priority, fire_time, who) in [
            (50, 9, "later"),
            (50, 8, "earlier"),
            (50, 9, "last"),
            (90, 9, "urgent"),
        ] {
            line.join(standing(priority, fire_time), Duration::ZERO, who);
        }
        let order: Vec<_> = std::iter::from_fn(|| line.next(Duration::ZERO)).collect();
        assert_eq!(order, ["urgent", "earlier", "later", "last"]);
    }

    #[test]
    fn a_run_under_way_goes_on_before_an_urgent_one_begins() {
        let mut line = Line::default();
        line.join(standing(100, 0), Duration::ZERO, "new");
        let under_way = Standing {
            under_way: true,
            ..standing(0, 5)
        };
        line.join(under_way, Duration::ZERO, "under way");
        assert_eq!(line.next(Duration::ZERO), Some("under way"));
    }

    #[test]
    fn each_minute_waited_is_one_point() {
        for (minutes, first) in [(9, "urgent"), (11, "patient")] {
            let mut line = Line::default();
            line.join(standing(40, 5), Duration::ZERO, "patient");
            line.join(standing(50, 5), MINUTE * minutes, "urgent");
            assert_eq!(line.next(MINUTE * minutes), Some(first));
        }
    }

    #[test]
    fn who_leaves_is_not_let_through() {
        let mut line = Line::default();
        let ticket = line.join(standing(50, 0), Duration::ZERO, 1);
        line.join(standing(50, 0), Duration::ZERO, 2);
        assert_eq!(line.leave(ticket), Some(1));
        assert_eq!(line.leave(ticket), None);
        assert_eq!((line.next(Duration::ZERO), line.len()), (Some(2), 0));
    }

    proptest! {
        /// One is let through each minute, and a fresh run of any priority
        /// joins each minute: whoever came before is through after at most
        /// fifty minutes and one turn for each who stood in the line.
        #[test]
        fn nobody_starves(priorities in prop::collection::vec(0_u8..=100, 1..20), rival in 0_u8..=100) {
            let mut line = Line::default();
            for &priority in &priorities {
                line.join(standing(priority, 0), Duration::ZERO, true);
            }
            let mut old = priorities.len();
            let bound = 51 + u32::try_from(old).unwrap();
            for minute in 0..bound {
                line.join(standing(rival, 1 + i64::from(minute)), MINUTE * minute, false);
                old -= usize::from(line.next(MINUTE * minute) == Some(true));
            }
            prop_assert_eq!(old, 0);
        }
    }
}
