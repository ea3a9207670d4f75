//! What the schedules will ask of the limits: a simulation of runs to come
//! through the same waiting line that admits them. A run takes a place among
//! `max_runs`, then asks its warehouse under one of `max_queries`, then sends.

use super::line::{Line, Standing};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// The most statements at a time that are tried for an advice.
const MOST_QUERIES: u32 = 1_024;

/// The spreads that are tried for an advice, in minutes.
const SPREADS: [u64; 12] = [1, 2, 5, 10, 15, 30, 45, 60, 120, 180, 360, 720];

/// A run to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// When it is due.
    pub fire_time: Timestamp,
    /// The campaign's priority.
    pub priority: u8,
    /// The index of its connector in [`Limits::max_queries`].
    pub connector: usize,
    /// How long its warehouse statements take before anything is sent.
    pub asking: Duration,
    /// How long it sends.
    pub sending: Duration,
    /// Where in a spread it falls, from 0 to 1,000 thousandths.
    pub share: u16,
}

/// How many there may be at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Runs.
    pub max_runs: u32,
    /// Statements, by connector.
    pub max_queries: Vec<u32>,
}

/// When a run does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// It is due, after its spread.
    pub due: Timestamp,
    /// It has its place among the runs.
    pub begun: Timestamp,
    /// Its first statement begins.
    pub asks: Timestamp,
    /// It begins to send.
    pub sends: Timestamp,
    /// It has ended.
    pub ends: Timestamp,
}

impl Course {
    /// How long it waits for others.
    pub fn waiting(&self) -> Duration {
        between(self.due, self.asks)
    }
}

/// How long runs wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// What half of them wait at most.
    pub p50: Duration,
    /// What 95 of 100 wait at most.
    pub p95: Duration,
    /// What the last waits.
    pub max: Duration,
}

/// A span of the forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// When it begins.
    pub begins: Timestamp,
    /// Runs due in it.
    pub due: u32,
    /// The most runs that have a place at a time in it.
    pub running: u32,
}

/// What would bring the waiting under the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Advice {
    /// The fewest statements at a time; none where no number does.
    pub max_queries: Option<u32>,
    /// The shortest spread that was tried and does; none where none does.
    pub spread: Option<Duration>,
}

struct Simulation<'a> {
    jobs: &'a [Job],
    limits: &'a Limits,
    origin: Timestamp,
    /// Earliest first; what ends at an instant goes before what is due at it.
    events: BinaryHeap<Reverse<(Duration, Event, usize)>>,
    runs: Line<usize>,
    running: u32,
    statements: Vec<(Line<usize>, u32)>,
    courses: Vec<Course>,
}

/// What happens to a run, in the order in which it is seen at one instant.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Event {
    Asked,
    Ended,
    Due,
}

/// What becomes of `jobs`, each spread by its share of `spread`; in their
/// order. Jobs of connectors that [`Limits`] does not have have one statement
/// at a time.
pub fn simulate(jobs: &[Job], limits: &Limits, spread: Duration) -> Vec<Course> {
    let Some(origin) = jobs.iter().map(|job| job.fire_time).min() else {
        return Vec::new();
    };
    let connectors = jobs.iter().map(|job| job.connector + 1).max().unwrap_or(0);
    let mut simulation = Simulation {
        jobs,
        limits,
        origin,
        events: BinaryHeap::with_capacity(jobs.len()),
        runs: Line::default(),
        running: 0,
        statements: std::iter::repeat_with(|| (Line::default(), 0))
            .take(connectors)
            .collect(),
        courses: Vec::with_capacity(jobs.len()),
    };
    for (number, job) in jobs.iter().enumerate() {
        let late = spread * u32::from(job.share.min(1_000)) / 1_000;
        let due = between(origin, job.fire_time) + late;
        let at = simulation.instant(due);
        simulation.courses.push(Course {
            due: at,
            begun: at,
            asks: at,
            sends: at,
            ends: at,
        });
        simulation.events.push(Reverse((due, Event::Due, number)));
    }
    simulation.run();
    simulation.courses
}

impl Simulation<'_> {
    fn instant(&self, at: Duration) -> Timestamp {
        self.origin.saturating_add(at).unwrap_or(Timestamp::MAX)
    }

    fn standing(&self, number: usize) -> Standing {
        Standing {
            under_way: false,
            priority: self.jobs[number].priority,
            fire_time: self.jobs[number].fire_time,
        }
    }

    fn run(&mut self) {
        while let Some(Reverse((now, event, number))) = self.events.pop() {
            match event {
                Event::Due => {
                    self.runs.join(self.standing(number), now, number);
                }
                Event::Asked => {
                    self.courses[number].sends = self.instant(now);
                    self.statements[self.jobs[number].connector].1 -= 1;
                    let ends = now + self.jobs[number].sending;
                    self.events.push(Reverse((ends, Event::Ended, number)));
                }
                Event::Ended => {
                    self.courses[number].ends = self.instant(now);
                    self.running -= 1;
                }
            }
            // All that is due at an instant stands in the line before anyone
            // is let through.
            let next = self.events.peek();
            if next.is_none_or(|Reverse((at, ..))| *at > now) {
                self.let_through(now);
            }
        }
    }

    fn let_through(&mut self, now: Duration) {
        while self.running < self.limits.max_runs.max(1)
            && let Some(number) = self.runs.next(now)
        {
            self.running += 1;
            self.courses[number].begun = self.instant(now);
            let standing = self.standing(number);
            self.statements[self.jobs[number].connector]
                .0
                .join(standing, now, number);
        }
        for connector in 0..self.statements.len() {
            let most = self.limits.max_queries.get(connector).copied().unwrap_or(1);
            while self.statements[connector].1 < most.max(1)
                && let Some(number) = self.statements[connector].0.next(now)
            {
                self.statements[connector].1 += 1;
                self.courses[number].asks = self.instant(now);
                let asked = now + self.jobs[number].asking;
                self.events.push(Reverse((asked, Event::Asked, number)));
            }
        }
    }
}

/// How long the runs wait; nothing where there are none. The nearest rank.
pub fn waiting(courses: &[Course]) -> Waiting {
    let mut times: Vec<Duration> = courses.iter().map(Course::waiting).collect();
    times.sort_unstable();
    let rank = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(place).copied().unwrap_or_default()
    };
    Waiting {
        p50: rank(50),
        p95: rank(95),
        max: rank(100),
    }
}

/// The most runs that have a place at a time.
pub fn peak(courses: &[Course]) -> u32 {
    let steps = changes(courses);
    steps
        .into_iter()
        .map(|(_, running)| running)
        .max()
        .unwrap_or(0)
}

/// The number of runs that have a place, from each instant on at which it
/// changes.
fn changes(courses: &[Course]) -> Vec<(Timestamp, u32)> {
    let mut by_instant: BTreeMap<Timestamp, (u32, u32)> = BTreeMap::new();
    for course in courses.iter().filter(|course| course.begun < course.ends) {
        by_instant.entry(course.begun).or_default().0 += 1;
        by_instant.entry(course.ends).or_default().1 += 1;
    }
    let mut running = 0;
    let steps = by_instant.into_iter().map(|(at, (begun, ended))| {
        running = running + begun - ended;
        (at, running)
    });
    steps.collect()
}

/// The runs in `count` spans of `width` from `from` on.
pub fn buckets(courses: &[Course], from: Timestamp, width: Duration, count: u32) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = (0..count)
        .map(|place| Bucket {
            begins: from.saturating_add(width * place).unwrap_or(Timestamp::MAX),
            due: 0,
            running: 0,
        })
        .collect();
    let place = |at: Timestamp| {
        let passed = between(from, at).as_millis() / width.as_millis().max(1);
        usize::try_from(passed).unwrap_or(usize::MAX)
    };
    for course in courses {
        if let Some(bucket) = buckets.get_mut(place(course.due)) {
            bucket.due += 1;
        }
    }
    let steps = changes(courses);
    for (number, (at, running)) in steps.iter().enumerate() {
        let until = steps.get(number + 1).map_or(*at, |(next, _)| *next);
        let last = place(
            until
                .saturating_sub(Duration::from_millis(1))
                .unwrap_or(*at),
        );
        let reached = buckets.iter_mut().take(last.saturating_add(1));
        for bucket in reached.skip(place(*at)) {
            bucket.running = bucket.running.max(*running);
        }
    }
    buckets
}

/// What is sent in the hour in which most is, where each run sends its amount
/// evenly from its first to its last: hours as the clock has them in UTC.
pub fn busiest_hour(amounts: impl IntoIterator<Item = (Course, u64)>) -> u64 {
    const HOUR: i64 = 3_600_000;
    let mut hours: BTreeMap<i64, u128> = BTreeMap::new();
    for (course, amount) in amounts {
        let (from, to) = (
            course.sends.as_millisecond(),
            course
                .ends
                .as_millisecond()
                .max(course.sends.as_millisecond() + 1),
        );
        let mut at = from;
        while at < to {
            let hour = at.div_euclid(HOUR);
            let until = ((hour + 1) * HOUR).min(to);
            let (part, whole) = ((until - at).unsigned_abs(), (to - from).unsigned_abs());
            let thousandths = u128::from(amount) * 1_000 * u128::from(part) / u128::from(whole);
            *hours.entry(hour).or_default() += thousandths;
            at = until;
        }
    }
    let most = hours.into_values().max().unwrap_or(0).div_ceil(1_000);
    u64::try_from(most).unwrap_or(u64::MAX)
}

/// What would bring p95 of the waiting of a connector's runs to `target`:
/// more statements at a time with everything else as it is, or a spread.
pub fn advise(jobs: &[Job], limits: &Limits, connector: usize, target: Duration) -> Advice {
    let p95 = |limits: &Limits, spread| {
        let courses = simulate(jobs, limits, spread);
        let of_it = jobs.iter().zip(courses);
        let of_it = of_it.filter(|(job, _)| job.connector == connector);
        let courses: Vec<Course> = of_it.map(|(_, course)| course).collect();
        waiting(&courses).p95
    };
    let with = |queries: u32| {
        let mut limits = limits.clone();
        if let Some(most) = limits.max_queries.get_mut(connector) {
            *most = queries;
        }
        p95(&limits, Duration::ZERO) <= target
    };
    let max_queries = with(MOST_QUERIES).then(|| {
        let (mut low, mut high) = (1, MOST_QUERIES);
        while low < high {
            let middle = low.midpoint(high);
            if with(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        high
    });
    let spreads = SPREADS.iter().map(|minutes| Duration::from_mins(*minutes));
    let spread = std::iter::once(Duration::ZERO)
        .chain(spreads)
        .find(|spread| p95(limits, *spread) <= target);
    Advice {
        max_queries,
        spread,
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
