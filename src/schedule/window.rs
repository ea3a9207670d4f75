//! The hours in which a run may send.

use super::{civil, zone};
use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// The hours of the day in which requests may begin: from one time of the
/// clock, inclusive, to another, exclusive; over midnight where the second is
/// the earlier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct SendWindow {
    from: Time,
    to: Time,
    zone: TimeZone,
    zone_name: String,
}

/// As a run specification stores it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    from: String,
    to: String,
    timezone: String,
}

impl SendWindow {
    /// The window between two times of the day, as `08:00`; or what is wrong.
    pub fn parse(from: &str, to: &str, timezone: &str) -> Result<Self, String> {
        let (from, to) = (civil::time(from)?, civil::time(to)?);
        if from == to {
            let at = from.strftime("%H:%M");
            return Err(format!(
                "a window from {at} to {at} is empty; leave `send_window` out to send at any hour"
            ));
        }
        let zone = zone::find(timezone)?;
        let zone_name = zone.iana_name().unwrap_or("UTC").to_owned();
        Ok(Self {
            from,
            to,
            zone,
            zone_name,
        })
    }

    /// Whether a request may begin at `now`; if not, when it may: an instant
    /// after `now`, at which it is to be asked again.
    pub fn opens_at(&self, now: Timestamp) -> Option<Timestamp> {
        let local = self.zone.to_datetime(now);
        let (after_from, before_to) = (local.time() >= self.from, local.time() < self.to);
        let is_open = match self.from < self.to {
            true => after_from && before_to,
            false => after_from || before_to,
        };
        if is_open {
            return None;
        }
        let day = match after_from {
            true => local.date().tomorrow().unwrap_or(local.date()),
            false => local.date(),
        };
        let opens = self.next_time(day.to_datetime(self.from), now);
        Some(self.goes_back(now).map_or(opens, |back| back.min(opens)))
    }

    /// The next change of the clock after `now`, if it goes back: it may show
    /// the window once more.
    fn goes_back(&self, now: Timestamp) -> Option<Timestamp> {
        let change = self.zone.following(now).next()?;
        (change.offset() < self.zone.to_offset(now)).then(|| change.timestamp())
    }

    /// The instant after `now` at which the clock shows `at`.
    fn next_time(&self, at: DateTime, now: Timestamp) -> Timestamp {
        let second = || {
            let later = self.zone.to_ambiguous_timestamp(at).later();
            later.ok().filter(|later| *later > now)
        };
        civil::instant(at, &self.zone)
            .filter(|first| *first > now)
            // The clock went back between: it shows the time once more.
            .or_else(second)
            .or_else(|| now.checked_add(jiff::SignedDuration::from_mins(1)).ok())
            .unwrap_or(Timestamp::MAX)
    }
}

impl TryFrom<Stored> for SendWindow {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        Self::parse(&stored.from, &stored.to, &stored.timezone)
    }
}

impl From<SendWindow> for Stored {
    fn from(window: SendWindow) -> Self {
        Self {
            from: window.from.strftime("%H:%M").to_string(),
            to: window.to.strftime("%H:%M").to_string(),
            timezone: window.zone_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: &str, to: &str, now: &str, opens_at: Option<&str>) {
        let window = SendWindow::parse(from, to, "Europe/Berlin").unwrap();
        let found = window.opens_at(now.parse().unwrap());
        assert_eq!(found.map(|at| at.to_string()).as_deref(), opens_at, "{now}");
    }

    #[test]
    fn a_window_is_open_from_its_first_moment_to_before_its_last() {
        let check = |now, opens_at| check("08:00", "20:00", now, opens_at);
        check("2026-11-22T06:59:59Z", Some("2026-11-22T07:00:00Z"));
        check("2026-11-22T07:00:00Z", None);
        check("2026-11-22T18:59:59Z", None);
        check("2026-11-22T19:00:00Z", Some("2026-11-23T07:00:00Z"));
    }

    #[test]
    fn a_window_may_lie_over_midnight() {
        let check = |now, opens_at| check("22:00", "06:00", now, opens_at);
        check("2026-11-22T20:30:00Z", Some("2026-11-22T21:00:00Z"));
        check("2026-11-22T22:30:00Z", None);
        check("2026-11-23T04:30:00Z", None);
        check("2026-11-23T05:00:00Z", Some("2026-11-23T21:00:00Z"));
    }

    #[test]
    fn a_window_follows_the_clock_over_a_jump_and_back() {
        let check = |now, opens_at| check("02:30", "04:00", now, opens_at);
        check("2026-03-29T00:30:00Z", Some("2026-03-29T01:00:00Z"));
        check("2026-10-25T00:10:00Z", Some("2026-10-25T00:30:00Z"));
        check("2026-10-25T01:10:00Z", Some("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn a_stored_window_reads_back_and_an_empty_one_is_refused() {
        let window = SendWindow::parse("22:00", "06:00", "europe/berlin").unwrap();
        let json = serde_json::to_string(&window).unwrap();
        assert_eq!(
            json,
            r#"{"from":"22:00","to":"06:00","timezone":"Europe/Berlin"}"#
        );
        assert_eq!(serde_json::from_str::<SendWindow>(&json).unwrap(), window);
        assert!(SendWindow::parse("08:00", "08:00", "UTC").is_err());
    }
}
