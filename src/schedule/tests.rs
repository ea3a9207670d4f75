//! Fire times over daylight saving, by tables worked out by hand and by laws.

use super::{Blackout, Schedule, SchedulePart, Terms};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(crons: &[&str], zone: &str) -> Schedule {
    let crons: Vec<String> = crons.iter().map(|&cron| cron.to_owned()).collect();
    Schedule::compile(&crons, zone).unwrap()
}

/// The first fire times of `cron` after `after` are those in `expect`.
#[track_caller]
fn check(zone: &str, cron: &str, after: &str, expect: &[&str]) {
    let found = schedule(&[cron], zone).fire_times(at(after), Timestamp::MAX, expect.len());
    let found: Vec<String> = found.iter().map(Timestamp::to_string).collect();
    assert_eq!(found, expect, "{cron} in {zone}");
}

#[test]
fn a_slot_in_a_gap_runs_once_at_the_first_instant_after() {
    let check =
        |cron, expect: &[&str]| check("Europe/Berlin", cron, "2026-03-28T12:00:00Z", expect);
    check(
        "30 2 * * *",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    );
    check(
        "0,30 2 * * *",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
    );
    check(
        "*/30 2 * * *",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
    );
    check(
        "30 1-3 * * *",
        &[
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z",
            "2026-03-29T23:30:00Z",
        ],
    );
}

#[test]
fn an_interval_makes_up_for_nothing_in_a_gap() {
    let check =
        |cron, expect: &[&str]| check("Europe/Berlin", cron, "2026-03-29T00:10:00Z", expect);
    check(
        "5 * * * *",
        &["2026-03-29T01:05:00Z", "2026-03-29T02:05:00Z"],
    );
    check(
        "*/30 * * * *",
        &[
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z",
        ],
    );
}

#[test]
fn a_slot_in_an_overlap_runs_once_also_in_lists_and_ranges() {
    let check = |cron, after, expect: &[&str]| check("Europe/Berlin", cron, after, expect);
    check(
        "30 2 * * *",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    );
    check(
        "0,30 1-3 * * *",
        "2026-10-24T22:30:00Z",
        &[
            "2026-10-24T23:00:00Z",
            "2026-10-24T23:30:00Z",
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T02:00:00Z",
            "2026-10-25T02:30:00Z",
            "2026-10-26T00:00:00Z",
        ],
    );
    check(
        "30 2 * * *",
        "2026-10-25T01:10:00Z",
        &["2026-10-26T01:30:00Z"],
    );
    check(
        "0 3 * * *",
        "2026-10-25T01:10:00Z",
        &["2026-10-25T02:00:00Z"],
    );
    check(
        "0 3 * * *",
        "2026-10-25T01:00:00Z",
        &["2026-10-25T02:00:00Z"],
    );
}

#[test]
fn a_leading_star_repeats_in_an_overlap() {
    for cron in ["*/30 * * * *", "*/30 2-3 * * *", "0,30 */1 * * *"] {
        check(
            "Europe/Berlin",
            cron,
            "2026-10-25T00:00:00Z",
            &[
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00Z",
            ],
        );
    }
}

#[test]
fn new_york_changes_at_two_in_the_morning() {
    let check = |cron, after, expect: &[&str]| check("America/New_York", cron, after, expect);
    check(
        "30 2 * * *",
        "2026-03-08T00:00:00Z",
        &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
    );
    check(
        "30 1 * * *",
        "2026-11-01T00:00:00Z",
        &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
    );
    check(
        "0 * * * *",
        "2026-11-01T04:30:00Z",
        &[
            "2026-11-01T05:00:00Z",
            "2026-11-01T06:00:00Z",
            "2026-11-01T07:00:00Z",
        ],
    );
    check(
        "0 9 * * MON-FRI",
        "2026-10-30T12:00:00Z",
        &["2026-10-30T13:00:00Z", "2026-11-02T14:00:00Z"],
    );
}

#[test]
fn lord_howe_changes_by_half_an_hour() {
    let check = |cron, after, expect: &[&str]| check("Australia/Lord_Howe", cron, after, expect);
    check(
        "45 1 * * *",
        "2026-04-04T00:00:00Z",
        &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
    );
    check(
        "*/15 * * * *",
        "2026-04-04T14:30:00Z",
        &[
            "2026-04-04T14:45:00Z",
            "2026-04-04T15:00:00Z",
            "2026-04-04T15:15:00Z",
            "2026-04-04T15:30:00Z",
        ],
    );
    check(
        "15 2 * * *",
        "2026-10-03T00:00:00Z",
        &["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
    );
}

#[test]
fn troll_changes_by_two_hours() {
    let check = |cron, after, expect: &[&str]| check("Antarctica/Troll", cron, after, expect);
    check(
        "30 1,2 * * *",
        "2026-03-28T12:00:00Z",
        &[
            "2026-03-29T01:00:00Z",
            "2026-03-29T23:30:00Z",
            "2026-03-30T00:30:00Z",
        ],
    );
    check(
        "30 1-2 * * *",
        "2026-10-24T12:00:00Z",
        &[
            "2026-10-24T23:30:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-26T01:30:00Z",
            "2026-10-26T02:30:00Z",
        ],
    );
}

#[test]
fn equal_instants_of_several_expressions_are_one() {
    let schedule = schedule(&["0 9 * * *", "0 9 * * MON", "0 */9 * * *"], "UTC");
    let found = schedule.fire_times(at("2026-11-22T23:00:00Z"), at("2026-11-23T18:00:00Z"), 10);
    let expect = ["00", "09", "18"].map(|hour| at(&format!("2026-11-23T{hour}:00:00Z")));
    assert_eq!(found, expect);
}

#[test]
fn all_that_is_wrong_with_a_schedule_is_said_at_once() {
    let crons = ["61 * * * *", "0 9 * * *", "0 9 30 2 *"].map(str::to_owned);
    let problems = Schedule::compile(&crons, "Europe/Berln").unwrap_err();
    let parts: Vec<SchedulePart> = problems.iter().map(|problem| problem.part).collect();
    let expect = [
        SchedulePart::Cron(0),
        SchedulePart::Cron(2),
        SchedulePart::Timezone,
    ];
    assert_eq!(parts, expect);
    assert!(Schedule::compile(&[], "UTC").is_err());
}

#[test]
fn the_hash_changes_if_and_only_if_the_schedule_does() {
    let hash = |crons: &[&str], zone| schedule(crons, zone).hash();
    let first = hash(&["0 9 * * MON"], "Europe/Berlin");
    assert_eq!(first.len(), 64);
    assert_eq!(first, hash(&["0  0 9 * * mon"], "europe/berlin"));
    assert_ne!(first, hash(&["0 9 * * MON"], "Europe/Paris"));
    assert_ne!(first, hash(&["1 9 * * MON"], "Europe/Berlin"));
    assert_ne!(
        first,
        hash(&["0 9 * * MON", "0 10 * * MON"], "Europe/Berlin")
    );
    assert_eq!(
        hash(&["0 9 * * *", "0 8 * * *"], "UTC"),
        hash(&["0 8 * * *", "0 9 * * *", "0 8 * * *"], "UTC")
    );
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "Africa/Casablanca",
];

fn any_cron() -> impl Strategy<Value = String> {
    let minute = prop::sample::select(vec!["0", "30", "*/20", "5,35", "10-50/20", "*"]);
    let hour = prop::sample::select(vec!["*", "*/2", "0", "1", "2", "1-3", "0,2,3", "23"]);
    let day = prop::sample::select(vec!["* * *", "* * SUN", "1-7 * *", "L 3,10 *", "29 2 *"]);
    (minute, hour, day).prop_map(|(minute, hour, day)| format!("{minute} {hour} {day}"))
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let crons = prop::collection::vec(any_cron(), 1..3);
    (crons, prop::sample::select(ZONES.to_vec()))
        .prop_map(|(crons, zone)| Schedule::compile(&crons, zone).expect("the parts are sound"))
}

/// Within five days of a change of some zone's clocks, 2018 to 2030.
fn any_instant() -> impl Strategy<Value = Timestamp> {
    let day = prop::sample::select(vec![
        "03-08", "03-29", "04-04", "10-03", "10-25", "11-01", "02-26",
    ]);
    (
        2018..2030_i32,
        day,
        -432_000..432_000_i64,
        0..1_000_000_000_i64,
    )
        .prop_map(|(year, day, seconds, nanos)| {
            at(&format!("{year}-{day}T00:00:00Z"))
                + SignedDuration::from_secs(seconds)
                + SignedDuration::from_nanos(nanos)
        })
}

proptest! {
    #[test]
    fn a_fire_time_is_strictly_after_and_the_same_from_wherever_the_search_begins(
        schedule in any_schedule(),
        after in any_instant(),
        share in 0.0..1.0_f64,
    ) {
        let next = schedule.next_after(after).unwrap();
        prop_assert!(next > after);
        let between = after + (next - after).to_duration(jiff::civil::date(2020, 1, 1)).unwrap().mul_f64(share);
        if between < next {
            prop_assert_eq!(schedule.next_after(between), Some(next));
        }
        let just_before = next - SignedDuration::from_nanos(1);
        prop_assert_eq!(schedule.next_after(just_before), Some(next));
    }

    #[test]
    fn fire_times_are_the_same_one_by_one_and_in_a_range_cut_anywhere(
        schedule in any_schedule(),
        after in any_instant(),
        first_hours in 0..72_i64,
        more_hours in 0..72_i64,
    ) {
        let middle = after + SignedDuration::from_hours(first_hours);
        let until = middle + SignedDuration::from_hours(more_hours);
        let whole = schedule.fire_times(after, until, usize::MAX);
        prop_assert!(whole.windows(2).all(|pair| pair[0] < pair[1]), "out of order or twice");
        let mut halves = schedule.fire_times(after, middle, usize::MAX);
        halves.extend(schedule.fire_times(middle, until, usize::MAX));
        prop_assert_eq!(&whole, &halves);
        prop_assert_eq!(whole.last().copied(), schedule.last_until(after, until));
    }
}

#[test]
fn the_fire_times_next_to_a_blackout_are_found_however_many_lie_in_it() {
    let day = |day| jiff::civil::date(2026, 11, day);
    let schedule = Schedule::compile(&["* * * * * *".to_owned()], "Europe/Berlin")
        .unwrap()
        .under(Terms {
            blackout: vec![
                Blackout {
                    from: day(10),
                    to: day(15),
                },
                Blackout {
                    from: day(16),
                    to: day(30),
                },
            ],
            ..Terms::default()
        });
    let (before, after) = (at("2026-11-09T22:59:59Z"), at("2026-11-30T23:00:00Z"));
    let within = at("2026-11-12T12:00:00Z");
    assert_eq!(schedule.next_outside_blackouts(within), Some(after));
    assert_eq!(
        schedule.next_outside_blackouts(after - SignedDuration::from_secs(1)),
        Some(after)
    );
    let since = at("2026-11-01T00:00:00Z");
    assert_eq!(schedule.last_outside_blackouts(since, within), Some(before));
    assert_eq!(schedule.last_outside_blackouts(before, within), None);
}
