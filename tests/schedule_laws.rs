//! Laws of what becomes of fire times.

use campaignd::schedule::{Blackout, CatchUp, Due, Schedule, Seen, Terms, due};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

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
