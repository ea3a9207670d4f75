//! Cells as Redshift writes them: floating numbers with all digits that it
//! keeps, and intervals in words.

/// `%.<count>g`: PostgreSQL 8 did not look for the shortest digits.
pub(super) fn digits(value: f64, count: usize) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:.*e}", count - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    let width = i32::try_from(count).unwrap();
    if (-4..width).contains(&exponent) {
        let places = usize::try_from(width - 1 - exponent).unwrap();
        return without_zeros(&format!("{value:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    let exponent = exponent.unsigned_abs();
    format!("{}e{sign}{exponent:02}", without_zeros(mantissa))
}

fn without_zeros(number: &str) -> String {
    match number.contains('.') {
        true => number
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        false => number.to_owned(),
    }
}

/// `1 year 2 mons` in Redshift's words; none where it is something else.
pub(super) fn year_to_month(text: &str) -> Option<String> {
    let (mut years, mut months) = (0, 0);
    let words: Vec<&str> = text.split(' ').collect();
    for pair in words.chunks(2) {
        let [amount, unit] = pair else { return None };
        let amount: i64 = amount.parse().ok()?;
        match unit.trim_end_matches('s') {
            "year" => years = amount,
            "mon" => months = amount,
            _ => return None,
        }
    }
    Some(format!("{years} years {months} mons"))
}

/// `3 days 04:05:06.7` in Redshift's words; none where it is something else.
pub(super) fn day_to_second(text: &str) -> Option<String> {
    let (days, time) = match text.split_once(" day") {
        Some((days, rest)) => (days, rest.trim_start_matches('s').trim_start()),
        None => ("0", text),
    };
    days.parse::<i64>().ok()?;
    let time = if time.is_empty() { "00:00:00" } else { time };
    let sign = if time.starts_with('-') { "-" } else { "" };
    let parts: Vec<&str> = time.trim_start_matches('-').split(':').collect();
    let [hours, minutes, seconds] = parts.as_slice() else {
        return None;
    };
    let (hours, minutes) = (hours.parse::<u64>().ok()?, minutes.parse::<u64>().ok()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let seconds = seconds.parse::<u64>().ok()?;
    let signed = |amount: u64| match amount {
        0 => "0".to_owned(),
        _ => format!("{sign}{amount}"),
    };
    let is_nothing = seconds == 0 && fraction.bytes().all(|digit| digit == b'0');
    let seconds = format!("{}{seconds}.{fraction}", if is_nothing { "" } else { sign });
    let (hours, minutes) = (signed(hours), signed(minutes));
    Some(format!(
        "{days} days {hours} hours {minutes} mins {seconds} secs"
    ))
}
