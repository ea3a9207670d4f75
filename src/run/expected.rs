//! Before anything is sent: whether the audience is what the campaign expects.

use super::carrier::{Carrier, RunError, Step};
use super::records::Reopening;
use super::state::RunEvent;
use crate::history::RunStatus;

impl Carrier {
    /// Compares the audience with what is expected of it. Outside, the run is
    /// held: its row says so and its tables are dropped, so that it is staged
    /// anew if a person resumes it. That is their yes, and it is not asked
    /// again.
    pub(super) async fn guard(&self) -> Result<Step, RunError> {
        let Some(reason) = self.unexpected().await? else {
            return Ok(RunEvent::WithinExpected.into());
        };
        self.hold_unsent(reason, RunEvent::OutsideExpected).await
    }

    /// Holds a run of which nothing was sent, because of `reason`.
    pub(super) async fn hold_unsent(
        &self,
        reason: String,
        event: RunEvent,
    ) -> Result<Step, RunError> {
        let reason = format!("{reason}; nothing was sent, and resume stages it anew and sends");
        let closing = self.closing(RunStatus::Held, Some(reason.clone()));
        self.ask(|warehouse| {
            let closing = &closing;
            async move { warehouse.close(closing).await }
        })
        .await?;
        Ok(Step {
            error: Some(reason),
            ..event.into()
        })
    }

    async fn unexpected(&self) -> Result<Option<String>, RunError> {
        let expect = &self.spec.expect;
        let run = &self.facts.run;
        if expect.is_empty() || self.is_approved().await? {
            return Ok(None);
        }
        let last = match expect.max_change_basis_points {
            None => None,
            Some(_) => {
                let campaign = &self.facts.campaign;
                self.kit.ledger.last_scheduled(campaign, run).await?
            }
        };
        let last = last.and_then(|last| last.funnel);
        let audience = self.funnel().audience;
        Ok(expect.refuses(audience, last.map(|last| last.audience)))
    }

    async fn is_approved(&self) -> Result<bool, RunError> {
        let reopening = self.kit.ledger.reopening(&self.facts.run).await?;
        Ok(reopening == Some(Reopening::BeginApproved))
    }
}
