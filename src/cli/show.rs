//! How commands print: tables on the terminal, JSON for programs.

use super::exit::Failure;
use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::io::{ErrorKind, Write as _};
use std::sync::OnceLock;

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs; stable.
    Json,
}

/// Why something that was said could not be written: the first time.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// Prints text as it is, with a line end. Whoever reads may have read enough
/// (`campaignd runs | head -1`); that is no failure. Any other is told of by
/// [`unwritten`].
pub(super) fn say(text: impl AsRef<str>) {
    let written = writeln!(std::io::stdout(), "{}", text.as_ref().trim_end());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        UNWRITTEN.get_or_init(|| error.to_string());
    }
}

/// What of the output is missing, if any is: a file that was cut must not pass
/// for a whole one.
pub(super) fn unwritten() -> Option<Failure> {
    let why = UNWRITTEN.get()?;
    Some(Failure::unreachable(anyhow::Error::msg(format!(
        "the output could not be written: {why}; it is not whole"
    ))))
}

/// Prints a value as JSON, one document.
pub(super) fn say_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("our views are plain data");
    say(text);
}

/// Between two columns of a table.
const GAP: u16 = 2;

/// A table with a header line and no frame. Columns whose header ends in `#`,
/// which is not shown, are numbers and stand to the right.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(
            header
                .iter()
                .map(|word| word.trim_end_matches('#').to_owned()),
        );
    for (column, word) in table.column_iter_mut().zip(header) {
        column.set_padding((0, GAP));
        if word.ends_with('#') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table's lines, without blanks at their ends.
pub(super) fn lines(table: &Table) -> String {
    table.trim_fmt()
}

/// The same with the words under the header `column` in the colour of how a
/// run stands, where standard output is a terminal.
pub(super) fn coloured_lines(table: &Table, column: &str) -> String {
    let text = lines(table);
    match colors() {
        true => coloured(&text, column),
        false => text,
    }
}

fn coloured(text: &str, column: &str) -> String {
    let header = text.lines().next().unwrap_or_default();
    let Some(start) = header.find(&format!("  {column}")).map(|gap| gap + 2) else {
        return text.to_owned();
    };
    let start = header[..start].chars().count();
    let line = |line: &str| {
        let (before, rest) = split_at_char(line, start);
        let end = rest.find("  ").unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match colour_of(word) {
            None => line.to_owned(),
            Some(colour) => {
                format!("{before}\u{1b}[{colour}m{word}\u{1b}[0m{after}")
            }
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn split_at_char(line: &str, at: usize) -> (&str, &str) {
    let index = line.char_indices().nth(at).map_or(line.len(), |(i, _)| i);
    line.split_at(index)
}

/// What is well is green, what a person may want to see to is yellow, and what
/// went wrong is red; by the terminal's own numbers.
fn colour_of(state: &str) -> Option<u8> {
    match state {
        "finished" => Some(32),
        "held" | "incomplete" | "cancelled" | "missed" => Some(33),
        "failed" => Some(31),
        _ => None,
    }
}

/// Whether standard output is a terminal that colours may be written to.
pub(super) fn colors() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// `1 problem`, `2 problems`.
pub(super) fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number as u64))
}

/// `there are: a, b`, or that there are none.
pub(super) fn those_there_are<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "there are none".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    }
}

/// `2026-11-22 14:00:00Z (3m ago)`.
pub(super) fn instant(at: Timestamp, now: Timestamp) -> String {
    let date = at.strftime("%Y-%m-%d %H:%M:%SZ");
    format!("{date} ({})", relative(at.duration_since(now)))
}

fn relative(from_now: SignedDuration) -> String {
    let seconds = from_now.as_secs().unsigned_abs();
    let size = match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    };
    if from_now.is_negative() {
        format!("{size} ago")
    } else {
        format!("in {size}")
    }
}

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_a_comma_every_three_digits() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn an_instant_says_how_far_away_it_is() {
        let now: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let shown = |seconds| instant(now + SignedDuration::from_secs(seconds), now);
        assert_eq!(shown(-180), "2026-11-22 13:57:00Z (3m ago)");
        assert_eq!(shown(7_200), "2026-11-22 16:00:00Z (in 2h)");
    }

    #[test]
    fn only_the_words_under_the_column_are_coloured() {
        let text = "run     status    error\nheld@1  held      failed\nü@2     finished";
        let expect = "run     status    error\nheld@1  \u{1b}[33mheld\u{1b}[0m      failed\n\
                      ü@2     \u{1b}[32mfinished\u{1b}[0m";
        assert_eq!(coloured(text, "status"), expect);
        assert_eq!(coloured(text, "nothing"), text);
    }
}
