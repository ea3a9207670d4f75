//! What is to be run now: the decision the ticker asks for at each wake.

use super::backlog::far_behind;
use super::plan::Schedule;
use super::terms::CatchUp;
use jiff::{SignedDuration, Timestamp};

/// How many fire times one look takes; the next look goes on from there.
///
/// They become rows of one ledger transaction: a week of a schedule that fires
/// every minute, in a few megabytes and about a second.
pub(super) const MAX_FIRE_TIMES: usize = 10_000;

/// How far a schedule has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The hash of the schedule that was looked at.
    pub schedule_hash: &'a str,
    /// Every fire time up to and including this instant has been taken.
    pub seen_until: Timestamp,
}

/// How late a run may begin and still be on time: more than any look takes to
/// come round again.
const ON_TIME: SignedDuration = SignedDuration::from_secs(60);

/// What becomes of a fire time that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// It is run now, if no run of the campaign is open.
    Run(Timestamp),
    /// It is recorded as missed.
    Missed {
        /// Which.
        fire_time: Timestamp,
        /// Why, in our words.
        reason: String,
    },
    /// It is recorded as skipped.
    Skipped {
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
            Self::Run(fire_time)
            | Self::Missed { fire_time, .. }
            | Self::Skipped { fire_time, .. } => *fire_time,
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

/// Which fire times since the last look are run now, and which were missed or
/// are skipped.
///
/// A schedule that is new, or has changed, begins now and makes up for
/// nothing. Where the clock went back behind the last look, nothing is due
/// until it has passed it again. A fire time in a blackout is skipped, and
/// stands for no other. With catch-up `all`, a fire time that is late waits
/// for the campaign's open run (`is_open`), and so do those after it: the
/// cursor stays before it.
pub fn due(schedule: &Schedule, seen: Option<Seen<'_>>, now: Timestamp, is_open: bool) -> Look {
    let until = schedule.due_until(now);
    let since = match seen {
        Some(seen) if seen.schedule_hash == schedule.hash() => seen.seen_until,
        _ => now,
    };
    if since >= until {
        return Look {
            due: Vec::new(),
            seen_until: since,
        };
    }
    match schedule.terms().catch_up {
        CatchUp::All => one_by_one(schedule, (since, until), now, is_open),
        CatchUp::Latest | CatchUp::None => newest(schedule, (since, until), now),
    }
}

/// How far a schedule is seen when what came due is not to be run: while its
/// campaign is disabled.
pub fn passed_over(schedule: &Schedule, seen: Option<Seen<'_>>, now: Timestamp) -> Look {
    let since = seen.map_or(now, |seen| seen.seen_until);
    Look {
        due: Vec::new(),
        seen_until: since.max(schedule.due_until(now)),
    }
}

fn newest(schedule: &Schedule, (since, until): (Timestamp, Timestamp), now: Timestamp) -> Look {
    let mut fire_times = schedule.fire_times(since, until, MAX_FIRE_TIMES + 1);
    let goes_on = fire_times.len() > MAX_FIRE_TIMES;
    fire_times.truncate(MAX_FIRE_TIMES);
    let runnable = |fire_time: &&Timestamp| schedule.blackout(**fire_time).is_none();
    let chosen = match goes_on {
        false => fire_times.iter().rev().find(runnable).copied(),
        // It may be among those of a later look.
        true => schedule.last_outside_blackouts(since, until),
    };
    if goes_on && let Some(look) = far_behind(schedule, (since, until), chosen, now) {
        return look;
    }
    let seen_until = match fire_times.last() {
        Some(last) if goes_on => *last,
        _ => until,
    };
    let fate_of = |fire_time| fate(schedule, fire_time, chosen, now);
    Look {
        due: fire_times.into_iter().map(fate_of).collect(),
        seen_until,
    }
}

/// What becomes of one of several fire times, of which `chosen` is to run.
pub(super) fn fate(
    schedule: &Schedule,
    fire_time: Timestamp,
    chosen: Option<Timestamp>,
    now: Timestamp,
) -> Due {
    if let Some(dates) = schedule.blackout(fire_time) {
        return skipped(fire_time, &dates);
    }
    let late = chosen.and_then(|chosen| too_late(schedule, chosen, now));
    match late {
        Some(reason) => Due::Missed { fire_time, reason },
        None if chosen == Some(fire_time) => Due::Run(fire_time),
        None => Due::Missed {
            fire_time,
            reason: format!(
                "passed while nothing was running; {} is run in its place",
                chosen.unwrap_or(fire_time)
            ),
        },
    }
}

/// Catch-up `all`: takes what is too old, and one run at a time.
fn one_by_one(
    schedule: &Schedule,
    (since, until): (Timestamp, Timestamp),
    now: Timestamp,
    is_open: bool,
) -> Look {
    let too_old = schedule.terms().catch_up_within;
    let too_old = too_old.and_then(|within| until.checked_sub(within).ok());
    if let Some(look) = too_old.and_then(|old| far_behind(schedule, (since, old), None, now)) {
        return look;
    }
    let mut due = Vec::new();
    let mut seen_until = since;
    while due.len() < MAX_FIRE_TIMES {
        let next = schedule.next_after(seen_until);
        let Some(fire_time) = next.filter(|next| *next <= until) else {
            seen_until = until;
            break;
        };
        if let Some(dates) = schedule.blackout(fire_time) {
            due.push(skipped(fire_time, &dates));
        } else if let Some(reason) = too_late(schedule, fire_time, now) {
            due.push(Due::Missed { fire_time, reason });
        } else if is_late(schedule, fire_time, now) && is_open {
            break;
        } else {
            due.push(Due::Run(fire_time));
            seen_until = fire_time;
            break;
        }
        seen_until = fire_time;
    }
    Look { due, seen_until }
}

fn is_late(schedule: &Schedule, fire_time: Timestamp, now: Timestamp) -> bool {
    now.duration_since(schedule.due_at(fire_time)) > ON_TIME
}

/// Why a fire time is not made up for, if it is late.
fn too_late(schedule: &Schedule, fire_time: Timestamp, now: Timestamp) -> Option<String> {
    if !is_late(schedule, fire_time, now) {
        return None;
    }
    let terms = schedule.terms();
    if terms.catch_up == CatchUp::None {
        return Some("passed while nothing was running; catch_up is `none`".to_owned());
    }
    let within = terms.catch_up_within?;
    let late = now.duration_since(schedule.due_at(fire_time));
    let is_over = std::time::Duration::try_from(late).is_ok_and(|late| late > within);
    is_over.then(|| {
        let within = humantime::format_duration(within);
        format!("passed while nothing was running, more than catch_up_within ({within}) ago")
    })
}

pub(super) fn skipped(fire_time: Timestamp, dates: &str) -> Due {
    Due::Skipped {
        fire_time,
        reason: format!("lies in {dates}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::terms::{Blackout, Terms};
    use super::*;
    use std::time::Duration;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hourly() -> Schedule {
        Schedule::compile(&["0 * * * *".to_owned()], "UTC").unwrap()
    }

    #[track_caller]
    fn check(seen_until: Option<&str>, now: &str, expect: &[&str], then_seen_until: &str) {
        look_at(
            Terms::default(),
            seen_until,
            (now, false),
            expect,
            then_seen_until,
        );
    }

    /// Looks at an hourly schedule, and writes what is run as `+time`, what is
    /// missed as `-time` and what is skipped as `/time`.
    #[track_caller]
    fn look_at(
        terms: Terms,
        seen_until: Option<&str>,
        (now, is_open): (&str, bool),
        expect: &[&str],
        then_seen_until: &str,
    ) {
        let (schedule, hash) = (hourly().under(terms), hourly().hash());
        let seen = seen_until.map(|until| Seen {
            schedule_hash: &hash,
            seen_until: at(until),
        });
        let look = due(&schedule, seen, at(now), is_open);
        let found: Vec<String> = look
            .due
            .iter()
            .map(|due| match due {
                Due::Run(fire_time) => format!("+{fire_time}"),
                Due::Missed { fire_time, .. } => format!("-{fire_time}"),
                Due::Skipped { fire_time, .. } => format!("/{fire_time}"),
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
        let look = due(&hourly(), Some(seen), at("2026-11-22T09:30:00Z"), false);
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

    /// Looks again and again, as the ticker does, until all is seen.
    fn looked(schedule: &Schedule, since: &str, now: &str) -> (Vec<Due>, usize) {
        let hash = schedule.hash();
        let (mut seen_until, mut looks, mut all) = (at(since), 0, Vec::new());
        while seen_until < at(now) {
            let seen = Seen {
                schedule_hash: &hash,
                seen_until,
            };
            let look = due(schedule, Some(seen), at(now), false);
            assert!(look.seen_until > seen_until, "it gets on");
            assert!(look.due.len() <= MAX_FIRE_TIMES);
            seen_until = look.seen_until;
            all.extend(look.due);
            looks += 1;
        }
        (all, looks)
    }

    fn minutely() -> Schedule {
        Schedule::compile(&["* * * * *".to_owned()], "UTC").unwrap()
    }

    #[test]
    fn of_more_than_one_look_takes_each_has_a_row_and_the_newest_runs() {
        // 10,080 minutes.
        let (all, looks) = looked(&minutely(), "2026-11-15T09:30:00Z", "2026-11-22T09:30:30Z");
        assert_eq!((all.len(), looks), (10_080, 2));
        let minutes = all.windows(2).all(|pair| {
            let gap = pair[1].fire_time().duration_since(pair[0].fire_time());
            gap == SignedDuration::from_mins(1)
        });
        assert!(minutes, "one each minute");
        let (last, missed) = all.split_last().unwrap();
        assert_eq!(*last, Due::Run(at("2026-11-22T09:30:00Z")));
        let says = "passed while nothing was running; 2026-11-22T09:30:00Z is run in its place";
        let is_so = |due: &Due| matches!(due, Due::Missed { reason, .. } if reason == says);
        assert!(missed.iter().all(is_so));
    }

    #[test]
    fn what_runs_of_several_looks_is_before_a_blackout_that_takes_the_last_of_them() {
        let day = |day| jiff::civil::date(2026, 11, day);
        let blackout = vec![Blackout {
            from: day(16),
            to: day(22),
        }];
        let schedule = minutely().under(Terms {
            blackout,
            ..Terms::default()
        });
        let (all, _) = looked(&schedule, "2026-11-14T09:30:00Z", "2026-11-22T09:30:30Z");
        assert_eq!(all.len(), 8 * 1_440);
        let runs: Vec<_> = all.iter().filter(|d| matches!(d, Due::Run(_))).collect();
        assert_eq!(runs, [&Due::Run(at("2026-11-15T23:59:00Z"))]);
    }

    #[test]
    fn without_catch_up_only_what_is_on_time_runs() {
        let terms = || Terms {
            catch_up: CatchUp::None,
            ..Terms::default()
        };
        let seen = Some("2026-11-22T08:30:00Z");
        let late = "2026-11-22T10:02:00Z";
        let expect = ["-2026-11-22T09:00:00Z", "-2026-11-22T10:00:00Z"];
        look_at(terms(), seen, (late, false), &expect, late);
        let on_time = "2026-11-22T10:00:30Z";
        let expect = ["-2026-11-22T09:00:00Z", "+2026-11-22T10:00:00Z"];
        look_at(terms(), seen, (on_time, false), &expect, on_time);
    }

    #[test]
    fn what_is_older_than_catch_up_within_is_missed() {
        let terms = |catch_up| Terms {
            catch_up,
            catch_up_within: Some(Duration::from_secs(3_600)),
            ..Terms::default()
        };
        let (seen, now) = (Some("2026-11-22T07:30:00Z"), "2026-11-22T09:30:00Z");
        let expect = ["-2026-11-22T08:00:00Z", "+2026-11-22T09:00:00Z"];
        look_at(terms(CatchUp::Latest), seen, (now, false), &expect, now);
        let taken = "2026-11-22T09:00:00Z";
        look_at(terms(CatchUp::All), seen, (now, false), &expect, taken);
    }

    #[test]
    fn catch_up_of_all_takes_one_after_another_and_waits_for_the_open_run() {
        let terms = || Terms {
            catch_up: CatchUp::All,
            ..Terms::default()
        };
        let (seen, now) = (Some("2026-11-22T07:30:00Z"), "2026-11-22T10:00:05Z");
        let first = "2026-11-22T08:00:00Z";
        look_at(
            terms(),
            seen,
            (now, false),
            &["+2026-11-22T08:00:00Z"],
            first,
        );
        look_at(terms(), Some(first), (now, true), &[], first);
        let second = "2026-11-22T09:00:00Z";
        look_at(
            terms(),
            Some(first),
            (now, false),
            &["+2026-11-22T09:00:00Z"],
            second,
        );
        // The newest is on time, and so subject to overlap.
        let third = "2026-11-22T10:00:00Z";
        look_at(
            terms(),
            Some(second),
            (now, true),
            &["+2026-11-22T10:00:00Z"],
            third,
        );
    }

    #[test]
    fn a_fire_time_in_a_blackout_is_skipped_and_stands_for_no_other() {
        let day = jiff::civil::date(2026, 11, 22);
        let terms = Terms {
            blackout: vec![Blackout { from: day, to: day }],
            ..Terms::default()
        };
        let (seen, now) = (Some("2026-11-21T22:30:00Z"), "2026-11-22T01:30:00Z");
        let expect = [
            "+2026-11-21T23:00:00Z",
            "/2026-11-22T00:00:00Z",
            "/2026-11-22T01:00:00Z",
        ];
        look_at(terms, seen, (now, false), &expect, now);
    }

    #[test]
    fn a_spread_fire_time_is_taken_when_it_is_due_and_keeps_its_nominal_time() {
        let terms = || Terms {
            offset: Duration::from_secs(600),
            ..Terms::default()
        };
        let seen = Some("2026-11-22T08:30:00Z");
        look_at(
            terms(),
            seen,
            ("2026-11-22T09:09:59Z", false),
            &[],
            "2026-11-22T08:59:59Z",
        );
        let (now, nominal) = ("2026-11-22T09:10:00Z", "2026-11-22T09:00:00Z");
        look_at(
            terms(),
            seen,
            (now, false),
            &["+2026-11-22T09:00:00Z"],
            nominal,
        );
    }
}
