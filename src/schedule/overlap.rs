//! A fire time that arrives while the campaign's last run is open.

use super::terms::Overlap;
use crate::id::RunId;

/// Whether a run is begun for a fire time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a fire time that is neither started nor recorded is lost"]
pub enum Start {
    /// Yes; where a run is open, after that one.
    Go,
    /// No; recorded as skipped.
    Skip {
        /// Why, in our words.
        reason: String,
    },
}

/// What `overlap` does with a fire time while the runs `open` are, in the
/// order of their fire times.
pub fn start(overlap: Overlap, open: &[RunId]) -> Start {
    match (overlap, open) {
        (_, []) | (Overlap::Queue, [_]) => Start::Go,
        (Overlap::Skip, [run, ..]) => Start::Skip {
            reason: format!("run {run} was still open, and overlap is `skip`"),
        },
        (Overlap::Queue, [run, waiting, ..]) => Start::Skip {
            reason: format!(
                "run {run} was still open and {waiting} was waiting for it; overlap `queue` holds one"
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hour: u32) -> RunId {
        format!("winback@20261122T{hour}0000Z").parse().unwrap()
    }

    #[test]
    fn a_fire_time_is_skipped_while_a_run_is_open_and_the_reason_names_it() {
        let Start::Skip { reason } = start(Overlap::Skip, &[run(14)]) else {
            panic!("not skipped");
        };
        assert!(reason.contains("winback@20261122T140000Z"), "{reason}");
        assert_eq!(start(Overlap::Skip, &[]), Start::Go);
    }

    #[test]
    fn a_queue_holds_one() {
        assert_eq!(start(Overlap::Queue, &[]), Start::Go);
        assert_eq!(start(Overlap::Queue, &[run(14)]), Start::Go);
        let Start::Skip { reason } = start(Overlap::Queue, &[run(14), run(15)]) else {
            panic!("two are waiting");
        };
        assert!(reason.contains("20261122T150000Z was waiting"), "{reason}");
    }
}
