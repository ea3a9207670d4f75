//! A schedule: from what the campaign file says to fire times.

use super::cron::CronLine;
use super::walk;
use super::zone;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The fire times of a campaign: one or more cron expressions in a time zone.
///
/// Around daylight saving: a slot that the clock jumps over runs once, at the
/// first instant after the jump, and a slot that comes twice runs at the first
/// of the two, also when the hour or minute is a list or a range. Where seconds,
/// minutes or hours begin with `*`, the expression means an interval and runs
/// in both passes of a repeated hour; where the hours do, a jump leaves
/// nothing to make up.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    lines: Vec<CronLine>,
    zone: TimeZone,
}

/// One thing wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScheduleProblem {
    /// Where.
    pub part: SchedulePart,
    /// What, and what would be right.
    pub message: String,
}

/// A part of the schedule that can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulePart {
    /// The cron expression at this index of the list.
    Cron(usize),
    /// The time zone.
    Timezone,
}

impl Schedule {
    /// The schedule, or all that is wrong with it.
    ///
    /// An expression has five fields, or six with leading seconds.
    pub fn compile(cron: &[String], timezone: &str) -> Result<Self, Vec<ScheduleProblem>> {
        let mut problems = Vec::new();
        let mut lines = Vec::with_capacity(cron.len());
        if cron.is_empty() {
            let message = "the list of cron expressions is empty; give at least one".to_owned();
            let part = SchedulePart::Cron(0);
            problems.push(ScheduleProblem { part, message });
        }
        for (index, expression) in cron.iter().enumerate() {
            match CronLine::parse(expression) {
                Ok(line) => lines.push(line),
                Err(message) => {
                    let part = SchedulePart::Cron(index);
                    problems.push(ScheduleProblem { part, message });
                }
            }
        }
        match zone::find(timezone) {
            Ok(zone) if problems.is_empty() => Ok(Self { lines, zone }),
            Ok(_) => Err(problems),
            Err(message) => {
                let part = SchedulePart::Timezone;
                problems.push(ScheduleProblem { part, message });
                Err(problems)
            }
        }
    }

    /// What tells this schedule from another: the same for two ways of
    /// writing the same expressions and zone, in whatever order; hexadecimal
    /// SHA-256.
    pub fn hash(&self) -> String {
        let mut lines: Vec<&str> = self.lines.iter().map(CronLine::as_str).collect();
        lines.sort_unstable();
        lines.dedup();
        let zone = self.zone.iana_name().unwrap_or_default();
        let text = format!("cron\n{}\ntimezone\n{zone}\n", lines.join("\n"));
        Sha256::digest(text)
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
                hex
            })
    }

    /// The zone the expressions are meant in.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first fire time strictly after `after`; none where the calendar
    /// ends before it.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.lines
            .iter()
            .filter_map(|line| walk::next_after(line, &self.zone, after))
            .min()
    }

    /// The fire times after `after` up to and including `until`: the first
    /// `limit` of them, in order, none twice.
    pub fn fire_times(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
            .take_while(|fire_time| *fire_time <= until)
            .take(limit)
            .collect()
    }

    /// The newest fire time after `after` up to and including `until`.
    pub(super) fn last_until(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let mut window = jiff::SignedDuration::from_mins(1);
        loop {
            // Looks back further each time: the search knows only forward,
            // and what lies between may be millions.
            let from = until.checked_sub(window).unwrap_or(after).max(after);
            let found = std::iter::successors(self.next_after(from), |last| self.next_after(*last))
                .take_while(|fire_time| *fire_time <= until)
                .last();
            if found.is_some() || from == after {
                return found;
            }
            window = window.saturating_add(window);
        }
    }
}
