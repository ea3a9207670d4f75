//! What is forecast is what then happens: a day of runs through the line that
//! admits them, on a clock that is moved.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, in its helpers too"
)]

use campaignd::run::{Clock as _, SystemClock, Turns};
use campaignd::schedule::Standing;
use campaignd::schedule::forecast::{Course, Job, Limits, peak, simulate, waiting};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A day of 400 runs: a rush at nine, one at five, and some all day long.
fn day() -> Vec<Job> {
    let runs = 0_u64..400;
    let jobs = runs.map(|number| {
        let dice = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let second = match number % 4 {
            0 | 1 => 9 * 3_600,
            2 => 17 * 3_600,
            _ => dice % 86_400,
        };
        Job {
            fire_time: Timestamp::from_second(second.cast_signed()).unwrap(),
            priority: u8::try_from(dice % 101).unwrap(),
            connector: usize::from(number % 5 == 0),
            asking: Duration::from_secs(5 + dice % 240),
            sending: Duration::from_secs(dice % 900),
            share: 0,
        }
    });
    jobs.collect()
}

async fn live(job: Job, runs: Turns, statements: Turns) -> Course {
    let clock = SystemClock;
    let origin = Timestamp::UNIX_EPOCH;
    let begun = tokio::time::Instant::now();
    let now = move || origin + begun.elapsed();
    let until_due = job.fire_time.duration_since(origin);
    clock.sleep(Duration::try_from(until_due).unwrap()).await;
    let standing = Standing {
        under_way: false,
        priority: job.priority,
        fire_time: job.fire_time,
    };
    let place = runs.take(standing).await;
    let has_place = now();
    let turn = statements.take(standing).await;
    let asks = now();
    clock.sleep(job.asking).await;
    drop(turn);
    let sends = now();
    clock.sleep(job.sending).await;
    drop(place);
    Course {
        due: job.fire_time,
        begun: has_place,
        asks,
        sends,
        ends: now(),
    }
}

fn assert_within_a_tenth(what: &str, forecast: f64, found: f64) {
    let off = (forecast - found).abs();
    assert!(
        off <= 0.1 * found,
        "{what}: forecast {forecast}, found {found}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_day_goes_as_it_was_forecast() {
    let jobs = day();
    for (max_runs, queries) in [(32, [6, 2]), (200, [12, 3]), (8, [6, 6])] {
        let limits = Limits {
            max_runs,
            max_queries: queries.to_vec(),
        };
        let forecast = simulate(&jobs, &limits, Duration::ZERO);

        let clock = Arc::new(SystemClock);
        let runs = Turns::new(max_runs, clock.clone());
        let statements = queries.map(|most| Turns::new(most, clock.clone()));
        let mut tasks = JoinSet::new();
        for job in jobs.clone() {
            let statements = statements[job.connector].clone();
            tasks.spawn(live(job, runs.clone(), statements));
        }
        let found = tasks.join_all().await;

        assert_eq!(found.len(), jobs.len(), "no run is lost");
        let (p95, peaks) = (|of: &[Course]| waiting(of).p95.as_secs_f64(), peak);
        assert!(p95(&found) > 60.0, "something is waited for");
        assert_within_a_tenth("p95 of waiting", p95(&forecast), p95(&found));
        assert_within_a_tenth("peak", peaks(&forecast).into(), peaks(&found).into());
        assert!(peaks(&found) <= max_runs);
    }
}
