//! Laws of what becomes of fire times.

use campaignd::schedule::{
    Blackout, CatchUp, Due, Schedule, Seen, Terms, WhenText, due, spread_offset,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

proptest! {
    #[test]
    fn each_fire_time_of_a_look_has_one_fate_and_none_runs_in_a_blackout(
        minute in 0..60_u8,
        start in 1_735_689_600..1_798_761_600_i64,
        hours in 1..240_i64,
        (first, days) in (0..8_i64, 0..4_i64),
        runs_none in any::<bool>(),
    ) {
        let since = Timestamp::from_second(start).unwrap();
        let now = since + SignedDuration::from_hours(hours);
        let cron = format!("{minute} */3 * * *");
        let plain = Schedule::compile(&[cron], "Europe/Berlin").unwrap();
        let day = |n: i64| plain.zone().to_datetime(since + SignedDuration::from_hours(24 * n)).date();
        let blackout = Blackout { from: day(first), to: day(first + days) };
        let catch_up = if runs_none { CatchUp::None } else { CatchUp::Latest };
        let schedule = plain.clone().under(Terms { catch_up, blackout: vec![blackout], ..Terms::default() });
        let hash = schedule.hash();
        let look = due(&schedule, Some(Seen { schedule_hash: &hash, seen_until: since }), now, false);
        let taken: Vec<Timestamp> = look.due.iter().map(Due::fire_time).collect();
        prop_assert_eq!(taken, plain.fire_times(since, now, usize::MAX));
        prop_assert_eq!(look.seen_until, now);
        let runs: Vec<Timestamp> = look.due.iter()
            .filter(|due| matches!(due, Due::Run(_))).map(Due::fire_time).collect();
        prop_assert!(runs.len() <= 1);
        for at in runs {
            let date = plain.zone().to_datetime(at).date();
            prop_assert!(!(blackout.from..=blackout.to).contains(&date));
        }
    }
}

/// Zones that change by an hour, half an hour and two hours, and one that does
/// not.
const ZONES: [&str; 5] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Asia/Kolkata",
];

/// An expression of fixed slots, lists, ranges or intervals.
fn cron() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        (0..60_u8).prop_map(|m| m.to_string()),
        (0..30_u8, 30..60_u8).prop_map(|(a, b)| format!("{a},{b}")),
        Just("*/15".to_owned()),
    ];
    let hour = prop_oneof![
        (0..24_u8).prop_map(|h| h.to_string()),
        (0..4_u8, 4..24_u8).prop_map(|(a, b)| format!("{a}-{b}")),
        Just("*".to_owned()),
        Just("*/2".to_owned()),
    ];
    (minute, hour).prop_map(|(minute, hour)| format!("{minute} {hour} * * *"))
}

/// An instant of 2025 or 2026, half of the time within two days before the
/// clocks change somewhere.
fn instant() -> impl Strategy<Value = Timestamp> {
    let changes = prop_oneof![
        Just("2025-03-30T01:00:00Z"),
        Just("2025-10-26T01:00:00Z"),
        Just("2026-03-08T07:00:00Z"),
        Just("2026-11-01T06:00:00Z"),
        Just("2026-04-04T15:00:00Z"),
        Just("2026-10-03T15:30:00Z"),
    ];
    let near = (changes, 0..2_880_i64).prop_map(|(change, minutes)| {
        change.parse::<Timestamp>().expect("an instant") - SignedDuration::from_mins(minutes)
    });
    let any = (1_735_689_600..1_798_761_600_i64)
        .prop_map(|second| Timestamp::from_second(second).expect("an instant"));
    prop_oneof![near, any]
}

/// What became of the fire times of a look, and the cursor it leaves.
fn look(
    schedule: &Schedule,
    seen_until: Timestamp,
    now: Timestamp,
) -> (Vec<(Timestamp, bool)>, Timestamp) {
    let hash = schedule.hash();
    let seen = Seen {
        schedule_hash: &hash,
        seen_until,
    };
    let look = due(schedule, Some(seen), now, false);
    let fates = look.due.iter();
    let fates = fates.map(|due| (due.fire_time(), matches!(due, Due::Run(_))));
    (fates.collect(), look.seen_until)
}

proptest! {
    #[test]
    fn fire_times_ascend_within_their_bounds(
        cron in cron(),
        zone in 0..ZONES.len(),
        since in instant(),
        (first, days) in (0..5_i64, 0..5_i64),
    ) {
        let zone = ZONES[zone];
        let plain = Schedule::compile(std::slice::from_ref(&cron), zone).unwrap();
        let day = |n: i64| {
            let at = since + SignedDuration::from_hours(24 * n);
            plain.zone().to_datetime(at).date().to_string()
        };
        let (starts, ends) = (day(first), day(first + days));
        let when = WhenText::Cron(vec![&cron]);
        let bounded = Schedule::of(&when, zone, Some(&starts), Some(&ends)).unwrap();
        let until = since + SignedDuration::from_hours(24 * 12);
        let all = plain.fire_times(since, until, usize::MAX);
        prop_assert!(all.is_sorted_by(|a, b| a < b));
        let is_within = |at: &Timestamp| {
            let date = plain.zone().to_datetime(*at).date().to_string();
            (starts.clone()..=ends.clone()).contains(&date)
        };
        let within: Vec<Timestamp> = all.into_iter().filter(is_within).collect();
        prop_assert_eq!(bounded.fire_times(since, until, usize::MAX), within);
    }

    #[test]
    fn looks_at_whatever_instants_take_each_fire_time_once(
        cron in cron(),
        zone in 0..ZONES.len(),
        since in instant(),
        mut cuts in prop::collection::vec(0..14_400_i64, 0..8),
        spread in 0..7_200_u64,
    ) {
        let offset = Duration::from_secs(spread);
        let schedule = Schedule::compile(&[cron], ZONES[zone]).unwrap()
            .under(Terms { offset, ..Terms::default() });
        cuts.push(14_400);
        // Also where the clock is set back in between.
        let mut seen_until = since;
        let mut taken = Vec::new();
        for cut in cuts {
            let now = since + SignedDuration::from_mins(cut);
            let (fates, after) = look(&schedule, seen_until, now);
            prop_assert!(after >= seen_until);
            seen_until = after;
            taken.extend(fates.into_iter().map(|(at, _)| at));
        }
        let end = since + SignedDuration::from_mins(14_400) - SignedDuration::try_from(offset).unwrap();
        prop_assert_eq!(taken, schedule.fire_times(since, end, usize::MAX));
    }

    #[test]
    fn a_fixed_slot_comes_once_a_day_whatever_the_clocks_do(
        (minute, hour) in (0..60_u8, 0..24_u8),
        zone in 0..ZONES.len(),
        since in instant(),
    ) {
        let schedule = Schedule::compile(&[format!("{minute} {hour} * * *")], ZONES[zone]).unwrap();
        let zone = schedule.zone();
        let first = zone.to_datetime(since).date().tomorrow().unwrap();
        let mut day = first;
        let mut expect = Vec::new();
        for _ in 0..5 {
            let slot = day.at(i8::try_from(hour).unwrap(), i8::try_from(minute).unwrap(), 0, 0);
            let found = zone.to_ambiguous_timestamp(slot);
            // In a gap the instant after it, in an overlap the first of the two.
            expect.push(match found.offset() {
                jiff::tz::AmbiguousOffset::Gap { .. } => {
                    let later = found.later().unwrap();
                    let jump = zone.preceding(later + SignedDuration::from_secs(1)).next();
                    jump.unwrap().timestamp()
                }
                _ => found.earlier().unwrap(),
            });
            day = day.tomorrow().unwrap();
        }
        let start = zone.to_timestamp(first.at(0, 0, 0, 0)).unwrap() - SignedDuration::from_secs(1);
        prop_assert_eq!(schedule.fire_times(start, Timestamp::MAX, 5), expect);
    }

    #[test]
    fn what_catch_up_latest_runs_is_among_what_all_would_run_and_none_runs_less(
        cron in cron(),
        zone in 0..ZONES.len(),
        since in instant(),
        minutes in 1..2_880_i64,
        within in prop::option::of(1..600_u64),
    ) {
        let plain = Schedule::compile(&[cron], ZONES[zone]).unwrap();
        let now = since + SignedDuration::from_mins(minutes);
        let runs = |catch_up| {
            let catch_up_within = within.map(|minutes| Duration::from_secs(60 * minutes));
            let schedule = plain.clone().under(Terms { catch_up, catch_up_within, ..Terms::default() });
            let (mut found, mut seen_until) = (BTreeSet::new(), since);
            // Each run has ended by the next look.
            while seen_until < now {
                let (fates, after) = look(&schedule, seen_until, now);
                found.extend(fates.into_iter().filter(|(_, runs)| *runs).map(|(at, _)| at));
                seen_until = after;
            }
            found
        };
        let (all, latest, none) = (runs(CatchUp::All), runs(CatchUp::Latest), runs(CatchUp::None));
        prop_assert!(latest.is_subset(&all) && none.is_subset(&latest));
        prop_assert!(latest.len() <= 1);
        prop_assert!(within.is_some() || all.len() == plain.fire_times(since, now, usize::MAX).len());
    }

    #[test]
    fn a_spread_lies_within_its_length_and_is_the_same_for_a_name(
        name in "[a-z][a-z0-9-]{0,40}",
        seconds in 1..604_800_u64,
    ) {
        let spread = Duration::from_secs(seconds);
        let offset = spread_offset(&name, spread);
        prop_assert!(offset < spread);
        prop_assert_eq!(offset, spread_offset(&name, spread));
    }
}
