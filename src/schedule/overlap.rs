//! A fire time that arrives while the campaign's last run is open, or held
//! with part of it sent.

use super::terms::Overlap;
use crate::id::RunId;

/// A run of its campaign that a fire time finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Which.
    pub run: RunId,
    /// Whether it is held, and a person must let it go on or cancel it.
    pub is_held: bool,
}

/// Whether a run is begun for a fire time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a fire time that is neither started nor recorded is lost"]
pub enum Start {
    /// Yes; where there is an earlier run, after that one.
    Go,
    /// No; recorded as skipped.
    Skip {
        /// Why, in our words.
        reason: String,
    },
}

/// What `overlap` does with a fire time while the runs `earlier` are there, in
/// the order in which they end.
pub fn start(overlap: Overlap, earlier: &[Earlier]) -> Start {
    let reason = match (overlap, earlier) {
        (_, []) | (Overlap::Queue, [_]) => return Start::Go,
        (Overlap::Skip, [one, ..]) => {
            format!("{}, and overlap is `skip`{}", one.said(), one.advice())
        }
        (Overlap::Queue, [one, waiting, ..]) => format!(
            "{} and {} was waiting for it; overlap `queue` holds one{}",
            one.said(),
            waiting.run,
            one.advice(),
        ),
    };
    Start::Skip { reason }
}

impl Earlier {
    fn said(&self) -> String {
        match self.is_held {
            false => format!("run {} was still open", self.run),
            true => format!("run {} was held with a part of it sent", self.run),
        }
    }

    fn advice(&self) -> String {
        match self.is_held {
            false => String::new(),
            true => format!(
                "; `campaignd resume {0}` or `campaignd cancel {0}` makes room",
                self.run
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hour: u32) -> Earlier {
        Earlier {
            run: format!("winback@20261122T{hour}0000Z").parse().unwrap(),
            is_held: false,
        }
    }

    fn held(hour: u32) -> Earlier {
        Earlier {
            is_held: true,
            ..run(hour)
        }
    }

    #[track_caller]
    fn skipped(overlap: Overlap, earlier: &[Earlier], says: &str) {
        let Start::Skip { reason } = start(overlap, earlier) else {
            panic!("not skipped");
        };
        assert!(reason.contains(says), "{reason}");
    }

    #[test]
    fn a_fire_time_is_skipped_while_a_run_is_open_and_the_reason_names_it() {
        let says = "run winback@20261122T140000Z was still open, and overlap is `skip`";
        skipped(Overlap::Skip, &[run(14)], says);
        assert_eq!(start(Overlap::Skip, &[]), Start::Go);
    }

    #[test]
    fn a_held_run_of_which_something_was_sent_counts_as_an_open_one_does() {
        let says = "held with a part of it sent, and overlap is `skip`; `campaignd resume winback@20261122T140000Z`";
        skipped(Overlap::Skip, &[held(14)], says);
        assert_eq!(start(Overlap::Queue, &[held(14)]), Start::Go);
        let says = "20261122T150000Z was waiting for it; overlap `queue` holds one; `campaignd";
        skipped(Overlap::Queue, &[held(14), run(15)], says);
    }

    #[test]
    fn a_queue_holds_one() {
        assert_eq!(start(Overlap::Queue, &[]), Start::Go);
        assert_eq!(start(Overlap::Queue, &[run(14)]), Start::Go);
        let says = "20261122T150000Z was waiting for it; overlap `queue` holds one";
        skipped(Overlap::Queue, &[run(14), run(15)], says);
    }
}
