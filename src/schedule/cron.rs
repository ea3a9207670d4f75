//! One cron expression, checked.

use super::fields;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, date};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// A cron expression that fires at least once; clones are the same.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CronLine(Arc<Parsed>);

#[derive(Debug, PartialEq)]
struct Parsed {
    cron: Cron,
    /// Six fields in capitals, one space between: how two ways of writing the
    /// same are recognised.
    text: String,
    repeats: bool,
    names_hours: bool,
}

/// The expressions in use: croner takes over 5 KiB for each, and a folder of
/// thousands of campaigns has few different ones.
static IN_USE: LazyLock<Mutex<HashMap<String, Weak<Parsed>>>> = LazyLock::new(Mutex::default);

/// From here croner searches up to its last year, 5000: 400 years, after which
/// dates and weekdays come in the same order again.
const CYCLE_START: DateTime = date(4600, 1, 1).at(0, 0, 0, 0);

impl CronLine {
    /// The expression, or what is wrong with it.
    pub(super) fn parse(expression: &str) -> Result<Self, String> {
        let fields = fields::split(expression)?;
        let text = fields.join(" ");
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = in_use.get(&text).and_then(Weak::upgrade) {
            return Ok(Self(known));
        }
        let cron = parser()
            .parse(&text)
            .map_err(|_| fields::blame(expression, &fields))?;
        let line = Self(Arc::new(Parsed {
            cron,
            repeats: fields[..3].iter().any(|field| field.starts_with('*')),
            names_hours: !fields[2].starts_with('*'),
            text: text.clone(),
        }));
        if line.next_slot(CYCLE_START, true).is_none() {
            return Err(format!("`{expression}` never fires: no date matches it"));
        }
        if in_use.len() == in_use.capacity() {
            in_use.retain(|_, line| line.strong_count() > 0);
        }
        in_use.insert(text, Arc::downgrade(&line.0));
        Ok(line)
    }

    /// The expression in its one spelling.
    pub(super) fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether seconds, minutes or hours begin with `*`: an interval, which
    /// runs in both passes of a repeated hour.
    pub(super) fn repeats(&self) -> bool {
        self.0.repeats
    }

    /// Whether the hours do not begin with `*`: a slot of the day, which is
    /// made up for where the clock jumps over it.
    pub(super) fn names_hours(&self) -> bool {
        self.0.names_hours
    }

    /// The first matching wall-clock time after `from`, or at it if
    /// `inclusive`, on a clock that never jumps.
    pub(super) fn next_slot(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        self.0.cron.find_next_occurrence(&from, inclusive).ok()
    }
}

/// Six fields, no year.
pub(super) fn parser() -> CronParser {
    CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Disallowed)
        .build()
}
