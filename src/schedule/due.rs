//! What is to be run now: the decision the ticker asks for at each wake.

use super::plan::Schedule;
use jiff::Timestamp;

/// How many fire times one look takes.
///
/// They become rows of one ledger transaction: a week of a schedule that fires
/// every minute, in a few megabytes and well under a second.
const MAX_FIRE_TIMES: usize = 10_000;

/// How far a schedule has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The hash of the schedule that was looked at.
    pub schedule_hash: &'a str,
    /// Every fire time up to and including this instant has been taken.
    pub seen_until: Timestamp,
}

/// What becomes of a fire time that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// It is run now.
    Run(Timestamp),
    /// It is recorded as missed.
    Missed {
        /// Which.
        fire_time: Timestamp,
        /// Why, in our words.
        reason: String,
    },
}

impl Due {
    /// The fire time.
    pub fn fire_time(&self) -> Timestamp {
        match self {
            Self::Run(fire_time) | Self::Missed { fire_time, .. } => *fire_time,
        }
    }
}

/// What one look at a schedule found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "fire times that are not taken are lost when the cursor moves"]
pub struct Look {
    /// The fire times since the last look, in order.
    pub due: Vec<Due>,
    /// Up to where they are taken: the new cursor.
    pub seen_until: Timestamp,
}

/// Which fire times since the last look are run now and which were missed.
///
/// Catch-up is `latest`: the newest runs, those before it are missed. A
/// schedule that is new, or has changed, begins now and makes up for nothing.
/// Where the clock went back behind the last look, nothing is due until it
/// has passed it again.
pub fn due(schedule: &Schedule, seen: Option<Seen<'_>>, now: Timestamp) -> Look {
    let since = match seen {
        Some(seen) if seen.schedule_hash == schedule.hash() => seen.seen_until,
        _ => now,
    };
    if since >= now {
        return Look {
            due: Vec::new(),
            seen_until: since,
        };
    }
    let mut fire_times = schedule.fire_times(since, now, MAX_FIRE_TIMES);
    let newest = fire_times.pop();
    // Where there are more than one look takes, the newest stands for all
    // that follow.
    let beyond = newest
        .filter(|_| fire_times.len() + 1 == MAX_FIRE_TIMES)
        .and_then(|last| schedule.last_until(last, now));
    let mut due: Vec<Due> = match beyond.or(newest) {
        Some(newest) => missed(fire_times, newest),
        None => Vec::new(),
    };
    if let (Some(last), Some(_), Some(Due::Missed { reason, .. })) =
        (newest, beyond, due.last_mut())
    {
        reason.push_str(&format!(", as did every fire time from {last} on"));
    }
    due.extend(beyond.or(newest).map(Due::Run));
    Look {
        due,
        seen_until: now,
    }
}

fn missed(fire_times: Vec<Timestamp>, newest: Timestamp) -> Vec<Due> {
    fire_times
        .into_iter()
        .map(|fire_time| Due::Missed {
            fire_time,
            reason: format!("passed while nothing was running; {newest} is run in its place"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hourly() -> Schedule {
        Schedule::compile(&["0 * * * *".to_owned()], "UTC").unwrap()
    }

    /// Looks at an hourly schedule, and writes what is run as `+time` and what
    /// is missed as `-time`.
    #[track_caller]
    fn check(seen_until: Option<&str>, now: &str, expect: &[&str], then_seen_until: &str) {
        let (schedule, hash) = (hourly(), hourly().hash());
        let seen = seen_until.map(|until| Seen {
            schedule_hash: &hash,
            seen_until: at(until),
        });
        let look = due(&schedule, seen, at(now));
        let found: Vec<String> = look
            .due
            .iter()
            .map(|due| match due {
                Due::Run(fire_time) => format!("+{fire_time}"),
                Due::Missed { fire_time, .. } => format!("-{fire_time}"),
            })
            .collect();
        assert_eq!(found, expect);
        assert_eq!(look.seen_until, at(then_seen_until));
    }

    #[test]
    fn a_fire_time_that_has_come_runs() {
        let now = "2026-11-22T09:00:00.25Z";
        check(
            Some("2026-11-22T08:59:59Z"),
            now,
            &["+2026-11-22T09:00:00Z"],
            now,
        );
        check(
            Some(now),
            "2026-11-22T09:30:00Z",
            &[],
            "2026-11-22T09:30:00Z",
        );
    }

    #[test]
    fn of_several_the_newest_runs_and_the_others_are_missed() {
        check(
            Some("2026-11-22T08:30:00Z"),
            "2026-11-22T11:30:00Z",
            &[
                "-2026-11-22T09:00:00Z",
                "-2026-11-22T10:00:00Z",
                "+2026-11-22T11:00:00Z",
            ],
            "2026-11-22T11:30:00Z",
        );
    }

    #[test]
    fn a_new_schedule_makes_up_for_nothing() {
        check(None, "2026-11-22T09:00:00Z", &[], "2026-11-22T09:00:00Z");
    }

    #[test]
    fn a_changed_schedule_begins_now() {
        let seen = Seen {
            schedule_hash: "another",
            seen_until: at("2026-11-01T00:00:00Z"),
        };
        let look = due(&hourly(), Some(seen), at("2026-11-22T09:30:00Z"));
        assert_eq!(look.due, []);
        assert_eq!(look.seen_until, at("2026-11-22T09:30:00Z"));
    }

    #[test]
    fn nothing_is_due_while_the_clock_is_behind_the_cursor() {
        check(
            Some("2026-11-22T12:00:00Z"),
            "2026-11-22T09:30:00Z",
            &[],
            "2026-11-22T12:00:00Z",
        );
    }

    #[test]
    fn more_than_one_look_takes_collapse_into_the_newest() {
        let schedule = Schedule::compile(&["* * * * *".to_owned()], "UTC").unwrap();
        let hash = schedule.hash();
        let seen = Seen {
            schedule_hash: &hash,
            seen_until: at("2026-10-01T00:00:00Z"),
        };
        let look = due(&schedule, Some(seen), at("2026-11-22T09:30:30Z"));
        assert_eq!(look.due.len(), MAX_FIRE_TIMES);
        assert_eq!(
            look.due.last().unwrap(),
            &Due::Run(at("2026-11-22T09:30:00Z"))
        );
        let Due::Missed { fire_time, reason } = &look.due[MAX_FIRE_TIMES - 2] else {
            panic!("run twice");
        };
        assert_eq!(*fire_time, at("2026-10-07T22:39:00Z"));
        assert!(reason.ends_with("as did every fire time from 2026-10-07T22:40:00Z on"));
    }
}
