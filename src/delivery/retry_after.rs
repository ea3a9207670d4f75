//! What `Retry-After` asks for.

use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The longest wait a destination can ask for: a wrong date must not put a run
/// to sleep for years.
const LONGEST: Duration = Duration::from_secs(3600);

/// The delay a `Retry-After` header asks for, in seconds or as one of the
/// three HTTP dates, at most an hour; nothing where it is neither.
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let text = header.trim();
    let delay = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are more than an hour.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let wait: SignedDuration = http_date(text)?.duration_since(now);
        wait.try_into().unwrap_or(Duration::ZERO)
    };
    Some(delay.min(LONGEST))
}

fn http_date(text: &str) -> Option<Timestamp> {
    if let Ok(imf) = rfc2822::DateTimeParser::new().parse_timestamp(text) {
        return Some(imf);
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|format| DateTime::strptime(format, text).ok())
        .and_then(|date| date.to_zoned(TimeZone::UTC).ok())
        .map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    #[track_caller]
    fn check(header: &str, expect: Option<u64>) {
        let now: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let expect = expect.map(Duration::from_secs);
        assert_eq!(retry_after(header, now), expect, "{header:?}");
    }

    #[test]
    fn seconds_are_taken_up_to_an_hour() {
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("3601", Some(3600));
        check("315360000", Some(3600));
        check("99999999999999999999999999", Some(3600));
    }

    #[test]
    fn a_date_is_the_time_until_then() {
        check("Sun, 22 Nov 2026 14:01:30 GMT", Some(90));
        check("Sunday, 22-Nov-26 14:01:30 GMT", Some(90));
        check("Sun Nov 22 14:01:30 2026", Some(90));
        check("Sun, 22 Nov 2026 13:00:00 GMT", Some(0));
        check("Sun, 22 Nov 2036 14:00:00 GMT", None); // that day is a Saturday
        check("Sat, 22 Nov 2036 14:00:00 GMT", Some(3600));
    }

    #[test]
    fn anything_else_asks_for_nothing() {
        for garbage in ["", "-5", "1.5", "+3", "soon", "22 Nov", "ten years"] {
            check(garbage, None);
        }
    }

    proptest! {
        #[test]
        fn no_header_asks_for_more_than_an_hour(header: String, at in -62_135_596_800_i64..253_402_300_800) {
            let now = Timestamp::from_second(at).unwrap_or(Timestamp::UNIX_EPOCH);
            prop_assert!(retry_after(&header, now).is_none_or(|delay| delay <= LONGEST));
        }

        #[test]
        fn a_number_is_what_it_says_up_to_an_hour(seconds: u64) {
            let expect = Duration::from_secs(seconds).min(LONGEST);
            let now = Timestamp::UNIX_EPOCH;
            prop_assert_eq!(retry_after(&seconds.to_string(), now), Some(expect));
            prop_assert_eq!(retry_after(&format!("-{seconds}"), now), None);
        }

        #[test]
        fn a_date_is_within_the_bounds_whenever_it_is_read(
            then in -30_000_000_000_i64..253_000_000_000, // years of four digits
            now in -62_000_000_000_i64..253_000_000_000,
        ) {
            let instant = |second| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            let (then, now) = (instant(then), instant(now));
            let header = then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let wait = Duration::try_from(then.duration_since(now)).unwrap_or_default();
            prop_assert_eq!(retry_after(&header, now), Some(wait.min(LONGEST)));
        }
    }
}
