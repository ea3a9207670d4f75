//! `keep`: how long what has ended is kept.

use crate::campaign::yaml::Section;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The range of `history`, and its least what it is unless something else is
/// said: as long as a cap or cooldown may look back.
const HISTORY: RangeInclusive<Duration> =
    Duration::from_secs(400 * 24 * 3600)..=Duration::from_secs(36_500 * 24 * 3600);

/// The range of `ledger`; at most what history is kept, which is checked.
const LEDGER: RangeInclusive<Duration> = Duration::from_secs(24 * 3600)..=*HISTORY.end();

/// How long the state store keeps ended runs unless something else is said.
const USUAL_LEDGER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long what has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Ended runs in the state store.
    pub ledger: Duration,
    /// The rows of ended runs in the warehouse.
    pub history: Duration,
    /// Whether members who were withheld have rows in history, and not only
    /// counts in `runs`.
    pub withheld_rows: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            ledger: USUAL_LEDGER,
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
        let ledger = section.optional("ledger");
        let longest = history.unwrap_or(*HISTORY.end());
        let ledger = match ledger {
            None => Some(usual.ledger),
            Some(field) => match field.duration(LEDGER) {
                Some(asked) if asked > longest => {
                    field.error(
                        "`keep.ledger` must not be longer than `keep.history`: what is forgotten in \
                         the warehouse cannot be resumed",
                    );
                    None
                }
                asked => asked,
            },
        };
        section.finish();
        Some(Self {
            ledger: ledger?,
            history: history?,
            withheld_rows: withheld?,
        })
    }
}
