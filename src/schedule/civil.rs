//! Wall-clock times of a campaign file, and the instants they mean.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Which end of a day a date means where an instant is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    First,
    Last,
}

/// A date as `2026-11-27`.
pub(super) fn date(text: &str) -> Result<Date, String> {
    plain(text)
        .filter(|text| text.len() == 10)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("`{text}` is not a date; write it like `2026-11-27`"))
}

/// A time of the day as `08:00`.
pub(super) fn time(text: &str) -> Result<Time, String> {
    plain(text)
        .filter(|text| text.len() == 5 && !text.contains('-'))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("`{text}` is not a time of the day; write it like `08:00`"))
}

/// A date-time as `2026-12-24T08:00`, seconds or not.
pub(super) fn date_time(text: &str) -> Result<DateTime, String> {
    plain(text)
        .filter(|text| text.len() >= 16)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            format!(
                "`{text}` is not a date and time; write it like `2026-12-24T08:00`, \
                 without an offset: it is meant in `timezone`"
            )
        })
}

/// The instant of a bound, which belongs to what it bounds: a date-time, or
/// the first or last moment of a date.
pub(super) fn bound(text: &str, edge: Edge, zone: &TimeZone) -> Result<Timestamp, String> {
    if let Ok(day) = date(text) {
        let day = match edge {
            Edge::First => Some(day),
            Edge::Last => day.tomorrow().ok(),
        };
        let start = day.and_then(|day| instant(day.at(0, 0, 0, 0), zone));
        let second = SignedDuration::from_secs(i64::from(edge == Edge::Last));
        return start
            .and_then(|start| start.checked_sub(second).ok())
            .ok_or_else(|| format!("`{text}` lies beyond the calendar"));
    }
    let at = date_time(text).map_err(|_| {
        format!(
            "`{text}` is neither a date like `2026-01-01` nor a date and time like \
             `2026-01-01T08:00`; it is meant in `timezone`, so write no offset"
        )
    })?;
    instant(at, zone).ok_or_else(|| format!("`{text}` lies beyond the calendar"))
}

/// When the clock of `zone` shows `at`: the first of the two instants where it
/// does twice, and the first one after where it jumps over it.
pub(super) fn instant(at: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(at).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(at).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(at).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            let too_early = after.to_timestamp(at).ok()?;
            zone.following(too_early)
                .next()
                .map(|change| change.timestamp())
        }
    }
}

/// The text if it holds nothing but what a plain date or time does: no offset,
/// no fraction, no zone.
fn plain(text: &str) -> Option<&str> {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b':' | b'T'))
        && text.len() <= 19
        // A `-` after the time is an offset.
        && !text.get(11..).is_some_and(|time| time.contains('-'));
    is_plain.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, edge: Edge, expect: &str) {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(bound(text, edge, &zone).unwrap().to_string(), expect);
    }

    #[test]
    fn a_date_bounds_its_whole_day_in_the_zone() {
        check("2026-01-01", Edge::First, "2025-12-31T23:00:00Z");
        check("2026-12-31", Edge::Last, "2026-12-31T22:59:59Z");
        check("2026-10-25", Edge::Last, "2026-10-25T22:59:59Z");
    }

    #[test]
    fn a_time_in_a_gap_is_the_instant_after_it_and_in_an_overlap_the_first() {
        check("2026-03-29T02:30", Edge::First, "2026-03-29T01:00:00Z");
        check("2026-10-25T02:30", Edge::Last, "2026-10-25T00:30:00Z");
    }

    #[test]
    fn offsets_fractions_and_nonsense_are_refused() {
        for bad in [
            "2026-01-01T08:00Z",
            "2026-01-01T08:00+01",
            "2026-01-01T08:00-01:00",
            "2026-01-01T08:00:00.5",
            "2026-02-30",
            "tomorrow",
            "",
            "20260101",
        ] {
            assert!(bound(bad, Edge::First, &TimeZone::UTC).is_err(), "{bad}");
        }
        assert!(time("8:00").is_err() && time("24:00").is_err() && time("23:59").is_ok());
    }
}
