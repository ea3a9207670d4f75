//! What is done with the fire times of a schedule. None of this moves them, so
//! none of it is part of the schedule's hash.

use super::window::SendWindow;
use jiff::civil::Date;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// What becomes of fire times that passed while nothing was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// All are recorded as missed.
    None,
    /// The newest is run, the others are recorded as missed.
    #[default]
    Latest,
    /// All are run, one after another, in order.
    All,
}

/// What becomes of a fire time that finds a run of its campaign open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// It is recorded as skipped.
    #[default]
    Skip,
    /// It is run after that one; a further one is skipped.
    Queue,
}

/// Dates on which nothing is run, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blackout {
    /// The first.
    pub from: Date,
    /// The last.
    pub to: Date,
}

impl Blackout {
    /// A date as `2026-11-27`, or what is wrong with it.
    pub fn date(text: &str) -> Result<Date, String> {
        super::civil::date(text)
    }
}

/// What is done with fire times.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Terms {
    /// Of missed ones.
    pub catch_up: CatchUp,
    /// How old a missed one may be to be run still.
    pub catch_up_within: Option<Duration>,
    /// Of ones that come while a run is open.
    pub overlap: Overlap,
    /// Of ones on these dates, in the schedule's zone: skipped.
    pub blackout: Vec<Blackout>,
    /// The hours in which their runs send.
    pub send_window: Option<SendWindow>,
    /// How much later than its fire time a run is due, in whole seconds.
    pub offset: Duration,
}

/// The offset of the campaign called `name` within `spread`: the same for
/// ever, and even over campaigns. Whole seconds, less than `spread`.
pub fn spread_offset(name: &str, spread: Duration) -> Duration {
    let digest = Sha256::digest(format!("spread\n{name}"));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    let within = spread.as_secs().max(1);
    Duration::from_secs(u64::from_be_bytes(first) % within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_stable_and_even_over_campaigns() {
        let spread = Duration::from_secs(600);
        let of = |n: u32| spread_offset(&format!("campaign-{n}"), spread).as_secs();
        assert_eq!(of(1), of(1));
        assert!((0..1_000).all(|n| of(n) < 600));
        for minute in 0..10 {
            let here = (0..1_000).filter(|n| of(*n) / 60 == minute).count();
            assert!((60..=140).contains(&here), "{minute}: {here}");
        }
        assert_eq!(spread_offset("x", Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn the_offset_of_a_name_never_changes_between_releases() {
        let offset = spread_offset("winback", Duration::from_secs(600));
        assert_eq!(offset.as_secs(), 312);
    }
}
