//! How many requests at a time a destination takes well.

use super::outcome::Outcome;
use super::rules::Rules;
use std::time::Duration;

/// Where the limit begins.
const START: f64 = 2.0;

/// How much a window counts against those before it.
const ALPHA: f64 = 0.4;

/// By which part of the usual round trips may be longer and still not be:
/// neither rounding nor a hair is a queue.
const SAME: f64 = 0.01;

/// By how many deviations of a window's mean round trips must be longer than
/// usual to count as such.
const DEVIATIONS: f64 = 2.5;

/// By which part of the usual they must be longer besides: what varies less
/// than this is no queue.
const LEAST_RISE: f64 = 0.25;

/// By how many seconds they must be longer besides: below this it is our own
/// machine that is measured.
const LEAST_RISE_SECONDS: f64 = 0.005;

/// The deviation of single round trips until it is known, as a part of them.
const UNKNOWN_DEVIATION: f64 = 0.5;

/// What the limit becomes when round trips are longer than usual.
const ON_RISE: f64 = 0.9;

/// What the limit becomes when the destination asks for less.
const ON_BACK_PRESSURE: f64 = 0.5;

/// What a request's end says about the destination's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It took the request: how long that took counts.
    Served,
    /// It asked for less, or did not answer in time.
    BackPressure,
    /// Nothing: a refusal or an error may be quick or slow for any reason.
    Unknown,
}

/// What the outcome of a request that took `took` says about load: 429, 503,
/// the statuses in `not_processed` and time-outs are back-pressure.
pub fn load(outcome: &Outcome, took: Duration, rules: &Rules) -> Load {
    match outcome {
        Outcome::Answered { status, .. } => match status {
            200..=299 => Load::Served,
            429 | 503 => Load::BackPressure,
            _ if rules.not_processed.contains(status) => Load::BackPressure,
            _ => Load::Unknown,
        },
        Outcome::NotSent { .. } | Outcome::Ambiguous { .. } if took >= rules.timeout => {
            Load::BackPressure
        }
        Outcome::NotSent { .. } | Outcome::Ambiguous { .. } => Load::Unknown,
    }
}

/// A limit of requests in flight that finds out what the destination takes,
/// between 1 and a ceiling.
///
/// It begins at 2. Each window lasts one usual round trip (an exponentially
/// weighted mean, α 0.4). At its end, if the limit was reached and there was
/// no back-pressure: it is doubled, until back-pressure or a rise has been
/// seen for the first time, and afterwards grows by 1 if the window's mean
/// round trip is no longer than usual (by 1 %). A rise makes it ×0.9: the mean is
/// longer than usual by 2.5 standard deviations of a mean of so many, and by
/// a quarter, and by 5 ms, so that noise does not hold it down. Back-pressure
/// makes it ×0.5 at once, and once for all requests that were on their way.
///
/// After Vector's adaptive request concurrency, and Netflix's
/// concurrency-limits before it; the doubling, and the least rise, are ours.
/// Where round trips grow slowly, usual grows with them: the operator's
/// ceiling is what bounds the limit then. Instants are counted from an origin
/// of the caller's.
#[derive(Debug, Clone)]
pub struct AdaptiveLimit {
    ceiling: f64,
    limit: f64,
    is_doubling: bool,
    usual: Option<RoundTrip>,
    window: Window,
    /// When back-pressure last cut the limit: what began before says no more.
    cut_at: Option<Duration>,
}

/// The usual round trip, in seconds.
#[derive(Debug, Clone, Copy)]
struct RoundTrip {
    mean: f64,
    /// Of single ones, not of windows.
    variance: f64,
}

/// What was seen since the last judgement; times in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    ends_at: Duration,
    reached_limit: bool,
    back_pressure: bool,
    count: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl AdaptiveLimit {
    /// A limit that has seen nothing; `ceiling` is at least 1.
    pub fn new(ceiling: u32) -> Self {
        let ceiling = f64::from(ceiling.max(1));
        Self {
            ceiling,
            limit: START.min(ceiling),
            is_doubling: true,
            usual: None,
            window: Window::default(),
            cut_at: None,
        }
    }

    /// Requests that may be in flight now: from 1 to the ceiling.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and a ceiling that was a u32"
    )]
    pub fn get(&self) -> u32 {
        self.limit as u32
    }

    /// Requests that begin in `span`, at most, as fast as they are answered
    /// now: at least as many as may be in flight.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number that is too large is the largest there is"
    )]
    pub fn begun_in(&self, span: Duration) -> u32 {
        let turns = match self.usual {
            Some(usual) if usual.mean > 0.0 => (span.as_secs_f64() / usual.mean).max(1.0),
            _ => 1.0,
        };
        (self.limit * turns) as u32
    }

    /// A request has begun, and so many are in flight with it.
    pub fn began(&mut self, in_flight: u32) {
        self.window.reached_limit |= in_flight >= self.get();
    }

    /// A request that began at `begun` has ended.
    pub fn ended(&mut self, begun: Duration, now: Duration, load: Load) {
        match load {
            Load::Served => self.window.add(now.saturating_sub(begun)),
            Load::BackPressure => self.cut(begun, now),
            Load::Unknown => {}
        }
        if now >= self.window.ends_at {
            self.judge();
            let usual = self.usual.map_or(0.0, |usual| usual.mean);
            self.window = Window {
                ends_at: now + Duration::try_from_secs_f64(usual).unwrap_or_default(),
                ..Window::default()
            };
        }
    }

    fn cut(&mut self, begun: Duration, now: Duration) {
        self.window.back_pressure = true;
        self.is_doubling = false;
        if self.cut_at.is_none_or(|cut_at| begun >= cut_at) {
            self.cut_at = Some(now);
            self.set(self.limit * ON_BACK_PRESSURE);
        }
    }

    fn judge(&mut self) {
        let window = self.window;
        let Some(mean) = window.mean() else {
            return;
        };
        let usual = *self.usual.get_or_insert(RoundTrip {
            mean,
            variance: (mean * UNKNOWN_DEVIATION).powi(2),
        });
        let noise = DEVIATIONS * (usual.variance / window.count).sqrt();
        let least = (usual.mean * LEAST_RISE).max(LEAST_RISE_SECONDS);
        let may_grow = window.reached_limit && !window.back_pressure;
        if mean >= usual.mean + noise.max(least) {
            self.is_doubling = false;
            if !window.back_pressure {
                self.set(self.limit * ON_RISE);
            }
        } else if may_grow && self.is_doubling {
            self.set(self.limit * 2.0);
        } else if may_grow && mean <= usual.mean * (1.0 + SAME) {
            self.set(self.limit + 1.0);
        }
        self.usual = Some(RoundTrip {
            mean: usual.mean + ALPHA * (mean - usual.mean),
            variance: usual.variance
                + ALPHA * (window.mean_square_from(usual.mean) - usual.variance),
        });
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(1.0, self.ceiling);
    }
}

impl Window {
    fn add(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.count += 1.0;
        self.sum += took;
        self.sum_of_squares += took * took;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// The mean square of the distances from `center`; never negative.
    fn mean_square_from(&self, center: f64) -> f64 {
        let squares = self.sum_of_squares - 2.0 * center * self.sum;
        (squares / self.count + center * center).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_begin_in_a_span_as_the_limit_lets_in_so_many_round_trips() {
        let span = Duration::from_millis(100);
        let mut limit = AdaptiveLimit::new(8);
        assert_eq!(limit.begun_in(span), 2);
        let check = |mean, expect| {
            let usual = RoundTrip {
                mean,
                variance: 0.0,
            };
            let limit = AdaptiveLimit {
                usual: Some(usual),
                ..AdaptiveLimit::new(8)
            };
            assert_eq!(limit.begun_in(span), expect);
        };
        check(30.0, 2);
        check(0.1, 2);
        check(0.05, 4);
        check(0.001, 200);
        check(0.0, 2);
        limit.limit = 8.0;
        assert_eq!(limit.begun_in(span), 8);
    }
}
