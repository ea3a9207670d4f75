//! Leaves a destination alone that fails at nearly everything.

use super::outcome::Outcome;
use super::rules::Rules;
use std::collections::VecDeque;
use std::time::Duration;

/// How far back requests are looked at.
const LOOKS_BACK: Duration = Duration::from_secs(30);

/// Fewer requests than these say nothing.
const AT_LEAST: u32 = 10;

/// The part of the requests, in per cent, that must have failed.
const FAILED_PERCENT: u32 = 70;

/// The first and the longest rest.
const RESTS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(10));

/// A circuit breaker. It opens when 70 % of at least 10 requests of the last
/// 30 s failed, and nothing is sent for 30 s; then one request goes ahead: it
/// closes the breaker unless it fails, else the rest is doubled, up to 10 m.
///
/// The pattern is Nygard's (*Release It!*); the numbers are our own. Instants
/// are counted from an origin of the caller's.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    state: State,
    /// Requests and failures of each second, the oldest first; no more than
    /// there are seconds to look back on.
    seconds: VecDeque<Second>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Duration,
        rest: Duration,
    },
    /// One request is on its way, and its outcome decides.
    Probing {
        rest: Duration,
    },
}

#[derive(Debug, Clone, Copy)]
struct Second {
    at: u64,
    requests: u32,
    failures: u32,
}

/// Whether a request may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It may.
    Free,
    /// Not before this instant.
    ClosedUntil(Duration),
    /// Not before the request that went ahead has ended.
    Probed,
}

/// What an outcome did to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// Nothing is sent for this long.
    Opened(Duration),
    /// The destination answers again.
    Closed,
}

/// A request that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a request that went ahead must be reported, or nothing follows it"]
pub struct Ahead(bool);

impl Breaker {
    /// Whether a request may begin at `now`.
    pub fn way(&self, now: Duration) -> Way {
        match self.state {
            State::Open { until, .. } if now < until => Way::ClosedUntil(until),
            State::Closed | State::Open { .. } => Way::Free,
            State::Probing { .. } => Way::Probed,
        }
    }

    /// Lets a request through that [`Breaker::way`] has found free. Its end is
    /// told to [`Breaker::ended`], or to [`Breaker::unsent`].
    pub fn begin(&mut self) -> Ahead {
        let State::Open { rest, .. } = self.state else {
            return Ahead(false);
        };
        self.state = State::Probing { rest };
        Ahead(true)
    }

    /// A request that was let through was not sent after all.
    pub fn unsent(&mut self, ahead: Ahead) {
        if let (Ahead(true), State::Probing { rest }) = (ahead, self.state) {
            // Its rest is over: the next one goes ahead.
            let until = Duration::ZERO;
            self.state = State::Open { until, rest };
        }
    }

    /// A request has ended. What began before the breaker opened and ends
    /// after decides nothing.
    pub fn ended(&mut self, ahead: Ahead, failed: bool, now: Duration) -> Turn {
        match (self.state, ahead) {
            (State::Probing { rest }, Ahead(true)) if failed => {
                self.open((rest * 2).min(RESTS.1), now)
            }
            (State::Probing { .. }, Ahead(true)) => {
                self.state = State::Closed;
                Turn::Closed
            }
            (State::Closed, _) => {
                self.count(failed, now);
                if self.is_failing() {
                    self.open(RESTS.0, now)
                } else {
                    Turn::None
                }
            }
            _ => Turn::None,
        }
    }

    fn open(&mut self, rest: Duration, now: Duration) -> Turn {
        let until = now + rest;
        self.state = State::Open { until, rest };
        self.seconds.clear();
        Turn::Opened(rest)
    }

    fn count(&mut self, failed: bool, now: Duration) {
        let at = now.as_secs();
        let looks_back = LOOKS_BACK.as_secs();
        while self
            .seconds
            .front()
            .is_some_and(|s| s.at + looks_back <= at)
        {
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|last| last.at != at) {
            self.seconds.push_back(Second {
                at,
                requests: 0,
                failures: 0,
            });
        }
        if let Some(last) = self.seconds.back_mut() {
            last.requests += 1;
            last.failures += u32::from(failed);
        }
    }

    fn is_failing(&self) -> bool {
        let (requests, failures) = self.seconds.iter().fold((0, 0), |(r, f), second| {
            (r + second.requests, f + second.failures)
        });
        requests >= AT_LEAST && failures * 100 >= requests * FAILED_PERCENT
    }
}

/// Whether the destination failed at a request: it could not be reached, gave
/// no whole answer, or answered 5xx. 429 and the statuses in `not_processed`
/// only ask for patience, and any other answer comes from one that works.
pub fn has_failed(outcome: &Outcome, rules: &Rules) -> bool {
    match outcome {
        Outcome::NotSent { .. } | Outcome::Ambiguous { .. } => true,
        Outcome::Answered { status, .. } => {
            !(200..=499).contains(status) && !rules.not_processed.contains(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{OnAmbiguous, Rejections};
    use proptest::prelude::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            let ahead = breaker.begin();
            let _turn = breaker.ended(ahead, true, s(100));
        }
        assert_eq!(breaker.way(s(100)), Way::ClosedUntil(s(130)));
        breaker
    }

    #[test]
    fn it_opens_at_seven_failures_of_ten() {
        let mut breaker = Breaker::default();
        for nth in 0..9 {
            let ahead = breaker.begin();
            assert_eq!(breaker.ended(ahead, nth >= 3, s(nth)), Turn::None, "{nth}");
        }
        let ahead = breaker.begin();
        assert_eq!(breaker.ended(ahead, true, s(9)), Turn::Opened(s(30)));
        assert_eq!(breaker.way(s(38)), Way::ClosedUntil(s(39)));
    }

    #[test]
    fn what_is_longer_ago_than_half_a_minute_does_not_count() {
        let mut breaker = Breaker::default();
        for nth in 0..1000 {
            // Nine in thirty seconds, all of them failures.
            let ahead = breaker.begin();
            let at = Duration::from_millis(nth * 3_400);
            assert_eq!(breaker.ended(ahead, true, at), Turn::None, "{nth}");
        }
        assert!(breaker.seconds.len() <= 30);
    }

    #[test]
    fn a_failure_after_the_rest_doubles_it_up_to_ten_minutes_and_success_ends_it() {
        let mut breaker = opened();
        let mut now = s(130);
        for rest in [60, 120, 240, 480, 600, 600] {
            assert_eq!(breaker.way(now), Way::Free);
            let ahead = breaker.begin();
            assert_eq!(breaker.way(now), Way::Probed);
            assert_eq!(breaker.ended(ahead, true, now), Turn::Opened(s(rest)));
            now += s(rest);
        }
        let ahead = breaker.begin();
        assert_eq!(breaker.ended(ahead, false, now), Turn::Closed);
        assert_eq!(breaker.way(now), Way::Free);
    }

    #[test]
    fn a_request_that_was_not_sent_after_all_leaves_the_way_to_the_next() {
        let mut breaker = opened();
        let ahead = breaker.begin();
        breaker.unsent(ahead);
        assert_eq!(breaker.way(s(131)), Way::Free);
        let ahead = breaker.begin();
        assert_eq!(breaker.ended(ahead, true, s(131)), Turn::Opened(s(60)));
    }

    #[test]
    fn only_a_destination_that_does_not_work_has_failed() {
        let rules = Rules {
            timeout: s(30),
            retry_initial: s(1),
            retry_max: s(300),
            give_up_after: s(3600),
            dedupe_window: None,
            on_ambiguous: OnAmbiguous::Park,
            not_processed: vec![503],
        };
        let answered = |status| Outcome::Answered {
            status,
            retry_after: None,
            rejections: Rejections::default(),
        };
        for status in [200, 204, 301, 400, 401, 408, 409, 413, 422, 429, 503] {
            assert!(!has_failed(&answered(status), &rules), "{status}");
        }
        for status in [500, 502, 504, 599] {
            assert!(has_failed(&answered(status), &rules), "{status}");
        }
        let reason = String::new();
        assert!(has_failed(
            &Outcome::NotSent {
                reason: reason.clone()
            },
            &rules
        ));
        assert!(has_failed(&Outcome::Ambiguous { reason }, &rules));
    }

    proptest! {
        #[test]
        fn after_a_rest_exactly_one_request_goes_ahead(
            steps in prop::collection::vec((0_u64..40_000, 0_u8..4, any::<prop::sample::Index>()), 1..300),
        ) {
            let mut breaker = Breaker::default();
            let mut under_way: Vec<Ahead> = Vec::new();
            let mut now = s(0);
            for (step, act, which) in steps {
                now += Duration::from_millis(step);
                let ahead_before = under_way.iter().filter(|ahead| ahead.0).count();
                prop_assert!(ahead_before <= 1);
                if act < 2 {
                    if breaker.way(now) == Way::Free {
                        under_way.push(breaker.begin());
                    } else {
                        let rests = matches!(breaker.way(now), Way::ClosedUntil(until) if until > now);
                        prop_assert!(rests || ahead_before == 1);
                    }
                } else if !under_way.is_empty() {
                    let ahead = under_way.swap_remove(which.index(under_way.len()));
                    if act == 2 {
                        let _turn = breaker.ended(ahead, which.index(10) < 8, now);
                    } else {
                        breaker.unsent(ahead);
                    }
                }
            }
        }
    }
}
