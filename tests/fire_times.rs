//! Fire times compared with an independent implementation, every difference
//! explained by a rule of ours and counted.

use campaignd::schedule::Schedule;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// See `generate.py` beside it for where it comes from.
const ROWS: &str = include_str!("fixtures/fire_times/fire_times.tsv");

/// Why a fire time of ours and theirs may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Theirs takes a leading `*` of the minutes for an interval, which makes
    /// up for nothing in a gap; ours makes up for an hour that is named.
    MadeUpAfterAGap,
    /// The same where seconds are given: theirs takes all six fields for an
    /// interval then, whatever they begin with.
    MadeUpWithSeconds,
    /// For the same reason theirs runs a slot with seconds again when the
    /// clock goes back; ours runs it once.
    AgainWithSeconds,
    /// After a change by half an hour theirs leaves out a slot of an interval
    /// which the wall clock does show, once; ours runs every slot it shows.
    ShownAfterHalfAnHour,
}

#[test]
fn fire_times_agree_with_an_independent_implementation_but_for_stated_rules() {
    let mut rows = 0;
    let mut pairs = BTreeSet::new();
    let mut at_a_change = 0;
    let mut differences = BTreeMap::new();
    let mut unexplained = Vec::new();
    for row in ROWS.lines() {
        let mut fields = row.split('\t');
        let (cron, name) = (fields.next().unwrap(), fields.next().unwrap());
        let times: Vec<Timestamp> = fields.map(instant).collect();
        let (start, theirs) = times.split_first().unwrap();
        let schedule = Schedule::compile(&[cron.to_owned()], name).unwrap();
        let zone = schedule.zone();
        let ours = schedule.fire_times(*start, Timestamp::MAX, theirs.len());
        rows += 1;
        pairs.insert((cron, name));
        let last = ours.last().min(theirs.last()).unwrap();
        let near = *start + SignedDuration::from_hours(72);
        at_a_change += usize::from(
            zone.following(*start)
                .next()
                .is_some_and(|c| c.timestamp() < near),
        );
        let until = |times: &[Timestamp]| -> BTreeSet<Timestamp> {
            times.iter().copied().filter(|at| at <= last).collect()
        };
        for at in until(&ours).symmetric_difference(&until(theirs)) {
            match explain(cron, zone, *at, ours.contains(at)) {
                Some(difference) => *differences.entry(difference).or_insert(0) += 1,
                None => unexplained.push(format!("{row}\n  differs at {at}; ours: {ours:?}")),
            }
        }
    }
    let count = unexplained.len();
    unexplained.truncate(12);
    assert!(
        count == 0,
        "{count} unexplained:\n{}",
        unexplained.join("\n")
    );
    assert_eq!((rows, pairs.len(), at_a_change), (3_398, 1_792, 1_639));
    assert_eq!(
        differences,
        BTreeMap::from([
            (Difference::MadeUpAfterAGap, 11),
            (Difference::MadeUpWithSeconds, 22),
            (Difference::AgainWithSeconds, 20),
            (Difference::ShownAfterHalfAnHour, 15)
        ])
    );
}

/// The rule by which `at` is a fire time of one and not of the other.
fn explain(cron: &str, zone: &TimeZone, at: Timestamp, is_ours: bool) -> Option<Difference> {
    let mut fields: Vec<&str> = cron.split(' ').collect();
    let has_seconds = fields.len() == 6;
    if !has_seconds {
        fields.insert(0, "0");
    }
    let second = SignedDuration::from_secs(1);
    let jumps = zone.to_offset(at) > zone.to_offset(at - second);
    let repeats = fields[..3].iter().any(|field| field.starts_with('*'));
    if is_ours && jumps && !fields[2].starts_with('*') && (repeats || has_seconds) {
        return Some(match has_seconds {
            true => Difference::MadeUpWithSeconds,
            false => Difference::MadeUpAfterAGap,
        });
    }
    let change = zone.preceding(at + second).next()?.timestamp();
    let shift = zone.to_offset(change).seconds() - zone.to_offset(change - second).seconds();
    let goes_back = SignedDuration::from_secs(i64::from(-shift));
    if !is_ours && has_seconds && !repeats && at < change + goes_back {
        return Some(Difference::AgainWithSeconds);
    }
    let is_near = at < change + SignedDuration::from_hours(24);
    let shown = TimeZone::UTC.to_timestamp(zone.to_datetime(at)).ok()?;
    let on_its_wall = Schedule::compile(&[cron.to_owned()], "UTC").ok()?;
    let is_slot = on_its_wall.next_after(shown - second) == Some(shown);
    (is_ours && (repeats || has_seconds) && shift.abs() == 1_800 && is_near && is_slot)
        .then_some(Difference::ShownAfterHalfAnHour)
}

/// The instant of a field like `2026-03-29T01:00Z`.
fn instant(text: &str) -> Timestamp {
    let at: DateTime = text
        .trim_end_matches('Z')
        .parse()
        .expect("a UTC date and time");
    TimeZone::UTC.to_timestamp(at).expect("a UTC date and time")
}
