//! Consent that has been withdrawn since the audience was frozen: suppression
//! is asked again before members are read long afterwards.

use super::carrier::{Carrier, RunError};
use super::known::Known;
use crate::audience::Funnel;
use crate::history::Withheld;
use jiff::{SignedDuration, Timestamp};
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What is known of the members' consent.
pub(super) struct Consent {
    /// When the lists were last asked, or an instant before that.
    asked_at: Timestamp,
    pub(super) withheld: Arc<Withheld>,
}

impl Carrier {
    /// What an earlier process has found out.
    pub(super) async fn consent(&self) -> Result<Consent, RunError> {
        self.look_at_withheld().await?;
        Ok(Consent {
            // The audience was frozen after it.
            asked_at: self.facts.started_at,
            withheld: self.withheld(),
        })
    }

    /// Whether the lists are to be asked before more members are read.
    pub(super) fn is_stale(&self, consent: &Consent) -> bool {
        let age = self.kit.clock.now().duration_since(consent.asked_at);
        let age = Duration::try_from(age).unwrap_or_default();
        !self.facts.suppress.is_empty() && age > self.kit.guards.recheck_after
    }

    /// Until when a batch of a page that was read just now may be begun; none
    /// where there is nothing to ask. Where asking and reading took too long
    /// for any, it counts from now, so that it is not asked for ever.
    pub(super) fn fresh_until(&self, consent: &Consent) -> Option<Timestamp> {
        if self.facts.suppress.is_empty() {
            return None;
        }
        let from = match self.is_stale(consent) {
            true => self.kit.clock.now(),
            false => consent.asked_at,
        };
        let after = SignedDuration::try_from(self.kit.guards.recheck_after).ok()?;
        from.checked_add(after).ok()
    }

    /// Asks the lists again about the batches from `from` on; those that were
    /// attempted, which are among `known` or `under_way`, keep their bytes.
    pub(super) async fn ask_again(
        &self,
        consent: &mut Consent,
        from: u32,
        known: &Known,
        under_way: impl Iterator<Item = u32>,
    ) -> Result<(), RunError> {
        let asked_at = self.kit.clock.now();
        let mut attempted = known.attempted(from);
        attempted.extend(under_way);
        attempted.sort_unstable();
        attempted.dedup();
        let attempted = attempted.as_slice();
        self.ask(|warehouse| async move { warehouse.withhold(&self.facts, from, attempted).await })
            .await?;
        self.look_at_withheld().await?;
        consent.asked_at = asked_at;
        consent.withheld = self.withheld();
        Ok(())
    }

    async fn look_at_withheld(&self) -> Result<(), RunError> {
        if self.facts.suppress.is_empty() {
            return Ok(());
        }
        let withheld = self
            .ask(|warehouse| async move { warehouse.withheld(&self.facts).await })
            .await?;
        let mut known = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::new(withheld);
        Ok(())
    }

    fn withheld(&self) -> Arc<Withheld> {
        let known = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known)
    }

    /// `admitted` less those withheld since. Counted from the places, so that
    /// it comes to the same however often it is done.
    pub(super) fn less_withheld(&self, admitted: Funnel) -> Funnel {
        let withheld = self.withheld();
        if withheld.places == 0 {
            return admitted;
        }
        let planned = withheld.places - withheld.among(0..u64::MAX);
        Funnel {
            suppressed: (admitted.suppressed + admitted.planned).saturating_sub(planned),
            planned,
            ..admitted
        }
    }
}

/// Where the members of a delivery are in the run's table.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The places of the whole batch.
    whole: Range<u64>,
    /// Which of its rows are the delivery's.
    rows: Range<usize>,
    withheld: Arc<Withheld>,
}

impl Places {
    /// The place of a row of the delivery; none beyond its last.
    pub(super) fn of(&self, row: usize) -> Option<u64> {
        let row = self.rows.start.checked_add(row)?;
        let is_there = |place: &u64| self.withheld.members.binary_search(place).is_err();
        let mut places = self.whole.clone().filter(is_there);
        places.nth(row).filter(|_| row < self.rows.end)
    }

    /// The first and the last.
    pub(super) fn ends(&self) -> Option<(u64, u64)> {
        let last = self.rows.len().checked_sub(1)?;
        Some((self.of(0)?, self.of(last)?))
    }
}

impl Consent {
    /// Where the rows `part` of a batch at `whole` are.
    pub(super) fn places(&self, whole: Range<u64>, part: Range<usize>) -> Places {
        Places {
            whole,
            rows: part,
            withheld: Arc::clone(&self.withheld),
        }
    }

    /// The rows of the places `places` in a page that begins at `first`.
    pub(super) fn rows(&self, first: u64, places: Range<u64>) -> Range<usize> {
        let row = |place: u64| {
            let row = place - first - self.withheld.among(first..place);
            usize::try_from(row).unwrap_or(usize::MAX)
        };
        row(places.start)..row(places.end)
    }
}
