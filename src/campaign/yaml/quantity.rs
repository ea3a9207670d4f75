//! Numbers with units: `30s`, `1MiB`.

use std::time::Duration;

/// The units of a duration, in milliseconds.
const DURATION_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// The units of a size, in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("KiB", 1024),
    ("MiB", 1024 * 1024),
    ("GiB", 1024 * 1024 * 1024),
    ("B", 1),
];

/// Reads `500ms 30s 5m 2h 7d`, also several in a row (`1h30m`).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(*factor)?;
        millis = millis.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// A duration as a file would say it: `90s`, `36h`, `400d`.
pub fn shown_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let units = DURATION_UNITS.iter().rev();
    let (unit, factor) = units
        .into_iter()
        .find(|(_, factor)| millis > 0 && millis.is_multiple_of(*factor))
        .unwrap_or(&("s", 1_000));
    format!("{}{unit}", millis / factor)
}

/// Reads `512B 64KiB 1MiB 2GiB`, in bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let (suffix, factor) = SIZE_UNITS
        .iter()
        .find(|(suffix, _)| text.ends_with(suffix))?;
    let number = text[..text.len() - suffix.len()].trim_end();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("30s"), Some(30));
        assert_eq!(seconds("5m"), Some(300));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("7d"), Some(604_800));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for bad in [
            "",
            "30",
            "s",
            "1.5h",
            "-1s",
            "1y",
            "1 h",
            "99999999999999999999d",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_would_be_written() {
        for text in ["0s", "250ms", "90s", "5m", "36h", "1d", "400d"] {
            assert_eq!(shown_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn a_size_is_a_number_with_a_binary_unit() {
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("1 MiB"), Some(1_048_576));
        assert_eq!(parse_size("7B"), Some(7));
        for bad in ["", "64", "64KB", "KiB", "-1MiB", "1e3KiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
