//! Laws of wall-clock times near the changes of a clock, held against a naive
//! look at every minute.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use campaignd::schedule::{Schedule, SendWindow, WhenText};
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

/// Clocks that change by an hour, half an hour, two hours, a whole day; at
/// midnight; several times a year; and one that does not.
const ZONES: [&str; 10] = [
    "Europe/Berlin",
    "Europe/Dublin",
    "America/Havana",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Pacific/Apia",
    "Asia/Kolkata",
];

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// How long is looked.
const DAYS: i64 = 4;

/// One field of an expression, and what it lets through.
#[derive(Debug, Clone)]
struct Field {
    text: String,
    values: BTreeSet<u8>,
}

impl Field {
    fn has_star(&self) -> bool {
        self.text.starts_with('*')
    }
}

/// A number, a list, a range, a range in steps, or an interval, below `end`.
fn field(end: u8) -> impl Strategy<Value = Field> {
    let one = |text: String, values: BTreeSet<u8>| Field { text, values };
    let list = prop::collection::btree_set(0..end, 1..4).prop_map(move |values| {
        let texts: Vec<String> = values.iter().map(u8::to_string).collect();
        one(texts.join(","), values)
    });
    let range = (0..end - 1, 1..end, 1..4_u8).prop_map(move |(from, length, step)| {
        let to = from.saturating_add(length).min(end - 1);
        let values = (from..=to).step_by(usize::from(step)).collect();
        let text = match step {
            1 => format!("{from}-{to}"),
            step => format!("{from}-{to}/{step}"),
        };
        one(text, values)
    });
    // Near the changes of most clocks.
    let early = (0..3_u8, 1..4_u8).prop_map(move |(from, length)| {
        let to = from + length;
        one(format!("{from}-{to}"), (from..=to).collect())
    });
    let interval = (1..end / 2).prop_map(move |step| {
        let text = format!("*/{step}");
        one(text, (0..end).step_by(usize::from(step)).collect())
    });
    prop_oneof![3 => list, 2 => range, 3 => early, 2 => interval]
}

/// An instant up to a day and a half before a change of the clock of a zone,
/// or any instant, between 2008 and 2026.
fn place() -> impl Strategy<Value = (TimeZone, &'static str, Timestamp)> {
    let place = (0..ZONES.len(), 0..60_usize, 0..2_160_i64);
    place.prop_map(|(zone, change, minutes)| {
        let name = ZONES[zone];
        let zone = TimeZone::get(name).unwrap();
        let from: Timestamp = "2008-01-01T00:00:00Z".parse().unwrap();
        let until: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let changes: Vec<Timestamp> = zone
            .following(from)
            .map(|change| change.timestamp())
            .take_while(|at| *at < until)
            .collect();
        let at = match changes.is_empty() {
            true => from + SignedDuration::from_hours(2_000 * i64::try_from(change).unwrap()),
            false => changes[change % changes.len()],
        };
        (zone, name, at - MINUTE * i32::try_from(minutes).unwrap())
    })
}

/// The instants of every minute that a clock shows, with what it shows.
fn minutes(zone: &TimeZone, since: Timestamp) -> Vec<(Timestamp, DateTime)> {
    let first = since.as_second().div_euclid(60) + 1;
    let minutes = first..first + DAYS * 24 * 60;
    let instants = minutes.map(|minute| Timestamp::from_second(minute * 60).unwrap());
    instants.map(|at| (at, zone.to_datetime(at))).collect()
}

/// What the stated rules make of an expression, found minute by minute.
fn naive(
    (minute, hour, days): (&Field, &Field, &[Weekday]),
    zone: &TimeZone,
    since: Timestamp,
) -> BTreeSet<Timestamp> {
    let is_slot = |shown: DateTime| {
        minute
            .values
            .contains(&u8::try_from(shown.minute()).unwrap())
            && hour.values.contains(&u8::try_from(shown.hour()).unwrap())
            && days.contains(&shown.weekday())
    };
    let repeats = minute.has_star() || hour.has_star();
    let mut found = BTreeSet::new();
    // The clock may have gone back shortly before.
    let early = since - SignedDuration::from_hours(26);
    let mut shown_before: BTreeSet<DateTime> = minutes(zone, early)
        .into_iter()
        .filter(|(at, _)| *at <= since)
        .map(|(_, shown)| shown)
        .collect();
    let mut last = zone.to_datetime(minutes(zone, since)[0].0 - MINUTE);
    for (at, shown) in minutes(zone, since) {
        let is_first = shown_before.insert(shown);
        if is_slot(shown) && (repeats || is_first) {
            found.insert(at);
        }
        // What the clock jumps over is made up for where hours are named.
        let mut missing = last + MINUTE;
        while missing < shown {
            if !hour.has_star() && is_slot(missing) {
                found.insert(at);
            }
            missing += MINUTE;
        }
        last = shown;
    }
    found
}

proptest! {
    #[test]
    fn every_slot_the_clock_shows_or_jumps_over_has_its_fire_time(
        (zone, name, since) in place(),
        (minute, hour) in (field(60), field(24)),
        days in prop::collection::btree_set(0..7_i8, 1..7),
        all_days in any::<bool>(),
    ) {
        let days: Vec<i8> = if all_days { (0..7).collect() } else { days.into_iter().collect() };
        let text: Vec<String> = days.iter().map(i8::to_string).collect();
        let weekdays = if all_days { "*".to_owned() } else { text.join(",") };
        let days: Vec<Weekday> = days.iter().map(|day| Weekday::from_sunday_zero_offset(*day).unwrap()).collect();
        let cron = format!("{} {} * * {weekdays}", minute.text, hour.text);
        let schedule = Schedule::compile(std::slice::from_ref(&cron), name).unwrap();
        let until = minutes(&zone, since).last().unwrap().0;
        let ours = schedule.fire_times(since, until, usize::MAX);
        let expect = naive((&minute, &hour, &days), &zone, since);
        prop_assert_eq!(ours, expect.into_iter().collect::<Vec<_>>(), "{} {} {}", cron, name, since);
    }

    #[test]
    fn fire_times_are_the_same_from_wherever_the_search_begins(
        (zone, name, since) in place(),
        (minute, hour) in (field(60), field(24)),
        from in 0..(DAYS * 24 * 3_600),
    ) {
        let cron = format!("{} {} * * *", minute.text, hour.text);
        let schedule = Schedule::compile(&[cron], name).unwrap();
        let until = minutes(&zone, since).last().unwrap().0;
        let from = since + SignedDuration::from_secs(from);
        let mut later = schedule.fire_times(since, until, usize::MAX);
        later.retain(|at| *at > from);
        prop_assert_eq!(schedule.fire_times(from, until, usize::MAX), later);
    }

    #[test]
    fn several_expressions_fire_when_any_does_and_equal_instants_are_one(
        (zone, name, since) in place(),
        fields in prop::collection::vec((field(60), field(24)), 1..4),
    ) {
        let crons: Vec<String> = fields
            .iter()
            .map(|(minute, hour)| format!("{} {} * * *", minute.text, hour.text))
            .collect();
        let until = minutes(&zone, since).last().unwrap().0;
        let times = |crons: &[String]| {
            let schedule = Schedule::compile(crons, name).unwrap();
            schedule.fire_times(since, until, usize::MAX)
        };
        let each = crons.iter().flat_map(|cron| times(std::slice::from_ref(cron)));
        let each: BTreeSet<Timestamp> = each.collect();
        prop_assert_eq!(times(&crons), each.into_iter().collect::<Vec<_>>());
        let mut turned = crons.clone();
        turned.reverse();
        let hash = |crons: &[String]| Schedule::compile(crons, name).unwrap().hash();
        prop_assert_eq!(hash(&crons), hash(&turned));
    }

    #[test]
    fn every_counts_from_its_start_and_heeds_no_clock(
        (zone, name, since) in place(),
        (period, first) in (1..2_000_u64, 0..(DAYS * 24 * 60)),
    ) {
        let (_, shown) = minutes(&zone, since)[usize::try_from(first).unwrap()];
        let starts = shown.strftime("%Y-%m-%dT%H:%M").to_string();
        let every = WhenText::Every(Duration::from_secs(60 * period));
        let schedule = Schedule::of(&every, name, Some(&starts), None).unwrap();
        let times = schedule.fire_times(since - SignedDuration::from_hours(48), Timestamp::MAX, 20);
        let start = zone.to_ambiguous_timestamp(shown).earlier().unwrap();
        prop_assert_eq!(times[0], start);
        for pair in times.windows(2) {
            prop_assert_eq!(pair[1].duration_since(pair[0]), MINUTE * i32::try_from(period).unwrap());
        }
    }

    #[test]
    fn a_send_window_opens_at_no_later_minute_than_the_clock_says(
        (zone, name, since) in place(),
        (from, to) in (0..1_440_u16, 0..1_440_u16),
    ) {
        prop_assume!(from != to);
        let text = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let window = SendWindow::parse(&text(from), &text(to), name).unwrap();
        let is_open = |shown: DateTime| {
            let minute = u16::try_from(shown.hour()).unwrap() * 60 + u16::try_from(shown.minute()).unwrap();
            match from < to {
                true => (from..to).contains(&minute),
                false => minute >= from || minute < to,
            }
        };
        let mut told = None;
        for (at, shown) in minutes(&zone, since) {
            let opens_at = window.opens_at(at);
            prop_assert_eq!(opens_at.is_none(), is_open(shown), "{} shows {}", at, shown);
            if let Some(next) = told.filter(|_| opens_at.is_none()) {
                prop_assert!(next <= at, "open at {}, told {}", at, next);
            }
            prop_assert!(opens_at.is_none_or(|next| next > at));
            told = opens_at;
        }
    }
}
