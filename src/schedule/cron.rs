//! One cron expression, checked.

use super::fields;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, date};

/// A cron expression that fires at least once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CronLine {
    cron: Cron,
    /// Six fields in capitals, one space between: how two ways of writing the
    /// same are recognised.
    text: String,
    /// Whether seconds, minutes or hours begin with `*`: an interval, which
    /// runs in both passes of a repeated hour.
    pub(super) repeats: bool,
    /// Whether the hours do not begin with `*`: a slot of the day, which is
    /// made up for where the clock jumps over it.
    pub(super) names_hours: bool,
}

/// From here croner searches up to its last year, 5000: 400 years, after which
/// dates and weekdays come in the same order again.
const CYCLE_START: DateTime = date(4600, 1, 1).at(0, 0, 0, 0);

impl CronLine {
    /// The expression, or what is wrong with it.
    pub(super) fn parse(expression: &str) -> Result<Self, String> {
        let fields = fields::split(expression)?;
        let text = fields.join(" ");
        let cron = parser()
            .parse(&text)
            .map_err(|_| fields::blame(expression, &fields))?;
        let line = Self {
            cron,
            repeats: fields[..3].iter().any(|field| field.starts_with('*')),
            names_hours: !fields[2].starts_with('*'),
            text,
        };
        match line.next_slot(CYCLE_START, true) {
            Some(_) => Ok(line),
            None => Err(format!("`{expression}` never fires: no date matches it")),
        }
    }

    /// The expression in its one spelling.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The first matching wall-clock time after `from`, or at it if
    /// `inclusive`, on a clock that never jumps.
    pub(super) fn next_slot(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        self.cron.find_next_occurrence(&from, inclusive).ok()
    }
}

/// Six fields, no year.
pub(super) fn parser() -> CronParser {
    CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Disallowed)
        .build()
}
