use super::*;
use proptest::prelude::*;

fn job(second: i64, asking: u64, sending: u64) -> Job {
    Job {
        fire_time: Timestamp::from_second(second).unwrap(),
        priority: 50,
        connector: 0,
        asking: Duration::from_secs(asking),
        sending: Duration::from_secs(sending),
        share: 0,
    }
}

fn limits(max_runs: u32, max_queries: u32) -> Limits {
    Limits {
        max_runs,
        max_queries: vec![max_queries],
    }
}

#[test]
fn runs_that_are_due_at_once_wait_for_the_warehouse_in_turn() {
    let jobs = vec![job(0, 60, 0); 4];
    let courses = simulate(&jobs, &limits(10, 2), Duration::ZERO);
    let waited: Vec<u64> = courses.iter().map(|c| c.waiting().as_secs()).collect();
    assert_eq!(waited, [0, 0, 60, 60]);
    assert_eq!(peak(&courses), 4);
}

#[test]
fn a_run_that_sends_keeps_its_place_and_not_its_statement() {
    let jobs = vec![job(0, 10, 100); 3];
    let courses = simulate(&jobs, &limits(2, 1), Duration::ZERO);
    let waited: Vec<u64> = courses.iter().map(|c| c.waiting().as_secs()).collect();
    assert_eq!(waited, [0, 10, 110]);
    assert_eq!(peak(&courses), 2);
}

#[test]
fn what_is_urgent_begins_first() {
    let urgent = Job {
        priority: 90,
        ..job(0, 60, 0)
    };
    let jobs = [job(0, 60, 0), urgent];
    let courses = simulate(&jobs, &limits(1, 1), Duration::ZERO);
    assert_eq!(courses[1].waiting(), Duration::ZERO);
    assert_eq!(courses[0].waiting(), Duration::from_mins(1));
}

#[test]
fn buckets_say_what_is_due_and_what_runs() {
    let jobs = [job(0, 60, 5_400), job(30, 60, 0), job(7_300, 60, 0)];
    let courses = simulate(&jobs, &limits(10, 10), Duration::ZERO);
    let hour = Duration::from_hours(1);
    let found = buckets(&courses, Timestamp::UNIX_EPOCH, hour, 4);
    let found: Vec<_> = found.iter().map(|b| (b.due, b.running)).collect();
    assert_eq!(found, [(2, 2), (0, 1), (1, 1), (0, 0)]);
}

#[test]
fn the_advice_keeps_the_target_and_less_does_not() {
    let mut jobs = vec![job(0, 60, 0); 100];
    for (job, share) in jobs.iter_mut().zip(0..) {
        job.share = share * 10;
    }
    let target = Duration::from_mins(5);
    let tight = limits(1_000, 2);
    let advice = advise(&jobs, &tight, 0, target);
    let queries = advice.max_queries.unwrap();
    let p95 = |queries, spread| waiting(&simulate(&jobs, &limits(1_000, queries), spread)).p95;
    assert!(p95(queries, Duration::ZERO) <= target);
    assert!(p95(queries - 1, Duration::ZERO) > target);
    assert_eq!(advice.spread, Some(Duration::from_mins(45)));
    assert!(p95(2, Duration::from_mins(45)) <= target);
}

#[test]
fn no_number_of_statements_helps_runs_that_wait_for_a_place() {
    let advice = advise(
        &vec![job(0, 1, 3_600); 40],
        &limits(1, 1),
        0,
        Duration::from_mins(5),
    );
    assert_eq!((advice.max_queries, advice.spread), (None, None));
}

#[test]
fn what_is_sent_over_hours_is_counted_in_each() {
    let courses = simulate(&[job(0, 1_800, 7_200)], &limits(1, 1), Duration::ZERO);
    assert_eq!(busiest_hour([(courses[0], 4_000)]), 2_000);
    let courses = simulate(&[job(0, 10, 0)], &limits(1, 1), Duration::ZERO);
    assert_eq!(busiest_hour([(courses[0], 7), (courses[0], 8)]), 15);
}

#[test]
fn no_runs_are_no_waiting() {
    assert_eq!(simulate(&[], &limits(1, 1), Duration::ZERO), []);
    assert_eq!(waiting(&[]), Waiting::default());
    assert_eq!(peak(&[]), 0);
}

proptest! {
    #[test]
    fn limits_hold_and_every_run_ends(
        jobs in prop::collection::vec((0_i64..600, 1_u64..90, 0_u64..90, 0_u8..=100), 0..80),
        max_runs in 1_u32..9, max_queries in 1_u32..9,
    ) {
        let jobs: Vec<Job> = jobs
            .into_iter()
            .map(|(at, asking, sending, priority)| Job { priority, ..job(at, asking, sending) })
            .collect();
        let courses = simulate(&jobs, &limits(max_runs, max_queries), Duration::ZERO);
        prop_assert!(peak(&courses) <= max_runs);
        for (job, course) in jobs.iter().zip(&courses) {
            prop_assert_eq!(between(course.asks, course.sends), job.asking);
            prop_assert_eq!(between(course.sends, course.ends), job.sending);
            let asking = courses.iter().filter(|c| c.asks <= course.asks && course.asks < c.sends);
            prop_assert!(asking.count() <= max_queries as usize);
        }
    }
}
