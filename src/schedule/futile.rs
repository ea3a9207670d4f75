//! Schedules that never fire, or never again.

use super::plan::{Schedule, SchedulePart, ScheduleProblem};
use jiff::{SignedDuration, Timestamp};

/// 400 years, after which dates and weekdays come in the same order again, and
/// a day: what has not fired in them never does.
const CYCLE: SignedDuration = SignedDuration::from_hours(24 * (146_097 + 1));

impl Schedule {
    /// Why there is no fire time at all, if there is none.
    pub(super) fn never_fires(&self) -> Option<ScheduleProblem> {
        let from = match (self.only(), self.bounds()) {
            // Its line has been found to fire.
            (None, (None, None)) => return None,
            (None, (_, Some(ends))) => ends.checked_sub(CYCLE).unwrap_or(Timestamp::MIN),
            _ => Timestamp::MIN,
        };
        if self.next_after(from).is_some() {
            return None;
        }
        let problem = |part, what: &str| {
            let message = format!("{what}, so it never fires; move one of them");
            Some(ScheduleProblem { part, message })
        };
        let (starts, ends) = self.bounds();
        match (self.only(), starts, ends) {
            (Some(at), Some(first), _) if at < first => {
                problem(SchedulePart::At, "`at` lies before `starts`")
            }
            (Some(_), ..) => problem(SchedulePart::At, "`at` lies after `ends`"),
            (None, Some(_), Some(_)) => problem(
                SchedulePart::Ends,
                "there is no fire time between `starts` and `ends`",
            ),
            (None, Some(_), None) => problem(
                SchedulePart::Starts,
                "there is no fire time from `starts` on",
            ),
            (None, None, _) => problem(SchedulePart::Ends, "there is no fire time before `ends`"),
        }
    }

    /// Why its one fire time is not run, if it lies in a blackout.
    pub fn blacked_out(&self) -> Option<String> {
        let blackout = self.blackout(self.only()?)?;
        Some(format!(
            "`at` lies in {blackout}, so it never fires; move one of them"
        ))
    }

    /// What to say of a schedule whose last fire time is past at `now`, and of
    /// which of its parts.
    pub fn past_note(&self, now: Timestamp) -> Option<ScheduleProblem> {
        if self.next_after(now).is_some() {
            return None;
        }
        let before = now.checked_sub(SignedDuration::from_secs(1)).unwrap_or(now);
        // What is due this second is not past.
        if self.next_after(before).is_some() {
            return None;
        }
        let (part, what) = match self.only() {
            Some(at) => (SchedulePart::At, format!("`at` is past ({at})")),
            None => (SchedulePart::Ends, "its last fire time is past".to_owned()),
        };
        let message = format!("{what}: it does not fire again");
        Some(ScheduleProblem { part, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Blackout, Terms, WhenText};

    fn schedule(
        when: &WhenText,
        starts: Option<&str>,
        ends: Option<&str>,
    ) -> Result<Schedule, String> {
        Schedule::of(when, "Europe/Berlin", starts, ends)
            .map_err(|problems| problems[0].message.clone())
    }

    #[test]
    fn a_schedule_without_a_fire_time_is_a_problem() {
        let at = WhenText::At("2026-12-24T08:00");
        let monthly = WhenText::Cron(vec!["0 9 31 * *"]);
        let leap_day = WhenText::Cron(vec!["0 9 29 2 *"]);
        for (when, starts, ends, expect) in [
            (&at, Some("2026-12-25"), None, "`at` lies before `starts`"),
            (&at, None, Some("2026-12-23"), "`at` lies after `ends`"),
            (
                &monthly,
                Some("2026-02-01"),
                Some("2026-02-28"),
                "there is no fire time between `starts` and `ends`",
            ),
        ] {
            let message = schedule(when, starts, ends).unwrap_err();
            assert_eq!(
                message,
                format!("{expect}, so it never fires; move one of them")
            );
        }
        for (when, starts, ends) in [
            (&at, Some("2026-12-24"), Some("2026-12-24")),
            (&monthly, Some("2026-01-31"), Some("2026-01-31")),
            (&monthly, None, Some("2026-02-28")),
            // Four years before its end.
            (&leap_day, None, Some("2028-02-28")),
        ] {
            assert!(schedule(when, starts, ends).is_ok());
        }
    }

    #[test]
    fn one_fire_time_in_a_blackout_is_a_problem() {
        let dates = |from: &str, to: &str| Blackout {
            from: Blackout::date(from).unwrap(),
            to: Blackout::date(to).unwrap(),
        };
        let under = |blackout| {
            let at = schedule(&WhenText::At("2026-12-24T00:30"), None, None).unwrap();
            let terms = Terms {
                blackout: vec![blackout],
                ..Terms::default()
            };
            at.under(terms).blacked_out()
        };
        assert_eq!(
            under(dates("2026-12-24", "2026-12-26")).unwrap(),
            "`at` lies in the blackout from 2026-12-24 to 2026-12-26, so it never fires; move one of them"
        );
        assert_eq!(under(dates("2026-12-23", "2026-12-23")), None);
    }

    #[test]
    fn a_schedule_that_is_over_is_noted() {
        let at = schedule(&WhenText::At("2026-12-24T08:00"), None, None).unwrap();
        let note = |schedule: &Schedule, now: &str| {
            let note = schedule.past_note(now.parse().unwrap());
            note.map(|note| note.message)
        };
        assert_eq!(note(&at, "2026-12-24T06:59:59Z"), None);
        assert_eq!(note(&at, "2026-12-24T07:00:00Z"), None);
        assert_eq!(
            note(&at, "2026-12-24T07:00:01Z").unwrap(),
            "`at` is past (2026-12-24T07:00:00Z): it does not fire again"
        );
        let daily = WhenText::Cron(vec!["0 9 * * *"]);
        let daily = schedule(&daily, None, Some("2026-06-30")).unwrap();
        assert_eq!(note(&daily, "2026-06-30T06:00:00Z"), None);
        assert_eq!(
            note(&daily, "2026-06-30T08:00:00Z").unwrap(),
            "its last fire time is past: it does not fire again"
        );
    }
}
