//! A canary: some members are sent first, and then a person is asked.
//!
//! They are whole batches, the first of the run, so that what is resumed
//! after a crash is cut as before. The run is held once they have ended; it
//! goes on when it is resumed. That it was is read off the ledger, as all else:
//! its last error is still that it was held for this, or a later batch has
//! been begun.

use super::carrier::{Carrier, RunError};
use super::deliver::Refusal;
use super::known::Known;
use super::pages::PagePlan;

/// How the reason of a run that is held for its canary begins.
const SENT: &str = "the canary was sent";

/// What is said of a run with a canary that a person has let go on.
const FOLLOWED: &str = "the canary was sent, and a person lets the others follow";

/// What is said of a run with a canary, or without, that a person lets go on
/// although it is `held` for that; none where nothing is said any more. A run
/// that has ended is let go on whole.
pub fn reason_of_resumed(has_canary: bool, held: Option<&str>) -> Option<String> {
    let was_sent = held.is_none_or(|why| why.starts_with(SENT));
    (has_canary && was_sent).then(|| FOLLOWED.to_owned())
}

impl Carrier {
    /// Plans the canary alone where the run has one and nobody has said yet
    /// that the others follow. Returns whether that is to be asked then.
    pub(super) async fn stop_for_canary(
        &self,
        plan: &mut PagePlan,
        known: &Known,
    ) -> Result<bool, RunError> {
        let members = self.facts.canary;
        if members == 0 {
            return Ok(false);
        }
        let last = self.facts.cut().batches(u64::from(members));
        let mut begun = known.records().map(|record| u64::from(record.path.batch));
        if begun.any(|batch| batch > last) {
            return Ok(false);
        }
        let record = self.kit.ledger.run(&self.facts.run).await?;
        let held_for = record.and_then(|record| record.error);
        if held_for.is_some_and(|why| why.starts_with(SENT)) {
            return Ok(false);
        }
        Ok(plan.stop_after(members))
    }

    /// Why the run is held after its canary.
    pub(super) fn canary_sent(&self) -> Refusal {
        let (run, members) = (&self.facts.run, self.facts.canary);
        Refusal {
            reason: format!(
                "{SENT}, the first {members} members; look at what became of them, then \
                 `campaignd resume {run}` sends the others, `campaignd cancel {run}` does not"
            ),
            pauses_destination: false,
        }
    }
}
