//! A schedule that was edited or switched off: where what its file says now
//! begins to count, and what was there before leaves behind.

use super::due::{Due, MAX_FIRE_TIMES, skipped};
use super::plan::Schedule;
use jiff::Timestamp;

/// From when on what a campaign's file says now counts: its time of change,
/// not before what was looked at already and not after `now`.
pub fn in_force_from(changed_at: Timestamp, seen_until: Timestamp, now: Timestamp) -> Timestamp {
    changed_at.max(seen_until).min(now)
}

/// How a schedule ceased to be in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceased {
    /// Another one took its place.
    Edited,
    /// Its campaign was disabled.
    Disabled,
}

impl Ceased {
    fn reason(self) -> &'static str {
        match self {
            Self::Edited => "passed while nothing was running; its schedule has changed since",
            Self::Disabled => "passed while nothing was running; its campaign is disabled since",
        }
    }
}

/// The fire times of a schedule that was in force until `until`, and `ceased`
/// then, which nothing took, in order: missed, or skipped where they lie in
/// its blackout.
///
/// They are at most 10,000; the last one then speaks for those after it.
pub fn left_behind(
    replaced: &Schedule,
    seen_until: Timestamp,
    until: Timestamp,
    ceased: Ceased,
) -> Vec<Due> {
    if seen_until >= until {
        return Vec::new();
    }
    let fire_times = replaced.fire_times(seen_until, until, MAX_FIRE_TIMES);
    let last = fire_times.last().copied();
    let more = last
        .filter(|_| fire_times.len() == MAX_FIRE_TIMES)
        .and_then(|last| replaced.last_until(last, until));
    let mut left: Vec<Due> = fire_times
        .into_iter()
        .map(|fire_time| match replaced.blackout(fire_time) {
            Some(dates) => skipped(fire_time, &dates),
            None => Due::Missed {
                fire_time,
                reason: ceased.reason().to_owned(),
            },
        })
        .collect();
    if let (Some(Due::Missed { reason, .. } | Due::Skipped { reason, .. }), Some(more)) =
        (left.last_mut(), more)
    {
        reason.push_str(&format!(", as did every fire time up to {more}"));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::super::terms::{Blackout, Terms};
    use super::super::{Seen, WhenText, due};
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(text: &str) -> Schedule {
        Schedule::compile(&[text.to_owned()], "Europe/Berlin").unwrap()
    }

    #[test]
    fn an_edit_counts_from_the_change_of_its_file_between_the_last_look_and_now() {
        let (seen, now) = ("2026-11-22T08:00:00Z", "2026-11-22T12:00:00Z");
        for (changed, from) in [
            ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"),
            ("2026-01-01T00:00:00Z", seen),
            ("2030-01-01T00:00:00Z", now),
        ] {
            assert_eq!(in_force_from(at(changed), at(seen), at(now)), at(from));
        }
        // The clock was ahead at the last look.
        assert_eq!(in_force_from(at(now), at(now), at(seen)), at(seen));
    }

    #[test]
    fn what_the_old_schedule_leaves_is_missed_and_in_its_blackout_skipped() {
        let day = jiff::civil::date(2026, 11, 22);
        let blackout = vec![Blackout { from: day, to: day }];
        let old = cron("0 12 * * *").under(Terms {
            blackout,
            ..Terms::default()
        });
        let (since, until) = (at("2026-11-20T11:00:00Z"), at("2026-11-23T11:00:00Z"));
        let left = left_behind(&old, since, until, Ceased::Edited);
        let told: Vec<String> = left
            .iter()
            .map(|due| match due {
                Due::Run(at) => format!("+{at}"),
                Due::Missed { fire_time, .. } => format!("-{fire_time}"),
                Due::Skipped { fire_time, .. } => format!("/{fire_time}"),
            })
            .collect();
        let expect = [
            "-2026-11-21T11:00:00Z",
            "/2026-11-22T11:00:00Z",
            "-2026-11-23T11:00:00Z",
        ];
        assert_eq!(told, expect);
        assert_eq!(left_behind(&old, until, since, Ceased::Edited), []);
    }

    #[test]
    fn more_than_a_look_takes_are_told_of_by_the_last_that_is_taken() {
        let left = left_behind(
            &cron("* * * * *"),
            at("2026-01-01T00:00:00Z"),
            at("2026-02-01T00:00:30Z"),
            Ceased::Disabled,
        );
        assert_eq!(left.len(), MAX_FIRE_TIMES);
        let Some(Due::Missed { reason, .. }) = left.last() else {
            panic!("none missed");
        };
        assert!(reason.ends_with("as did every fire time up to 2026-02-01T00:00:00Z"));
    }

    #[test]
    fn every_kind_of_schedule_is_read_back_as_it_was_stored() {
        let lists = ["0 9 * * MON-FRI", "30 5 9 1 * *"].to_vec();
        let every = WhenText::Every(std::time::Duration::from_secs(900));
        for (when, zone) in [
            (WhenText::Cron(lists), "America/New_York"),
            (every, "UTC"),
            (WhenText::At("2026-12-24T08:00"), "Pacific/Auckland"),
        ] {
            for bounds in [(None, None), (Some("2026-01-01"), Some("2026-12-31T12:00"))] {
                let schedule = Schedule::of(&when, zone, bounds.0, bounds.1).unwrap();
                let again = Schedule::from_text(&schedule.to_text()).unwrap();
                assert_eq!(again.hash(), schedule.hash());
                let from = at("2025-12-31T00:00:00Z");
                let times = |of: &Schedule| of.fire_times(from, Timestamp::MAX, 300);
                assert_eq!(times(&again), times(&schedule));
            }
        }
    }

    #[test]
    fn a_text_that_is_no_schedule_is_not_read_as_one() {
        for text in [
            "",
            "cron\n",
            "cron\n* * * * *\n",
            "cron\n* * * * *\ntimezone\nMars/Olympus\n",
            "every\n\n",
            "every\n59\nfrom\nx\n",
            "at\nsoon\n",
        ] {
            assert!(Schedule::from_text(text).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_edit_loses_no_fire_time_of_either_schedule_and_takes_none_twice(
            start in 1_735_689_600..1_798_761_600_i64,
            (before, change, after) in (0..50_i64, 0..50_i64, 0..50_i64),
        ) {
            let hours = |n: i64| jiff::SignedDuration::from_hours(n);
            let seen_until = Timestamp::from_second(start).unwrap();
            let changed = seen_until + hours(before + change) - hours(before);
            let now = changed + hours(after);
            let (old, new) = (cron("20 */2 * * *"), cron("20 */3 * * *"));
            let from = in_force_from(changed, seen_until, now);
            let left = left_behind(&old, seen_until, from, Ceased::Edited);
            let hash = new.hash();
            let seen = Seen { schedule_hash: &hash, seen_until: from };
            let look = due(&new, Some(seen), now, false);
            let taken: Vec<Timestamp> =
                left.iter().chain(&look.due).map(Due::fire_time).collect();
            let mut expect = old.fire_times(seen_until, changed, usize::MAX);
            expect.extend(new.fire_times(changed, now, usize::MAX));
            prop_assert!(taken.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(taken, expect);
        }
    }
}
