//! Fire times that fall where a zone's clock jumps or goes back.

use super::civil;
use super::plan::Schedule;
use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

/// How far ahead they are looked for.
const AHEAD: SignedDuration = SignedDuration::from_hours(400 * 24);

/// A fire time that its zone's clock shows twice, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockNote {
    /// When it runs; of two times, the first.
    pub fire_time: Timestamp,
    /// What happens, in words.
    pub message: String,
}

impl Schedule {
    /// The fire times of the 400 days after `now` that fall into a gap or an
    /// overlap of the zone's clock, the first of each; none for expressions
    /// whose hours begin with `*`, which go on at the same pace.
    pub fn clock_notes(&self, now: Timestamp) -> Vec<ClockNote> {
        let until = now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
        let mut notes = Vec::new();
        let mut offset = self.zone.to_offset(now);
        for change in self.zone.following(now) {
            let seam = change.timestamp();
            if seam > until {
                break;
            }
            let ends = offset.to_datetime(seam);
            offset = change.offset();
            let begins = offset.to_datetime(seam);
            let note = match begins > ends {
                true => self.in_gap(ends, begins, seam),
                false => self.in_overlap(begins, ends),
            };
            notes.extend(note.filter(|note| self.fires_at(note.fire_time)));
        }
        notes
    }

    fn in_gap(&self, ends: DateTime, begins: DateTime, seam: Timestamp) -> Option<ClockNote> {
        let slot = self.first_slot(ends, begins)?;
        let shown = slot.strftime("%Y-%m-%d %H:%M:%S");
        Some(ClockNote {
            fire_time: seam,
            message: format!(
                "{shown} does not exist there, the clock jumps to {}: it runs at {seam}",
                begins.time().strftime("%H:%M"),
            ),
        })
    }

    fn in_overlap(&self, begins: DateTime, ends: DateTime) -> Option<ClockNote> {
        let slot = self.first_slot(begins, ends)?;
        let first = civil::instant(slot, &self.zone)?;
        let shown = slot.strftime("%Y-%m-%d %H:%M:%S");
        let repeats = self.lines().iter().any(|line| {
            line.names_hours() && line.repeats() && line.next_slot(begins, true) == Some(slot)
        });
        let what = match repeats {
            true => "it runs both times, since the expression is an interval",
            false => "it runs the first time only",
        };
        Some(ClockNote {
            fire_time: first,
            message: format!("{shown} comes twice there, the clock goes back: {what}, at {first}"),
        })
    }

    /// The first slot of the day from `from` to before `to`.
    fn first_slot(&self, from: DateTime, to: DateTime) -> Option<DateTime> {
        let lines = self.lines().iter().filter(|line| line.names_hours());
        lines
            .filter_map(|line| line.next_slot(from, true))
            .chain(self.single().filter(|at| *at >= from))
            .filter(|slot| *slot < to)
            .min()
    }

    fn fires_at(&self, instant: Timestamp) -> bool {
        let before = instant.checked_sub(SignedDuration::from_secs(1));
        before.is_ok_and(|before| self.next_after(before) == Some(instant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cron: &str, zone: &str, expect: &[&str]) {
        let schedule = Schedule::compile(&[cron.to_owned()], zone).unwrap();
        let notes = schedule.clock_notes("2026-01-01T00:00:00Z".parse().unwrap());
        let found: Vec<&str> = notes.iter().map(|note| note.message.as_str()).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_slot_in_a_gap_and_in_an_overlap_is_noted() {
        check(
            "30 2 * * *",
            "Europe/Berlin",
            &[
                "2026-03-29 02:30:00 does not exist there, the clock jumps to 03:00: it runs at 2026-03-29T01:00:00Z",
                "2026-10-25 02:30:00 comes twice there, the clock goes back: it runs the first time only, at 2026-10-25T00:30:00Z",
            ],
        );
    }

    #[test]
    fn what_is_not_touched_is_not_noted() {
        check("0 9 * * *", "Europe/Berlin", &[]);
        check("*/5 * * * *", "Europe/Berlin", &[]);
        check("30 2 * * *", "UTC", &[]);
        check("30 2 * 6 *", "America/New_York", &[]);
    }
}
