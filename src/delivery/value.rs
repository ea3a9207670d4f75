//! A cell as JSON text, written straight into the payload.

use super::page::Kind;
use jiff::civil::DateTime;
use jiff::{SignedDuration, Unit};
use serde::de::IgnoredAny;
use std::io::Write;

/// 2^53: up to here every reader of JSON numbers has the same integer.
const EXACT_UP_TO: &str = "9007199254740992";

/// Bytes of `YYYY-MM-DD HH:MM:SS`.
const SECONDS_END: usize = 19;

/// Appends the cell as one JSON value. Whatever a kind cannot carry goes out
/// as the string it came as; not-a-number and infinity are `null`.
pub(super) fn write_value(out: &mut Vec<u8>, kind: Kind, text: &str) {
    let written = match kind {
        Kind::Null => null(out),
        Kind::Bool => write_bool(out, text),
        Kind::Integer | Kind::Decimal => write_number(out, text),
        Kind::Float => write_float(out, text),
        Kind::Timestamp => write_timestamp(out, text),
        Kind::TimestampTz => write_timestamp_tz(out, text),
        Kind::Json => write_json(out, text),
        Kind::Text => None,
    };
    if written.is_none() {
        write_string(out, text);
    }
}

/// Appends a quoted, escaped string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes every string");
}

/// Each writer below answers `None`, having written nothing, where the text is
/// not of its kind.
fn put(out: &mut Vec<u8>, parts: &[&str]) -> Option<()> {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    Some(())
}

fn null(out: &mut Vec<u8>) -> Option<()> {
    put(out, &["null"])
}

fn write_bool(out: &mut Vec<u8>, text: &str) -> Option<()> {
    match text {
        "t" | "true" | "1" => put(out, &["true"]),
        "f" | "false" | "0" => put(out, &["false"]),
        _ => None,
    }
}

/// Digits as given; only what JSON has no form for is put right.
fn write_number(out: &mut Vec<u8>, text: &str) -> Option<()> {
    if is_not_finite(text) {
        return null(out);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let sign = if text.starts_with('-') { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    if is_exact(whole, fraction) {
        put(out, &[sign, whole, point, fraction])
    } else {
        put(out, &["\"", sign, whole, point, fraction, "\""])
    }
}

fn is_exact(whole: &str, fraction: &str) -> bool {
    let by_length = whole.len().cmp(&EXACT_UP_TO.len());
    match by_length.then_with(|| whole.cmp(EXACT_UP_TO)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => fraction.bytes().all(|b| b == b'0'),
        std::cmp::Ordering::Greater => false,
    }
}

fn is_not_finite(text: &str) -> bool {
    let name = text.strip_prefix(['-', '+']).unwrap_or(text);
    ["nan", "inf", "infinity"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}

/// The shortest digits that read back as the same number, so that two
/// warehouses that print it differently give the same payload.
fn write_float(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() {
        return null(out);
    }
    let magnitude = value.abs();
    let is_plain = magnitude == 0.0 || (1e-5..1e16).contains(&magnitude);
    let written = if is_plain {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
    written.ok()
}

fn write_json(out: &mut Vec<u8>, text: &str) -> Option<()> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    if !text.contains(['\n', '\r']) {
        return put(out, &[text]);
    }
    // Between values a line break is a blank, and within them there is none:
    // so each member stays on one line of ndjson.
    let blank = |byte| {
        if matches!(byte, b'\n' | b'\r') {
            b' '
        } else {
            byte
        }
    };
    out.extend(text.bytes().map(blank));
    Some(())
}

/// RFC 3339 has neither infinity, years BC nor years past 9999: the first is
/// `null`, the others stay as they came.
fn write_timestamp(out: &mut Vec<u8>, text: &str) -> Option<()> {
    if is_not_finite(text) {
        return null(out);
    }
    let (seconds, fraction) = text.split_at_checked(SECONDS_END)?;
    let (date, time) = date_and_time(seconds)?;
    is_fraction(fraction).then_some(())?;
    put(out, &["\"", date, "T", time, fraction, "Z\""])
}

fn write_timestamp_tz(out: &mut Vec<u8>, text: &str) -> Option<()> {
    if is_not_finite(text) {
        return null(out);
    }
    let (seconds, rest) = text.split_at_checked(SECONDS_END)?;
    let (date, time) = date_and_time(seconds)?;
    let offset_at = rest.find(['+', '-', 'Z']).unwrap_or(rest.len());
    let (fraction, offset) = rest.split_at(offset_at);
    is_fraction(fraction).then_some(())?;
    if matches!(offset, "+00" | "+00:00" | "Z") {
        return put(out, &["\"", date, "T", time, fraction, "Z\""]);
    }
    // Offsets are whole seconds, so the fraction stays as it is.
    let local = DateTime::strptime("%Y-%m-%d%H:%M:%S", [date, time].concat()).ok()?;
    let utc = local.checked_sub(offset_length(offset)?).ok()?;
    let utc = utc.round(Unit::Second).ok()?;
    (0..=9999).contains(&utc.year()).then_some(())?;
    write!(out, "\"{utc}{fraction}Z\"").ok()
}

/// `YYYY-MM-DD` and `HH:MM:SS`, where the digits can be a date and a time.
fn date_and_time(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let pair = |at: usize| {
        let (tens, units) = (bytes[at], bytes[at + 1]);
        (tens.is_ascii_digit() && units.is_ascii_digit())
            .then(|| (tens - b'0') * 10 + (units - b'0'))
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let is_marked = marks.iter().all(|&(at, mark)| bytes[at] == mark);
    pair(0)?;
    pair(2)?;
    let is_sound = is_marked
        && matches!(bytes[10], b' ' | b'T')
        && (1..=12).contains(&pair(5)?)
        && (1..=31).contains(&pair(8)?)
        && pair(11)? < 24
        && pair(14)? < 60
        && pair(17)? <= 60;
    is_sound.then(|| (&text[..10], &text[11..]))
}

fn is_fraction(text: &str) -> bool {
    match text.strip_prefix('.') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => text.is_empty(),
    }
}

/// `+05`, `+05:30`, `-00:53:28`.
fn offset_length(text: &str) -> Option<SignedDuration> {
    let mut seconds = 0;
    let mut unit = 3600;
    for part in text.get(1..)?.split(':') {
        let is_pair = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        is_pair.then_some(())?;
        seconds += part.parse::<i64>().ok()? * unit;
        unit /= 60;
    }
    let length = SignedDuration::from_secs(seconds);
    Some(if text.starts_with('-') {
        -length
    } else {
        length
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[track_caller]
    fn check(kind: Kind, cases: &[(&str, &str)]) {
        for (text, expect) in cases {
            let mut out = Vec::new();
            write_value(&mut out, kind, text);
            let out = String::from_utf8(out).unwrap();
            assert_eq!(&out, expect, "{kind:?} {text:?}");
            serde_json::from_str::<serde_json::Value>(&out).unwrap();
        }
    }

    #[test]
    fn integers_are_numbers_and_beyond_two_to_the_53_strings() {
        check(
            Kind::Integer,
            &[
                ("0", "0"),
                ("-7", "-7"),
                ("+7", "7"),
                ("007", "7"),
                ("9007199254740992", "9007199254740992"),
                ("-9007199254740992", "-9007199254740992"),
                ("9007199254740993", "\"9007199254740993\""),
                ("-9223372036854775808", "\"-9223372036854775808\""),
                ("seven", "\"seven\""),
                ("", "\"\""),
                ("-", "\"-\""),
            ],
        );
    }

    #[test]
    fn exact_decimals_keep_their_digits() {
        check(
            Kind::Decimal,
            &[
                ("12.50", "12.50"),
                (".5", "0.5"),
                ("-.5", "-0.5"),
                ("5.", "5"),
                ("0.1234567890123456789012", "0.1234567890123456789012"),
                ("9007199254740992.00", "9007199254740992.00"),
                ("9007199254740992.01", "\"9007199254740992.01\""),
                (
                    "12345678901234567890123456789012345678",
                    "\"12345678901234567890123456789012345678\"",
                ),
                ("NaN", "null"),
                ("-Infinity", "null"),
                ("1.2.3", "\"1.2.3\""),
            ],
        );
    }

    #[test]
    fn floats_are_their_shortest_digits_and_null_where_json_has_none() {
        check(
            Kind::Float,
            &[
                ("0.1", "0.1"),
                ("3.0", "3"),
                ("-0", "-0"),
                ("0.10000000000000001", "0.1"),
                ("1e300", "1e300"),
                ("1e+16", "1e16"),
                ("2.5e-07", "2.5e-7"),
                ("NaN", "null"),
                ("Infinity", "null"),
                ("-inf", "null"),
                ("1e999", "null"),
                ("warm", "\"warm\""),
            ],
        );
    }

    #[test]
    fn booleans_of_every_warehouse_are_booleans() {
        let cases = [("t", "true"), ("0", "false"), ("maybe", "\"maybe\"")];
        check(Kind::Bool, &cases);
        check(Kind::Null, &[("", "null")]);
    }

    #[test]
    fn timestamps_are_utc() {
        check(
            Kind::Timestamp,
            &[
                ("2026-01-02 03:04:05", "\"2026-01-02T03:04:05Z\""),
                ("2026-01-02 03:04:05.678", "\"2026-01-02T03:04:05.678Z\""),
                ("2026-01-02T03:04:05.6", "\"2026-01-02T03:04:05.6Z\""),
                ("infinity", "null"),
                ("-infinity", "null"),
                ("0044-03-15 00:00:00 BC", "\"0044-03-15 00:00:00 BC\""),
                ("10000-01-01 00:00:00", "\"10000-01-01 00:00:00\""),
                ("2026-13-02 03:04:05", "\"2026-13-02 03:04:05\""),
                ("2026-01-02 03:04:05.", "\"2026-01-02 03:04:05.\""),
                ("2026-01-02 03:04:0é", "\"2026-01-02 03:04:0é\""),
                ("yesterday", "\"yesterday\""),
            ],
        );
    }

    #[test]
    fn timestamps_with_an_offset_are_brought_to_utc() {
        check(
            Kind::TimestampTz,
            &[
                ("2026-01-02 03:04:05+00", "\"2026-01-02T03:04:05Z\""),
                (
                    "2026-01-02 03:04:05.678+05:30",
                    "\"2026-01-01T21:34:05.678Z\"",
                ),
                ("2026-12-31 23:00:00-03", "\"2027-01-01T02:00:00Z\""),
                ("1890-01-01 00:00:00-00:53:28", "\"1890-01-01T00:53:28Z\""),
                ("2026-01-02 03:04:05", "\"2026-01-02 03:04:05\""),
                ("9999-12-31 23:00:00-03", "\"9999-12-31 23:00:00-03\""),
                ("2026-01-02 03:04:05+5", "\"2026-01-02 03:04:05+5\""),
                ("infinity", "null"),
            ],
        );
    }

    #[test]
    fn json_is_embedded_if_it_is_json() {
        check(
            Kind::Json,
            &[
                ("{\"a\": [1, null]}", "{\"a\": [1, null]}"),
                ("\"x\"", "\"x\""),
                ("{a: 1}", "\"{a: 1}\""),
                ("{\n\"a\":\r\n1}", "{ \"a\":  1}"),
                ("1 2", "\"1 2\""),
                ("", "\"\""),
            ],
        );
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_value(&mut out, Kind::Text, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_cell_of_any_kind_is_one_json_value(text in "[-+0-9.eE:TZ nN\u{e9}]{0,30}") {
            for kind in [Kind::Integer, Kind::Decimal, Kind::Float, Kind::Bool,
                Kind::Timestamp, Kind::TimestampTz, Kind::Json]
            {
                let mut out = Vec::new();
                write_value(&mut out, kind, &text);
                serde_json::from_slice::<serde_json::Value>(&out).unwrap();
            }
        }

        #[test]
        fn any_finite_float_reads_back(value in any::<f64>()) {
            let mut out = Vec::new();
            write_value(&mut out, Kind::Float, &format!("{value:?}"));
            let back = std::str::from_utf8(&out).unwrap().parse::<f64>().ok();
            prop_assert_eq!(back, value.is_finite().then_some(value));
        }
    }
}
