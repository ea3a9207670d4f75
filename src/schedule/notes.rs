//! What a person should know of a fire time around a change of the clocks.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// What is unusual about the fire time `at` in `zone`, the one before it, or
/// now, being `before`; nothing on most days.
pub fn clock_note(zone: &TimeZone, before: Timestamp, at: Timestamp) -> Option<String> {
    let offset = |at: Timestamp| i64::from(zone.to_offset(at).seconds());
    let local = zone.to_datetime(at);
    let ambiguous = zone.to_ambiguous_timestamp(local);
    if ambiguous.is_ambiguous() {
        let is_first = ambiguous.earlier().is_ok_and(|earlier| earlier == at);
        let which = if is_first { "first" } else { "second" };
        return Some(format!(
            "the clocks go back: {} comes twice, this is the {which}",
            local.strftime("%H:%M")
        ));
    }
    let just_before = at.checked_sub(SignedDuration::from_secs(1)).unwrap_or(at);
    let jump = offset(at) - offset(just_before);
    if jump > 0 {
        return Some(format!(
            "the clocks go forward by {} at this moment; what was due in between runs now",
            minutes(jump)
        ));
    }
    let change = offset(at) - offset(before);
    match change {
        0 => None,
        1.. => Some(format!(
            "the clocks went forward by {} before it",
            minutes(change)
        )),
        _ => Some(format!(
            "the clocks went back by {} before it",
            minutes(-change)
        )),
    }
}

fn minutes(seconds: i64) -> String {
    match (seconds / 3_600, seconds % 3_600 / 60) {
        (hours, 0) => format!("{hours}h"),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, at: &str, expect: Option<&str>) {
        let zone = TimeZone::get("America/New_York").unwrap();
        let note = clock_note(&zone, before.parse().unwrap(), at.parse().unwrap());
        assert_eq!(note.as_deref(), expect);
    }

    #[test]
    fn a_fire_time_around_a_change_of_the_clocks_says_so() {
        check("2026-11-20T14:00:00Z", "2026-11-21T14:00:00Z", None);
        check(
            "2026-10-31T13:00:00Z",
            "2026-11-01T14:00:00Z",
            Some("the clocks went back by 1h before it"),
        );
        check(
            "2026-11-01T04:30:00Z",
            "2026-11-01T05:30:00Z",
            Some("the clocks go back: 01:30 comes twice, this is the first"),
        );
        check(
            "2026-11-01T05:30:00Z",
            "2026-11-01T06:30:00Z",
            Some("the clocks go back: 01:30 comes twice, this is the second"),
        );
        check(
            "2026-03-07T07:30:00Z",
            "2026-03-08T07:00:00Z",
            Some("the clocks go forward by 1h at this moment; what was due in between runs now"),
        );
        check(
            "2026-03-07T14:00:00Z",
            "2026-03-08T13:00:00Z",
            Some("the clocks went forward by 1h before it"),
        );
    }
}
