//! How an attempt ended, and what follows from it.

use super::rejections::Rejections;
use std::time::Duration;

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A status line was read.
    Answered {
        /// The status code.
        status: u16,
        /// What `Retry-After` asks for, clamped.
        retry_after: Option<Duration>,
        /// The members it refused one by one, where it was asked for them.
        rejections: Rejections,
    },
    /// Nothing of the body left us: a definite no.
    NotSent {
        /// Why, in our words.
        reason: String,
    },
    /// The body, or part of it, left; what became of it is not known.
    Ambiguous {
        /// Why, in our words.
        reason: String,
    },
}

/// What follows from an attempt's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict that is not acted on loses a batch"]
pub enum Verdict {
    /// The destination has it.
    Accept,
    /// It said no to this batch for good.
    Refuse,
    /// It said no for now: again, after the longer of our backoff and this.
    RetryLater {
        /// The delay the destination asked for.
        at_least: Duration,
    },
    /// It may have arrived: again under the same id inside the dedupe window,
    /// else parked.
    MayHaveArrived {
        /// The delay the destination asked for.
        at_least: Duration,
    },
    /// The destination does not take what we send: nothing more goes there
    /// until a person has looked.
    Stop {
        /// What to look at.
        reason: String,
    },
}
