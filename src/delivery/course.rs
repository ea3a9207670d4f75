//! One batch's way to its end, as decisions: whether it may be sent now, and
//! what an attempt's outcome makes of it.

use super::outcome::{Outcome, Verdict};
use super::rules::Rules;
use super::verdict::{may_resend, verdict};
use jiff::Timestamp;
use std::time::Duration;

/// What is known of a batch that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Course {
    /// When its first request was begun; none if none was.
    pub first_sending_at: Option<Timestamp>,
    /// Whether any request of it may have arrived. Never cleared: a later
    /// definite no says nothing about an earlier request.
    pub was_ambiguous: bool,
    /// Time since then that the batch waited for us: it uses up nothing of
    /// `give_up_after`.
    pub excused: Duration,
}

/// Whether a batch may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a batch that may not be sent must be parked"]
pub enum Clearance {
    /// Yes.
    Send,
    /// It may have arrived, and the destination does not promise to know it
    /// again: a person decides.
    Park,
}

/// What an attempt's outcome makes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a batch whose outcome is not written down is ambiguous for ever"]
pub enum Move {
    /// Delivered.
    Accepted,
    /// The destination refused it for good.
    Rejected,
    /// Given up, and it is certain that nothing arrived.
    Failed,
    /// Given up, and something may have arrived: a person decides.
    Parked,
    /// Sent again at an instant.
    Again {
        /// When.
        at: Timestamp,
        /// Whether anything may have arrived by now.
        may_have_arrived: bool,
    },
    /// The destination does not take what we send; the batch stays as it is.
    Stop {
        /// What to look at.
        reason: String,
        /// Whether anything may have arrived by now.
        may_have_arrived: bool,
    },
}

impl Course {
    /// Whether the batch may be sent at `now`, asked when it would leave: the
    /// dedupe window may have passed while it waited.
    pub fn clearance(&self, rules: &Rules, now: Timestamp) -> Clearance {
        match self.first_sending_at {
            Some(first) if self.was_ambiguous && !may_resend(rules, first, now) => Clearance::Park,
            _ => Clearance::Send,
        }
    }

    /// What `outcome` makes of the batch. `delay` is our own backoff's.
    pub fn after(&self, outcome: &Outcome, rules: &Rules, now: Timestamp, delay: Duration) -> Move {
        let may_have_arrived = self.was_ambiguous;
        match verdict(outcome, rules) {
            Verdict::Accept => Move::Accepted,
            // It refused this request; an earlier one may have been taken.
            Verdict::Refuse if may_have_arrived => Move::Parked,
            Verdict::Refuse => Move::Rejected,
            Verdict::Stop { reason } => Move::Stop {
                reason,
                may_have_arrived,
            },
            Verdict::RetryLater { at_least } => {
                self.again(rules, now, delay.max(at_least), may_have_arrived)
            }
            Verdict::MayHaveArrived { at_least } => {
                self.again(rules, now, delay.max(at_least), true)
            }
        }
    }

    fn again(
        &self,
        rules: &Rules,
        now: Timestamp,
        delay: Duration,
        may_have_arrived: bool,
    ) -> Move {
        let first = self.first_sending_at.unwrap_or(now);
        let at = now.checked_add(delay).unwrap_or(Timestamp::MAX);
        let tried_for = now.duration_since(first).unsigned_abs();
        let out_of_time = tried_for.saturating_sub(self.excused) >= rules.give_up_after;
        match may_have_arrived {
            true if out_of_time || !may_resend(rules, first, at) => Move::Parked,
            false if out_of_time => Move::Failed,
            _ => Move::Again {
                at,
                may_have_arrived,
            },
        }
    }
}
