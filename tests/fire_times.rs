//! Fire times compared with an independent implementation, every difference
//! explained by a rule of ours and counted.

use campaignd::schedule::Schedule;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// See `generate.py` beside it for where it comes from.
const PAIRS: &str = include_str!("fixtures/fire_times/fire_times.tsv");

/// Why a fire time of ours and theirs may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Theirs takes a leading `*` of the minutes for an interval, which makes
    /// up for nothing in a gap; ours makes up for an hour that is named.
    MadeUpAfterAGap,
    /// After a change by half an hour theirs leaves out a slot of an interval
    /// which the wall clock does show, once; ours runs every slot it shows.
    ShownAfterHalfAnHour,
}

#[test]
fn fire_times_agree_with_an_independent_implementation_but_for_stated_rules() {
    let mut pairs = 0;
    let mut at_a_change = 0;
    let mut differences = BTreeMap::new();
    let mut unexplained = Vec::new();
    for row in PAIRS.lines() {
        let mut fields = row.split('\t');
        let (cron, name) = (fields.next().unwrap(), fields.next().unwrap());
        let times: Vec<Timestamp> = fields.map(instant).collect();
        let (start, theirs) = times.split_first().unwrap();
        let schedule = Schedule::compile(&[cron.to_owned()], name).unwrap();
        let zone = schedule.zone();
        let ours = schedule.fire_times(*start, Timestamp::MAX, theirs.len());
        pairs += 1;
        let last = ours.last().unwrap().min(theirs.last().unwrap());
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
    assert!(
        pairs >= 1_000 && at_a_change >= 200,
        "{pairs}, {at_a_change}"
    );
    assert_eq!(
        differences,
        BTreeMap::from([
            (Difference::MadeUpAfterAGap, 9),
            (Difference::ShownAfterHalfAnHour, 5)
        ])
    );
}

/// The rule by which `at` is a fire time of one and not of the other.
fn explain(cron: &str, zone: &TimeZone, at: Timestamp, is_ours: bool) -> Option<Difference> {
    let mut fields = cron.split(' ');
    let (minute, hour) = (fields.next()?, fields.next()?);
    let before = at - SignedDuration::from_secs(1);
    let jumps = zone.to_offset(at) > zone.to_offset(before);
    let is_interval = minute.starts_with('*') || hour.starts_with('*');
    if is_ours && jumps && is_interval && !hour.starts_with('*') {
        return Some(Difference::MadeUpAfterAGap);
    }
    let change = zone.preceding(at).next()?.timestamp();
    let earlier = change - SignedDuration::from_secs(1);
    let shift = zone.to_offset(change).seconds() - zone.to_offset(earlier).seconds();
    let is_near = at < change + SignedDuration::from_hours(6);
    let shown = TimeZone::UTC.to_timestamp(zone.to_datetime(at)).ok()?;
    let on_its_wall = Schedule::compile(&[cron.to_owned()], "UTC").ok()?;
    let second = SignedDuration::from_secs(1);
    let is_slot = on_its_wall.next_after(shown - second) == Some(shown);
    (is_ours && is_interval && shift.abs() == 1_800 && is_near && is_slot)
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
