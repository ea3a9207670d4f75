//! How often requests may begin, as the operator has laid it down.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The units a rate may be given in.
const UNITS: &[(&str, Duration)] = &[
    ("s", Duration::from_secs(1)),
    ("min", Duration::from_mins(1)),
    ("h", Duration::from_hours(1)),
];

/// The highest rate in each unit: beyond it nothing is limited.
const MOST: u32 = 1_000_000;

/// What a bucket holds at most: so much time's worth of requests.
const BURST: Duration = Duration::from_secs(1);

/// Requests in a span of time, as in `50/s` or `600/min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    requests: u32,
    unit: (&'static str, Duration),
}

/// This is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be requests and a unit, from 1 to {MOST}, as in `50/s`, `600/min` or `5000/h`")]
pub struct BadRate;

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (number, unit) = text.split_once('/').ok_or(BadRate)?;
        let unit = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(BadRate)?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadRate);
        }
        let requests = number.parse().map_err(|_| BadRate)?;
        if requests == 0 || requests > MOST {
            return Err(BadRate);
        }
        Ok(Self {
            requests,
            unit: *unit,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.unit.0)
    }
}

impl Rate {
    /// The time between two requests at this rate, rounded up to a nanosecond.
    pub fn interval(self) -> Duration {
        let nanos = self.unit.1.as_nanos().div_ceil(u128::from(self.requests));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The requests that may begin at once after a rest: one second's worth,
    /// at least 1.
    pub fn burst(self) -> u32 {
        let requests = u128::from(self.requests) * BURST.as_nanos() / self.unit.1.as_nanos();
        u32::try_from(requests).unwrap_or(u32::MAX).max(1)
    }
}

/// A token bucket: one token a request, a second's worth of them at most, full
/// to begin with. In any span of time `t` it gives at most `rate * t + burst`.
///
/// Kept as the one instant at which it would be full again (the generic cell
/// rate algorithm), so that nothing has to be counted and no fraction is lost.
/// Instants are counted from an origin of the caller's.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    interval: Duration,
    /// How far ahead of now `full_at` may lie when a token is taken.
    slack: Duration,
    full_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        let interval = rate.interval();
        Self {
            interval,
            slack: interval.saturating_mul(rate.burst() - 1),
            full_at: Duration::ZERO,
        }
    }

    /// When there will be a token; an instant that has passed if there is one.
    pub fn ready_at(&self) -> Duration {
        self.full_at.saturating_sub(self.slack)
    }

    /// Takes a token. Returns false, and takes nothing, if there is none.
    #[must_use = "without a token nothing may be sent"]
    pub fn take(&mut self, now: Duration) -> bool {
        if now < self.ready_at() {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.interval;
        true
    }

    /// Gives a token back that was not used.
    pub fn put_back(&mut self) {
        self.full_at = self.full_at.saturating_sub(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for (text, interval_ms, burst) in [
            ("50/s", 20, 50),
            ("600/min", 100, 10),
            ("1/s", 1000, 1),
            ("30/min", 2000, 1),
            ("3600/h", 1000, 1),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                rate.interval(),
                Duration::from_millis(interval_ms),
                "{text}"
            );
            assert_eq!(rate.burst(), burst, "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for bad in [
            "",
            "50",
            "50/",
            "/s",
            "0/s",
            "50/m",
            "50/ s",
            "-1/s",
            "1.5/s",
            "+5/s",
            "50/day",
            "1000001/s",
            "99999999999/s",
        ] {
            assert_eq!(bad.parse::<Rate>(), Err(BadRate), "{bad}");
        }
    }

    #[test]
    fn a_bucket_begins_full_and_fills_at_its_rate() {
        let mut bucket = TokenBucket::new("3/s".parse().unwrap());
        let at = |ms: u64| Duration::from_millis(100_000 + ms);
        assert!((0..3).all(|_| bucket.take(at(0))));
        assert!(!bucket.take(at(0)) && !bucket.take(at(333)));
        assert!(bucket.take(at(334)));
        assert!(!bucket.take(at(400)));
        bucket.put_back();
        assert!(bucket.take(at(400)));
        assert!(bucket.ready_at() > at(400));
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_rate_and_one_burst(
            requests in 1_u32..5_000,
            unit in 0_usize..3,
            steps in prop::collection::vec(0_u64..400_000_000, 1..60),
        ) {
            let rate: Rate = format!("{requests}/{}", UNITS[unit].0).parse().unwrap();
            let mut bucket = TokenBucket::new(rate);
            let mut now = Duration::from_secs(7);
            let mut given: Vec<Duration> = Vec::new();
            for step in steps {
                now += Duration::from_nanos(step);
                // As fast as it can, yet not without end.
                given.extend((0..20).take_while(|_| bucket.take(now)).map(|_| now));
            }
            let per_second = f64::from(requests) / UNITS[unit].1.as_secs_f64();
            for (nth, last) in given.iter().enumerate() {
                for (earlier, first) in given.iter().enumerate().take(nth + 1).step_by(11) {
                    let most = per_second * (*last - *first).as_secs_f64() + f64::from(rate.burst());
                    prop_assert!((nth + 1 - earlier) as f64 <= most + 1e-6);
                }
            }
        }
    }
}
