//! `keep`: how long what has ended is kept.

use crate::campaign::yaml::Section;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The range of `history`, and its least what it is unless something else is
/// said: as long as a cap or cooldown may look back.
const HISTORY: RangeInclusive<Duration> =
    Duration::from_secs(400 * 24 * 3600)..=Duration::from_secs(36_500 * 24 * 3600);

/// How long what has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The rows of ended runs in the warehouse.
    pub history: Duration,
    /// Whether members who were withheld have rows in history, and not only
    /// counts in `runs`.
    pub withheld_rows: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            history: *HISTORY.start(),
            withheld_rows: true,
        }
    }
}

impl Keep {
    pub(super) fn read(mut section: Section) -> Option<Self> {
        let usual = Self::default();
        let history = section.optional("history");
        let history = history.map_or(Some(usual.history), |f| f.duration(HISTORY));
        let withheld = section.optional("withheld");
        let withheld = withheld.map_or(Some(usual.withheld_rows), |f| {
            f.choice(&[("rows", true), ("counts", false)])
        });
        section.not_yet(&["ledger"]);
        section.finish();
        Some(Self {
            history: history?,
            withheld_rows: withheld?,
        })
    }
}
