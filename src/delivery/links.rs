//! The adaptive limit on simulated links: how many requests it keeps in
//! flight, and what gets through.

use super::limit::{AdaptiveLimit, Load};
use super::rate::TokenBucket;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;
use std::time::Duration;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The same numbers for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From 0 to 1, without 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How a receiver treats a request, given how many it has at the moment.
enum Link {
    Constant(Duration),
    /// Each takes from half to one and a half of this.
    Jittery(Duration),
    /// Half of it is fixed, half is exponentially distributed.
    LongTailed(Duration),
    /// Beyond so many, requests wait for each other; a tenth of noise.
    Knee(Duration, u32),
    /// Beyond so many it answers 429 in a fifth of the time.
    Defers(Duration, u32),
    /// Beyond so many it does not answer within a second.
    Drops(Duration, u32),
    /// More than its own bucket gives is answered 429 in a fifth of the time.
    RateLimited(Duration, TokenBucket),
}

impl Link {
    fn answer(&mut self, now: Duration, at_once: u32, dice: &mut Dice) -> (Duration, Load) {
        let chance = dice.next();
        match self {
            Self::Constant(rtt) => (*rtt, Load::Served),
            Self::Jittery(rtt) => (rtt.mul_f64(0.5 + chance), Load::Served),
            Self::LongTailed(rtt) => (rtt.mul_f64(0.5 - 0.5 * (1.0 - chance).ln()), Load::Served),
            Self::Knee(rtt, knee) => {
                let queue = (f64::from(at_once) / f64::from(*knee)).max(1.0);
                (rtt.mul_f64(queue * (0.9 + 0.2 * chance)), Load::Served)
            }
            Self::Defers(rtt, most) if at_once > *most => (*rtt / 5, Load::BackPressure),
            Self::Drops(_, most) if at_once > *most => (ms(1000), Load::BackPressure),
            Self::Defers(rtt, _) | Self::Drops(rtt, _) => (*rtt, Load::Served),
            Self::RateLimited(rtt, bucket) => match bucket.take(now) {
                true => (*rtt, Load::Served),
                false => (*rtt / 5, Load::BackPressure),
            },
        }
    }
}

/// What came of a simulation.
#[derive(Debug)]
struct Seen {
    /// The mean number of requests in flight, in its last two thirds.
    in_flight: f64,
    /// Requests served in a second, over all of it.
    rate: f64,
    /// The part of the requests that met back-pressure, in per cent.
    refused: f64,
    /// The seconds until the ceiling was reached, if it was.
    ramp: f64,
}

/// Keeps as many requests in flight as the limit allows, for so long.
fn simulate(mut link: Link, ceiling: u32, lasts: Duration, seed: u64) -> Seen {
    let mut limit = AdaptiveLimit::new(ceiling);
    let mut dice = Dice(seed);
    let mut under_way = BinaryHeap::new();
    let (mut served, mut refused, mut area) = (0_u32, 0_u32, 0.0);
    let (mut now, mut ramp) = (ms(1000), f64::INFINITY);
    let (from, until) = (now, now + lasts);
    // What it has turned away it does not work at.
    let mut in_service = 0_u32;
    while now < until {
        while under_way.len() < limit.get() as usize {
            let in_flight = u32::try_from(under_way.len()).unwrap() + 1;
            limit.began(in_flight);
            let (takes, load) = link.answer(now, in_service + 1, &mut dice);
            in_service += u32::from(load == Load::Served);
            under_way.push(Reverse((now + takes, now, load == Load::Served)));
        }
        assert!((1..=ceiling).contains(&limit.get()));
        if limit.get() == ceiling {
            ramp = ramp.min((now - from).as_secs_f64());
        }
        let in_flight = under_way.len() as f64;
        let Some(Reverse((ends, begun, was_served))) = under_way.pop() else {
            unreachable!("at least one is under way");
        };
        if now >= from + lasts / 3 {
            area += in_flight * (ends - now).as_secs_f64();
        }
        now = ends;
        in_service -= u32::from(was_served);
        served += u32::from(was_served);
        refused += u32::from(!was_served);
        let load = match was_served {
            true => Load::Served,
            false => Load::BackPressure,
        };
        limit.ended(begun, now, load);
    }
    Seen {
        in_flight: area / (lasts * 2 / 3).as_secs_f64(),
        rate: f64::from(served) / lasts.as_secs_f64(),
        refused: 100.0 * f64::from(refused) / f64::from(served + refused),
        ramp,
    }
}

/// A link, and what is right there: in flight, served in a second, per cent
/// refused, seconds to the ceiling.
struct Case {
    name: &'static str,
    link: fn() -> Link,
    in_flight: RangeInclusive<f64>,
    rate: RangeInclusive<f64>,
    refused: RangeInclusive<f64>,
    ramp: RangeInclusive<f64>,
}

const ANY: RangeInclusive<f64> = 0.0..=f64::INFINITY;
const NONE: RangeInclusive<f64> = 0.0..=0.0;

/// All with a ceiling of 64, for a minute.
const CASES: &[Case] = &[
    Case {
        name: "constant, 50 ms: 1280 a second are possible",
        link: || Link::Constant(ms(50)),
        in_flight: 63.9..=64.1,
        rate: 1260.0..=1280.0,
        refused: NONE,
        ramp: 0.0..=0.5,
    },
    Case {
        name: "slow, 2 s: 32 a second",
        link: || Link::Constant(ms(2000)),
        in_flight: 63.0..=64.1,
        rate: 24.0..=32.0,
        refused: NONE,
        ramp: 0.0..=20.0,
    },
    Case {
        name: "jittery, around 50 ms: 1280 a second",
        link: || Link::Jittery(ms(50)),
        in_flight: 60.0..=64.1,
        rate: 1150.0..=1310.0,
        refused: NONE,
        ramp: 0.0..=10.0,
    },
    Case {
        name: "long-tailed, around 50 ms: 1280 a second",
        link: || Link::LongTailed(ms(50)),
        in_flight: 57.6..=64.1,
        rate: 1100.0..=1310.0,
        refused: NONE,
        ramp: 0.0..=15.0,
    },
    Case {
        name: "knee at 20: 400 a second",
        link: || Link::Knee(ms(50), 20),
        in_flight: 18.0..=64.1,
        rate: 370.0..=420.0,
        refused: NONE,
        ramp: ANY,
    },
    Case {
        name: "429 beyond 20: 400 a second",
        link: || Link::Defers(ms(50), 20),
        in_flight: 12.0..=20.0,
        rate: 280.0..=400.0,
        refused: 0.01..=5.0,
        ramp: f64::INFINITY..=f64::INFINITY,
    },
    Case {
        name: "time-out beyond 20: 400 a second",
        link: || Link::Drops(ms(50), 20),
        in_flight: 12.0..=32.0,
        rate: 280.0..=400.0,
        refused: 0.01..=5.0,
        ramp: ANY,
    },
    Case {
        name: "429 beyond 100 a second",
        link: || Link::RateLimited(ms(50), TokenBucket::new("100/s".parse().unwrap())),
        in_flight: 1.0..=8.0,
        rate: 70.0..=102.0,
        refused: 0.01..=35.0,
        ramp: ANY,
    },
];

#[test]
fn on_each_link_the_limit_finds_what_is_right() {
    let mut wrong = Vec::new();
    for case in CASES {
        for seed in 0..6 {
            let seen = simulate((case.link)(), 64, Duration::from_mins(1), seed);
            let is_right = case.in_flight.contains(&seen.in_flight)
                && case.rate.contains(&seen.rate)
                && case.refused.contains(&seen.refused)
                && case.ramp.contains(&seen.ramp);
            if !is_right {
                wrong.push(format!("{}: seed {seed}: {seen:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_receiver_of_fifty_milliseconds_gets_what_it_can_take_from_the_first_seconds_on() {
    for ceiling in [1, 2, 8, 64, 256] {
        for seed in 0..5 {
            let seen = simulate(Link::Constant(ms(50)), ceiling, ms(10_000), seed);
            assert!(
                seen.rate >= 0.95 * f64::from(ceiling) / 0.05,
                "{ceiling}: {seen:?}"
            );
        }
    }
}

#[test]
fn all_that_was_on_its_way_when_back_pressure_came_cuts_the_limit_once() {
    let mut limit = AdaptiveLimit::new(64);
    let mut now = ms(0);
    while limit.get() < 64 {
        limit.began(limit.get());
        now += ms(50);
        limit.ended(now - ms(50), now, Load::Served);
    }
    for _ in 0..64 {
        limit.ended(now - ms(10), now + ms(5), Load::BackPressure);
    }
    assert_eq!(limit.get(), 32);
    limit.ended(now + ms(5), now + ms(20), Load::BackPressure);
    assert_eq!(limit.get(), 16);
}

#[test]
fn a_limit_that_is_not_reached_does_not_grow() {
    let mut limit = AdaptiveLimit::new(64);
    for n in 0..100 {
        limit.began(1);
        limit.ended(ms(100 * n), ms(100 * n + 50), Load::Served);
    }
    assert_eq!(limit.get(), 2);
}

proptest! {
    #[test]
    fn whatever_happens_the_limit_stays_between_one_and_its_ceiling(
        ceiling in 1_u32..2_000,
        events in prop::collection::vec((0_u64..100_000, 0_u64..200_000, 0_u8..3, any::<bool>()), 1..400),
    ) {
        let mut limit = AdaptiveLimit::new(ceiling);
        let mut now = ms(0);
        for (step, took, load, full) in events {
            now += Duration::from_micros(step);
            limit.began(if full { limit.get() } else { 1 });
            let load = [Load::Served, Load::BackPressure, Load::Unknown][usize::from(load)];
            limit.ended(now.saturating_sub(Duration::from_micros(took)), now, load);
            prop_assert!((1..=ceiling).contains(&limit.get()));
        }
    }
}
