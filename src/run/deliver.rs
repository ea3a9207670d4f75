//! Gets one batch accepted: attempt after attempt, each in the ledger before
//! the request leaves and after its outcome is known.

use super::carrier::{Carrier, Kit, RunError};
use super::ports::{LedgerError, Request};
use super::progress::Reporter;
use super::records::{AttemptBegun, BatchChange, BatchRecord};
use super::retry::Delays;
use super::state::BatchState;
use crate::delivery::{Outcome, Page, Renderer, Verdict, body_hash, may_resend, verdict};
use crate::history::BatchStatus;
use crate::id::{BatchPath, MessageId, RunId};
use bytes::Bytes;
use jiff::Timestamp;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest a destination can ask us to wait.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// A batch on its way.
pub(super) struct Delivery {
    pub(super) path: BatchPath,
    pub(super) page: Arc<Page>,
    pub(super) rows: Range<usize>,
    pub(super) renderer: Arc<Renderer>,
    /// What the ledger knows of earlier attempts.
    pub(super) known: Option<BatchRecord>,
    /// Cancelled when no further attempt may be begun.
    pub(super) halt: CancellationToken,
}

/// What became of a delivery.
pub(super) enum Delivered {
    /// It has ended, one way or the other.
    Ended,
    /// We were stopped before it had; the ledger knows where it is.
    Left,
    /// The destination does not take what we send.
    Halt(String),
}

/// What the deliveries of a run have in common.
#[derive(Clone)]
pub(super) struct Courier {
    kit: Kit,
    run: RunId,
    reporter: Reporter,
    /// Bytes of the largest body the destination takes.
    max_body: u64,
}

impl Carrier {
    pub(super) fn courier(&self) -> Courier {
        Courier {
            kit: self.kit.clone(),
            run: self.facts.run.clone(),
            reporter: self.reporter.clone(),
            max_body: self.spec.max_body,
        }
    }
}

/// Where a batch's delivery is.
struct Course {
    path: BatchPath,
    members: u32,
    generation: u32,
    attempts: u32,
    first_sending_at: Option<Timestamp>,
    /// Never cleared: a later definite no does not undo an earlier request
    /// that may have arrived.
    was_ambiguous: bool,
    /// The state the ledger has; none before the first attempt.
    state: Option<BatchState>,
    next_at: Option<Timestamp>,
    /// The newest instant seen, so that a clock that steps back cannot make
    /// the dedupe window look wider.
    newest: Timestamp,
}

/// What to do next.
enum Next {
    Again(Course),
    Done(Delivered),
}

impl Courier {
    pub(super) async fn deliver(self, delivery: Delivery) -> Result<Delivered, RunError> {
        let body = delivery
            .renderer
            .render(&delivery.path, &delivery.page, delivery.rows.clone());
        if body.len() as u64 > self.max_body {
            return Ok(Delivered::Halt(format!(
                "batch {} takes {} bytes, over the destination's max_body of {}; make batch_size smaller",
                delivery.path,
                body.len(),
                self.max_body,
            )));
        }
        let hash = body_hash(&self.kit.ledger.installation().body_key, &body);
        let mut course = self.begin(&delivery).await?;
        // The page goes as soon as the last of its batches is rendered.
        let Delivery { halt, page, .. } = delivery;
        drop(page);
        loop {
            if !self.wait_until(course.next_at, &halt).await {
                return Ok(Delivered::Left);
            }
            match self.attempt(course, (&body, hash), &halt).await? {
                Next::Again(later) => course = later,
                Next::Done(delivered) => return Ok(delivered),
            }
        }
    }

    /// Takes up the delivery where the ledger says it is.
    async fn begin(&self, delivery: &Delivery) -> Result<Course, RunError> {
        let members = u32::try_from(delivery.rows.len()).unwrap_or(u32::MAX);
        let mut course = Course {
            path: delivery.path.clone(),
            members,
            generation: 0,
            attempts: 0,
            first_sending_at: None,
            was_ambiguous: false,
            state: None,
            next_at: None,
            newest: self.kit.clock.now(),
        };
        if let Some(known) = &delivery.known {
            course.generation = known.generation;
            course.attempts = known.attempts;
            course.first_sending_at = Some(known.first_sending_at);
            course.was_ambiguous = known.was_ambiguous;
            course.state = Some(known.state);
            course.next_at = known.next_at;
            course.newest = course.newest.max(known.first_sending_at);
        }
        if course.state == Some(BatchState::Sending) {
            // The process died with the request on its way.
            let change = self.change(&course, BatchState::Ambiguous, None);
            self.kit.ledger.change_batch(change).await?;
            course.state = Some(BatchState::Ambiguous);
            course.was_ambiguous = true;
        }
        Ok(course)
    }

    /// Returns whether a further attempt may be begun.
    async fn wait_until(&self, at: Option<Timestamp>, halt: &CancellationToken) -> bool {
        let wait = at.map_or(Duration::ZERO, |at| {
            let wait = Duration::try_from(at.duration_since(self.kit.clock.now()));
            // A time noted while the clock was ahead lies too far off.
            wait.unwrap_or_default()
                .min(LONGEST_WAIT.max(self.kit.rules.retry_max.saturating_mul(2)))
        });
        if wait.is_zero() {
            return !halt.is_cancelled();
        }
        tokio::select! {
            biased;
            () = halt.cancelled() => false,
            () = self.kit.clock.sleep(wait) => true,
        }
    }

    async fn attempt(
        &self,
        mut course: Course,
        (body, hash): (&Bytes, [u8; 32]),
        halt: &CancellationToken,
    ) -> Result<Next, RunError> {
        // The destination's own first: who waits for a slow destination must
        // not hold what the others could use.
        let own = self.kit.destination_requests.take().await;
        let total = self.kit.requests.take().await;
        if halt.is_cancelled() {
            return Ok(Next::Done(Delivered::Left));
        }
        let now = self.kit.clock.now().max(course.newest);
        course.newest = now;
        if let (true, Some(first)) = (course.was_ambiguous, course.first_sending_at)
            && !may_resend(&self.kit.rules, first, now)
        {
            let reason = "may have arrived, and may not be sent again".to_owned();
            return self.park(course, None, reason).await;
        }
        let begun = self.kit.ledger.begin_attempt(AttemptBegun {
            run: self.run.clone(),
            path: course.path.clone(),
            generation: course.generation,
            attempt: course.attempts + 1,
            members: course.members,
            body_hash: hash,
            at: now,
        });
        match begun.await {
            Ok(()) => {}
            Err(LedgerError::BodyChanged { .. }) => {
                return self.park(course, None, "body changed".to_owned()).await;
            }
            Err(error) => return Err(error.into()),
        }
        course.attempts += 1;
        course.first_sending_at.get_or_insert(now);
        course.state = Some(BatchState::Sending);
        self.reporter.requested();
        let request = Request {
            id: MessageId::of(&self.run, &course.path, course.generation),
            // Receivers refuse a timestamp that is far from their own clock.
            at: self.kit.clock.now(),
            body: body.clone(),
        };
        let outcome = self.kit.destination.attempt(request).await;
        // Given back before the outcome is written: the wire is free already.
        drop((own, total));
        self.follow(course, outcome).await
    }

    /// Does what the verdict says.
    async fn follow(&self, course: Course, outcome: Outcome) -> Result<Next, RunError> {
        let verdict = verdict(&outcome, &self.kit.rules);
        let (http_status, why) = described(&outcome);
        match verdict {
            Verdict::Accept => {
                let ended = (BatchState::Accepted, BatchStatus::Delivered);
                self.end(course, ended, http_status, None).await
            }
            // An earlier request of it may have arrived: who is refused now may
            // have been contacted then.
            Verdict::Refuse if course.was_ambiguous => {
                let why = format!("{why}, after an attempt that may have arrived");
                self.park(course, http_status, why).await
            }
            Verdict::Refuse => {
                let ended = (BatchState::Refused, BatchStatus::Rejected);
                self.end(course, ended, http_status, Some(why)).await
            }
            Verdict::RetryLater { at_least } if course.was_ambiguous => {
                self.again(course, BatchState::Ambiguous, at_least, (http_status, why))
                    .await
            }
            Verdict::RetryLater { at_least } => {
                self.again(course, BatchState::Waiting, at_least, (http_status, why))
                    .await
            }
            Verdict::MayHaveArrived { at_least } => {
                self.again(course, BatchState::Ambiguous, at_least, (http_status, why))
                    .await
            }
            Verdict::Stop { reason } => {
                let later = if course.was_ambiguous {
                    BatchState::Ambiguous
                } else {
                    BatchState::Waiting
                };
                let mut change = self.change(&course, later, Some(why));
                change.http_status = http_status;
                self.kit.ledger.change_batch(change).await?;
                Ok(Next::Done(Delivered::Halt(reason)))
            }
        }
    }

    async fn again(
        &self,
        mut course: Course,
        to: BatchState,
        at_least: Duration,
        (http_status, why): (Option<u16>, String),
    ) -> Result<Next, RunError> {
        let rules = &self.kit.rules;
        let now = self.kit.clock.now();
        // A clock that has stepped back makes nothing older.
        let newest = now.max(course.newest);
        let first = course.first_sending_at.unwrap_or(now);
        let tried_for = newest.duration_since(first).unsigned_abs();
        if tried_for >= rules.give_up_after && to == BatchState::Waiting {
            let ended = (BatchState::Refused, BatchStatus::Failed);
            let why = format!("given up after {} attempts: {why}", course.attempts);
            return self.end(course, ended, http_status, Some(why)).await;
        }
        let delay = Delays::after(rules.retry_initial, rules.retry_max, course.attempts)
            .next()
            .max(at_least);
        let next_at = now.checked_add(delay).unwrap_or(Timestamp::MAX);
        let may_not = !may_resend(rules, first, next_at.max(course.newest));
        if to == BatchState::Ambiguous && (may_not || tried_for >= rules.give_up_after) {
            return self.park(course, http_status, why).await;
        }
        let mut change = self.change(&course, to, Some(why));
        change.http_status = http_status;
        change.next_at = Some(next_at);
        self.kit.ledger.change_batch(change).await?;
        course.was_ambiguous |= to == BatchState::Ambiguous;
        course.state = Some(to);
        course.next_at = Some(next_at);
        Ok(Next::Again(course))
    }

    /// Leaves the batch for a person to decide; history says `unknown`.
    async fn park(
        &self,
        course: Course,
        http_status: Option<u16>,
        why: String,
    ) -> Result<Next, RunError> {
        let ended = (BatchState::Parked, BatchStatus::Unknown);
        self.end(course, ended, http_status, Some(why)).await
    }

    async fn end(
        &self,
        course: Course,
        (state, status): (BatchState, BatchStatus),
        http_status: Option<u16>,
        why: Option<String>,
    ) -> Result<Next, RunError> {
        let mut change = self.change(&course, state, why);
        change.status = Some(status);
        change.http_status = http_status;
        self.kit.ledger.change_batch(change).await?;
        self.reporter.ended(status, u64::from(course.members));
        Ok(Next::Done(Delivered::Ended))
    }

    fn change(&self, course: &Course, to: BatchState, error: Option<String>) -> BatchChange {
        BatchChange {
            run: self.run.clone(),
            path: course.path.clone(),
            attempt: course.attempts,
            from: course.state.unwrap_or(BatchState::Sending),
            to,
            status: None,
            http_status: None,
            at: self.kit.clock.now(),
            next_at: None,
            error,
        }
    }
}

/// The status code, and what happened in our words.
fn described(outcome: &Outcome) -> (Option<u16>, String) {
    match outcome {
        Outcome::Answered { status, .. } => (Some(*status), format!("answered {status}")),
        Outcome::NotSent { reason } | Outcome::Ambiguous { reason } => (None, reason.clone()),
    }
}
