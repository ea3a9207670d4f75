//! A schedule: from what the campaign file says to fire times.

use super::civil::{self, Edge};
use super::cron::CronLine;
use super::terms::{Blackout, Terms};
use super::{walk, zone};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The fire times of a campaign, and what is done with them.
///
/// Around daylight saving: a slot that the clock jumps over runs once, at the
/// first instant after the jump, and a slot that comes twice runs at the first
/// of the two, also when the hour or minute is a list or a range. Where seconds,
/// minutes or hours begin with `*`, the expression means an interval and runs
/// in both passes of a repeated hour; where the hours do, a jump leaves
/// nothing to make up.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    when: When,
    pub(super) zone: TimeZone,
    /// The first and the last instant at which it may fire.
    starts: Option<Timestamp>,
    ends: Option<Timestamp>,
    terms: Terms,
}

/// What says when it fires.
#[derive(Debug, Clone, PartialEq)]
enum When {
    /// One or more cron expressions.
    Cron(Vec<CronLine>),
    /// So many seconds apart, counted from `starts`, else the epoch.
    Every(i64),
    /// Once, at this time of the zone's clock.
    At(DateTime, Timestamp),
}

/// What a campaign file says of when it fires, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhenText<'a> {
    /// `cron`, at least one.
    Cron(Vec<&'a str>),
    /// `every`, at least a minute.
    Every(Duration),
    /// `at`.
    At(&'a str),
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
    /// The one fire time.
    At,
    /// The time zone.
    Timezone,
    /// The first bound.
    Starts,
    /// The last bound.
    Ends,
}

impl Schedule {
    /// The schedule of cron expressions in a zone, or all that is wrong with
    /// it.
    ///
    /// An expression has five fields, or six with leading seconds.
    pub fn compile(cron: &[String], timezone: &str) -> Result<Self, Vec<ScheduleProblem>> {
        let cron = cron.iter().map(String::as_str).collect();
        Self::of(&WhenText::Cron(cron), timezone, None, None)
    }

    /// The schedule between two bounds, both inclusive, dates or date-times in
    /// the zone; or all that is wrong with it.
    pub fn of(
        when: &WhenText,
        timezone: &str,
        starts: Option<&str>,
        ends: Option<&str>,
    ) -> Result<Self, Vec<ScheduleProblem>> {
        let mut problems = Vec::new();
        let mut note = |part, message| problems.push(ScheduleProblem { part, message });
        let found = zone::find(timezone);
        let zone = found.as_ref().unwrap_or(&TimeZone::UTC).clone();
        let when = When::read(when, &zone, &mut note);
        if let Err(message) = found {
            note(SchedulePart::Timezone, message);
        }
        let mut bound = |text: Option<&str>, edge, part| {
            let found = text.map(|text| civil::bound(text, edge, &zone));
            found.and_then(|found| found.map_err(|message| note(part, message)).ok())
        };
        let starts_at = bound(starts, Edge::First, SchedulePart::Starts);
        let ends_at = bound(ends, Edge::Last, SchedulePart::Ends);
        if let (Some(first), Some(last)) = (starts_at, ends_at)
            && last < first
        {
            let message = "`ends` lies before `starts`, so it never fires".to_owned();
            note(SchedulePart::Ends, message);
        }
        let schedule = match when {
            Some(when) if problems.is_empty() => Self {
                when,
                zone,
                starts: starts_at,
                ends: ends_at,
                terms: Terms::default(),
            },
            _ => return Err(problems),
        };
        match schedule.never_fires() {
            None => Ok(schedule),
            Some(problem) => Err(vec![problem]),
        }
    }

    /// The same fire times under `terms`.
    #[must_use]
    pub fn under(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    /// What is done with its fire times.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What tells this schedule from another: the same for two ways of
    /// writing the same expressions and zone, in whatever order; hexadecimal
    /// SHA-256. Everything that moves fire times is part of it, and nothing
    /// else: not `spread`, `blackout`, `catch_up`, `overlap` or `send_window`.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.to_text()))
    }

    /// Everything that moves its fire times, as [`Self::hash`] has it.
    pub fn to_text(&self) -> String {
        let zone = self.zone.iana_name().unwrap_or_default();
        let mut text = match &self.when {
            When::Cron(lines) => {
                let mut lines: Vec<&str> = lines.iter().map(CronLine::as_str).collect();
                lines.sort_unstable();
                lines.dedup();
                format!("cron\n{}\ntimezone\n{zone}\n", lines.join("\n"))
            }
            When::Every(seconds) => format!("every\n{seconds}\n"),
            When::At(_, at) => format!("at\n{at}\n"),
        };
        for (key, bound) in [("starts", self.starts), ("ends", self.ends)] {
            if let Some(bound) = bound {
                text.push_str(&format!("{key}\n{bound}\n"));
            }
        }
        text
    }

    /// The schedule that [`Self::to_text`] told of; none where the text is not
    /// of that form, or names what this version does not know.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut zone = TimeZone::UTC;
        let when = match lines.next()? {
            "cron" => {
                let named = lines.by_ref().take_while(|line| *line != "timezone");
                let cron: Result<Vec<_>, _> = named.map(CronLine::parse).collect();
                zone = zone::find(lines.next()?).ok()?;
                When::Cron(cron.ok().filter(|cron| !cron.is_empty())?)
            }
            "every" => When::Every(lines.next()?.parse().ok().filter(|period| *period >= 60)?),
            "at" => {
                let at: Timestamp = lines.next()?.parse().ok()?;
                When::At(zone.to_datetime(at), at)
            }
            _ => return None,
        };
        let (mut starts, mut ends) = (None, None);
        while let Some(key) = lines.next() {
            let bound = Some(lines.next()?.parse().ok()?);
            match key {
                "starts" => starts = bound,
                "ends" => ends = bound,
                _ => return None,
            }
        }
        Some(Self {
            when,
            zone,
            starts,
            ends,
            terms: Terms::default(),
        })
    }

    /// The zone the expressions are meant in.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The wall-clock slots it names, where it names any, for the notes on
    /// daylight saving.
    pub(super) fn lines(&self) -> &[CronLine] {
        match &self.when {
            When::Cron(lines) => lines,
            When::Every(_) | When::At(..) => &[],
        }
    }

    /// The first and the last instant at which it may fire.
    pub(super) fn bounds(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.starts, self.ends)
    }

    /// The one instant it fires at, if it is a single one.
    pub(super) fn only(&self) -> Option<Timestamp> {
        match self.when {
            When::At(_, at) => Some(at),
            When::Cron(_) | When::Every(_) => None,
        }
    }

    /// The one wall-clock time it fires at, if it is a single one.
    pub(super) fn single(&self) -> Option<DateTime> {
        match self.when {
            When::At(at, _) => Some(at),
            When::Cron(_) | When::Every(_) => None,
        }
    }

    /// The first fire time strictly after `after`; none where the schedule or
    /// the calendar ends before it.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let before_first = self.starts.map(|first| {
            let second = SignedDuration::from_secs(1);
            first.checked_sub(second).unwrap_or(first)
        });
        let after = before_first.map_or(after, |before| before.max(after));
        let next = match &self.when {
            When::Cron(lines) => lines
                .iter()
                .filter_map(|line| walk::next_after(line, &self.zone, after))
                .min(),
            When::Every(seconds) => {
                let from = self.starts.unwrap_or(Timestamp::UNIX_EPOCH).as_second();
                let passed = (after.as_second() - from).div_euclid(*seconds) + 1;
                Timestamp::from_second(from + passed * seconds).ok()
            }
            When::At(_, at) => Some(*at).filter(|at| *at > after),
        };
        next.filter(|next| self.ends.is_none_or(|last| *next <= last))
    }

    /// When the run of `fire_time` is due.
    pub fn due_at(&self, fire_time: Timestamp) -> Timestamp {
        let due = fire_time.checked_add(self.terms.offset);
        due.unwrap_or(fire_time)
    }

    /// Up to which fire time runs are due at `now`.
    pub(super) fn due_until(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.terms.offset).unwrap_or(now)
    }

    /// Why nothing is run at `fire_time`, if it lies in a blackout.
    pub fn blackout(&self, fire_time: Timestamp) -> Option<String> {
        let dates = self.blackout_dates(fire_time)?;
        Some(format!("the blackout from {} to {}", dates.from, dates.to))
    }

    fn blackout_dates(&self, fire_time: Timestamp) -> Option<&Blackout> {
        let day = self.zone.to_datetime(fire_time).date();
        let mut dates = self.terms.blackout.iter();
        dates.find(|dates| (dates.from..=dates.to).contains(&day))
    }

    /// The first fire time strictly after `after` that lies in no blackout.
    pub fn next_outside_blackouts(&self, after: Timestamp) -> Option<Timestamp> {
        let mut after = after;
        loop {
            let next = self.next_after(after)?;
            let Some(dates) = self.blackout_dates(next) else {
                return Some(next);
            };
            // On to the end of its last day: what lies between may be many.
            let day_after = dates.to.tomorrow().ok()?.to_datetime(Time::midnight());
            let begins = civil::instant(day_after, &self.zone)?;
            let ends = begins.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            after = ends.max(next);
        }
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

    /// The same that lies in no blackout.
    pub(super) fn last_outside_blackouts(
        &self,
        after: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        let mut until = until;
        loop {
            let last = self.last_until(after, until)?;
            let Some(dates) = self.blackout_dates(last) else {
                return Some(last);
            };
            // Back to before its first day: what lies between may be many.
            let first = dates.from.to_datetime(Time::midnight());
            let begins = civil::instant(first, &self.zone)?;
            until = begins
                .checked_sub(SignedDuration::from_nanos(1))
                .ok()?
                .min(last);
            if until < after {
                return None;
            }
        }
    }
}

impl When {
    /// What `text` says; every problem goes to `note`.
    fn read(
        text: &WhenText,
        zone: &TimeZone,
        note: &mut impl FnMut(SchedulePart, String),
    ) -> Option<Self> {
        match text {
            WhenText::Cron(expressions) => {
                if expressions.is_empty() {
                    let message = "the list of cron expressions is empty; give at least one";
                    note(SchedulePart::Cron(0), message.to_owned());
                }
                let mut lines = Vec::with_capacity(expressions.len());
                for (index, expression) in expressions.iter().enumerate() {
                    match CronLine::parse(expression) {
                        Ok(line) => lines.push(line),
                        Err(message) => note(SchedulePart::Cron(index), message),
                    }
                }
                Some(Self::Cron(lines))
            }
            WhenText::Every(period) => {
                let seconds = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
                Some(Self::Every(seconds.clamp(60, MAX_PERIOD)))
            }
            WhenText::At(text) => {
                let at = civil::date_time(text);
                let at = at.map_err(|message| note(SchedulePart::At, message)).ok()?;
                Some(Self::At(at, civil::instant(at, zone)?))
            }
        }
    }
}

/// The longest period, in seconds: a thousand years, far within arithmetic.
const MAX_PERIOD: i64 = 1_000 * 366 * 86_400;
