//! Gets one batch accepted: attempt after attempt, each in the ledger before
//! the request leaves and after its outcome is known.

use super::alive::Alive;
use super::carrier::{Carrier, Kit, RunError};
use super::lease::Held;
use super::parcel::{Batch, Delivery, Parcel, Stands};
use super::place::{Place, rest};
use super::ports::{LedgerError, Request};
use super::progress::Reporter;
use super::records::{AttemptBegun, BatchChange};
use super::rejected::{Roll, Words};
use super::rest::{Rest, while_broken};
use super::retry::Delays;
use super::state::BatchState;
use super::throttle::{Pass, Ready};
use super::waits::Patience;
use crate::delivery::{Clearance, Move, OnAmbiguous, Outcome, SplitBudget};
use crate::history::{BatchStatus, RunFacts};
use crate::id::{BatchPath, MessageId, RunId};
use jiff::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The shortest wait that a run's place is given back for.
const WORTH_RESTING: Duration = Duration::from_secs(1);

/// What became of a delivery.
pub(super) enum Delivered {
    /// It has ended, one way or the other.
    Ended,
    /// We were stopped before it had; the ledger knows where it is.
    Left,
    /// It is cut in two, and its halves are to be sent.
    Cut(BatchPath),
    /// Nothing of it was begun, and it is to be read again; where it `is_stale`
    /// consent is to be asked for first.
    Unbegun { path: BatchPath, is_stale: bool },
    /// It waits between two attempts, for so long that its body is not kept.
    Waits(Batch),
    /// The destination does not take what we send.
    Halt(Refusal),
}

impl Delivered {
    /// The body of `batch` is given back, and read again when it is needed. One
    /// that was not begun has been left out whenever consent was asked for
    /// meanwhile, so that is done again where anybody is to be asked.
    fn given_back(batch: Batch) -> Self {
        match batch.state {
            Some(_) => Self::Waits(batch),
            None => Self::Unbegun {
                path: batch.path,
                is_stale: batch.fresh_until.is_some(),
            },
        }
    }
}

/// Why nothing more of a run is sent until a person has looked.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) reason: String,
    /// Whether nothing else may go to the destination either.
    pub(super) pauses_destination: bool,
}

/// How far the run's refused batches are looked through; clones are the same.
#[derive(Clone)]
pub(super) struct Budget(Arc<Mutex<SplitBudget>>);

impl Budget {
    /// The budget of a run of `planned` members.
    pub(super) fn of(planned: u64) -> Self {
        Self(Arc::new(Mutex::new(SplitBudget::new(planned))))
    }

    /// Never held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, SplitBudget> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the deliveries of a run have in common.
pub(super) struct Courier {
    kit: Kit,
    run: RunId,
    held: Held,
    reporter: Reporter,
    /// Bytes of the largest body the destination takes.
    max_body: u64,
    /// The newest instant the ledger has of the run: a clock that was set back
    /// while the process was down makes no window look wider.
    newest: Timestamp,
    facts: Arc<RunFacts>,
    alive: Arc<Alive>,
    rest: Rest,
    pub(super) budget: Budget,
    /// Where an answer refuses members one by one: a JSON pointer.
    rejected_at: Option<Arc<str>>,
    words: Words,
    place: Option<Place>,
    patience: Patience,
}

impl Carrier {
    /// What carries the run's batches, none of them earlier than `newest`, the
    /// newest instant the ledger has of the run, until `halt`.
    pub(super) fn courier(&self, newest: Option<Timestamp>, halt: &CancellationToken) -> Courier {
        Courier {
            kit: self.kit.clone(),
            run: self.facts.run.clone(),
            held: self.held.clone(),
            reporter: self.reporter.clone(),
            max_body: self.spec.max_body,
            newest: newest.unwrap_or(Timestamp::MIN),
            facts: Arc::clone(&self.facts),
            alive: Arc::clone(&self.alive),
            rest: self.rests(),
            budget: Budget::of(self.funnel().planned),
            rejected_at: self.spec.rejected_at.as_deref().map(Arc::from),
            words: self.words.clone(),
            place: self.place.clone(),
            patience: Patience::new(Arc::clone(&self.kit.clock), halt.clone()),
        }
    }
}

/// What an attempt is begun with.
enum Turn {
    /// The request may leave.
    Pass(Pass),
    /// It may be written down, and then waits for its pass.
    Ready(Ready),
}

/// What to do next.
enum Next {
    Again(Batch),
    Done(Delivered),
}

impl Courier {
    pub(super) async fn deliver(
        self: Arc<Self>,
        mut delivery: Delivery,
    ) -> Result<Delivered, RunError> {
        let is_new = matches!(delivery.stands, Stands::New);
        let mut batch = self.begin(&mut delivery).await?;
        if batch.wait.keeps(self.kit.clock.elapsed()).is_none() {
            return Ok(Delivered::given_back(batch));
        }
        let parcel = match Parcel::of(
            &delivery,
            &self.kit.ledger.installation().body_key,
            self.member_key(),
        ) {
            Ok(parcel) => parcel,
            Err(error) => {
                return Ok(Delivered::Halt(Refusal {
                    reason: format!("batch {}: {error}", delivery.path),
                    pauses_destination: false,
                }));
            }
        };
        if parcel.body.len() as u64 > self.max_body && delivery.rows.len() > 1 && is_new {
            // Each time the same, since the bytes are. A single member that
            // is too large goes alone: who decides is the destination.
            return Ok(Delivered::Cut(delivery.path));
        }
        // The page goes as soon as the last of its batches is rendered.
        let Delivery {
            halt,
            page,
            page_room,
            room: mut _room,
            rows,
            ..
        } = delivery;
        drop((page, page_room));
        _room.becomes_body(rows.len(), parcel.body.len());
        while !halt.is_cancelled() {
            let Some(until) = batch.wait.keeps(self.kit.clock.elapsed()) else {
                return Ok(Delivered::given_back(batch));
            };
            // Who waits is told then as if nothing more were to be begun. A
            // request that is on its way by then does not ask.
            let enough = self.patience.until(until);
            match self.attempt_once_due(batch, &parcel, &enough).await? {
                Next::Again(later) => batch = later,
                Next::Done(delivered) => return Ok(delivered),
            }
        }
        Ok(Delivered::Left)
    }

    /// Takes up the delivery where the ledger says it is.
    async fn begin(&self, delivery: &mut Delivery) -> Result<Batch, RunError> {
        let mut batch = Batch::of(delivery, self.kit.clock.as_ref(), self.newest);
        if batch.state == Some(BatchState::Sending) {
            // The process died with the request on its way.
            let change = self.change(&batch, BatchState::Ambiguous, None);
            self.kit.ledger.change_batch(change).await?;
            batch.state = Some(BatchState::Ambiguous);
            batch.course.was_ambiguous = true;
        }
        Ok(batch)
    }

    /// The next attempt; none where `halt` comes first.
    async fn attempt_once_due(
        &self,
        mut batch: Batch,
        parcel: &Parcel,
        halt: &CancellationToken,
    ) -> Result<Next, RunError> {
        let may_begin = self.wait_until(batch.wait.due, halt).await
            && self.rested(&mut batch, halt).await
            && self.is_held(halt).await;
        match may_begin {
            true => self.attempt(batch, parcel, halt).await,
            false if halt.is_cancelled() => Ok(Next::Again(batch)),
            // Who keeps the lease is gone.
            false => Ok(Next::Done(Delivered::Left)),
        }
    }

    /// Waits until the lease outlasts the longest answer; false if there will
    /// be no attempt.
    async fn is_held(&self, halt: &CancellationToken) -> bool {
        let timeout = self.kit.rules.timeout;
        self.held.covers(timeout) || self.held.clone().wait(timeout, halt).await
    }

    /// Returns whether a further attempt may be begun; `due` is by the clock's
    /// [`Clock::elapsed`](super::Clock::elapsed).
    async fn wait_until(&self, due: Duration, halt: &CancellationToken) -> bool {
        let wait = due.saturating_sub(self.kit.clock.elapsed());
        if wait.is_zero() {
            return !halt.is_cancelled();
        }
        let waiting = async {
            tokio::select! {
                biased;
                () = halt.cancelled() => false,
                () = self.kit.clock.sleep(wait) => true,
            }
        };
        // The place is not worth giving back for less.
        let place = self.place.as_ref().filter(|_| wait >= WORTH_RESTING);
        rest(place, waiting).await
    }

    async fn attempt(
        &self,
        mut batch: Batch,
        parcel: &Parcel,
        halt: &CancellationToken,
    ) -> Result<Next, RunError> {
        // Asked before the permits are taken, since it may wait for the
        // warehouse, and again below, since they may be waited for.
        let may_send = self.alive.may_send(&self.kit);
        let place = self.place.as_ref().filter(|_| !may_send);
        let assuring = self.alive.assure(&self.kit, &self.facts, halt);
        if !rest(place, assuring).await? {
            return Ok(Next::Again(batch));
        }
        batch.excuse(while_broken(&self.kit, self.place.as_ref(), halt).await);
        let Some(turn) = self.turn(&batch, halt).await else {
            return Ok(Next::Again(batch));
        };
        if let Turn::Pass(pass) = &turn {
            batch.excuse(pass.waited());
        }
        if !self.may_send() {
            return Ok(Next::Again(batch));
        }
        let now = self.kit.clock.now();
        if batch.is_stale(now) {
            let (path, is_stale) = (batch.path, true);
            return Ok(Next::Done(Delivered::Unbegun { path, is_stale }));
        }
        let now = now.max(batch.newest);
        batch.newest = now;
        if batch.course.clearance(&self.kit.rules, now) == Clearance::Park {
            let why = "may have arrived, and may not be sent again";
            return self.park(batch, None, why.to_owned()).await;
        }
        if batch.attempts == 0 && !self.budget.lock().may_send(&batch.path) {
            return Ok(Next::Done(Delivered::Halt(Refusal {
                reason: format!(
                    "the destination refuses whatever it is sent: nothing of batch {}, the first it refused, \
                     was accepted; check the campaign's columns against what the destination takes",
                    batch.path.batch
                ),
                pauses_destination: true,
            })));
        }
        let begun = self.kit.ledger.begin_attempt(AttemptBegun {
            run: self.run.clone(),
            term: self.held.term(),
            path: batch.path.clone(),
            generation: batch.generation,
            attempt: batch.attempts + 1,
            members: batch.members,
            body_hash: parcel.hash,
            places: batch.places,
            at: now,
        });
        match begun.await {
            Ok(()) => {}
            Err(LedgerError::BodyChanged { .. }) => {
                return self.park(batch, None, "body changed".to_owned()).await;
            }
            Err(error) => return Err(error.into()),
        }
        batch.attempts += 1;
        batch.course.first_sending_at.get_or_insert(now);
        batch.state = Some(BatchState::Sending);
        let pass = match turn {
            Turn::Pass(pass) => Some(pass),
            Turn::Ready(_ready) => self.kit.throttle.admit(halt).await,
        };
        let Some(pass) = pass.filter(|_| self.may_send()) else {
            // The ledger or the pass took so long that another host may be at
            // it before the answer is here, or that it is not to be sent now.
            return self.unsent(batch).await;
        };
        self.reporter.requested();
        let request = Request {
            id: MessageId::of(&self.run, &batch.path, batch.generation),
            // Receivers refuse a timestamp that is far from their own clock.
            at: self.kit.clock.now(),
            body: parcel.body.clone(),
            content_type: parcel.content_type,
            headers: Arc::clone(&parcel.headers),
            rejected_at: self.rejected_at.clone(),
        };
        let attempt = self.kit.destination.attempt(request);
        // Given back before the outcome is written: the wire is free already.
        let outcome = pass.spend(&self.kit.rules, attempt).await;
        self.follow(batch, parcel, &outcome).await
    }

    /// Whether nothing of the run may be sent now, through no fault of its own.
    pub(super) fn is_resting(&self) -> bool {
        self.rest.is_due() || self.kit.throttle.is_open()
    }

    /// The right to write down that the batch is sent; none if there will be
    /// no attempt. A receiver that must not have it twice gets nothing written
    /// down that is not sent at once: after a crash a person would have to
    /// find out whether it was.
    async fn turn(&self, batch: &Batch, halt: &CancellationToken) -> Option<Turn> {
        let throttle = &self.kit.throttle;
        if batch.attempts == 0 && self.kit.rules.on_ambiguous == OnAmbiguous::Resend {
            let ready = throttle.ready(batch.members, halt).await;
            return ready.map(Turn::Ready);
        }
        throttle.admit(halt).await.map(Turn::Pass)
    }

    /// The column that names members, where answers speak of them.
    fn member_key(&self) -> Option<&str> {
        let key = self.facts.audience.key.as_str();
        self.rejected_at.as_ref().map(|_| key)
    }

    /// Waits until nothing is paused and the send window is open; false if
    /// there will be no attempt. The time is not the destination's fault, and
    /// uses up nothing of its own.
    async fn rested(&self, batch: &mut Batch, halt: &CancellationToken) -> bool {
        let rested = self.rest.over(halt).await;
        batch.excuse(rested.unwrap_or_default());
        rested.is_some()
    }

    /// Whether a request may leave now: the warehouse has heard of us lately,
    /// the lease outlasts the longest answer, and nothing is paused.
    fn may_send(&self) -> bool {
        self.alive.may_send(&self.kit)
            && self.held.covers(self.kit.rules.timeout)
            && !self.rest.is_due()
    }

    /// An attempt was begun, and no byte of it has left. A batch that was never
    /// sent is as it was before: its members may be asked about again.
    async fn unsent(&self, mut batch: Batch) -> Result<Next, RunError> {
        if batch.is_first_attempt() {
            let change = self.change(&batch, BatchState::Waiting, None);
            if self.kit.ledger.take_back(change).await? {
                batch.forget_attempt();
            } else {
                batch.state = Some(BatchState::Waiting);
            }
            return Ok(Next::Again(batch));
        }
        let was_ambiguous = batch.course.was_ambiguous;
        let why = "not sent: paused, outside the send window, or the run was silent for too long"
            .to_owned();
        let change = self.stays(&mut batch, was_ambiguous, None, why);
        self.kit.ledger.change_batch(change).await?;
        Ok(Next::Again(batch))
    }

    /// Writes down what the outcome makes of the batch.
    async fn follow(
        &self,
        mut batch: Batch,
        parcel: &Parcel,
        outcome: &Outcome,
    ) -> Result<Next, RunError> {
        let rules = &self.kit.rules;
        let delay = Delays::after(rules.retry_initial, rules.retry_max, batch.attempts).next();
        let now = self.kit.clock.now().max(batch.newest);
        batch.newest = now;
        let (code, why) = described(outcome);
        match batch.course.after(outcome, rules, now, delay) {
            Move::Accepted => {
                self.budget.lock().accepted(&batch.path);
                let roll = parcel.roll.as_ref();
                let refused = |roll: &Roll| roll.refused(outcome, &self.words, self.run.as_str());
                batch.refused = roll.map(refused).unwrap_or_default();
                let ended = (BatchState::Accepted, BatchStatus::Delivered);
                self.end(batch, ended, code, None).await
            }
            Move::Rejected if batch.members > 1 => self.cut(batch, code, why).await,
            Move::Rejected => {
                let path = batch.path.clone();
                let ended = (BatchState::Refused, BatchStatus::Rejected);
                let next = self.end(batch, ended, code, Some(why)).await?;
                Ok(match self.single_out(&path) {
                    Some(refusal) => Next::Done(Delivered::Halt(refusal)),
                    None => next,
                })
            }
            Move::Failed => {
                let ended = (BatchState::Refused, BatchStatus::Failed);
                let why = format!("given up after {} attempts: {why}", batch.attempts);
                self.end(batch, ended, code, Some(why)).await
            }
            Move::Parked => self.park(batch, code, why).await,
            Move::Again {
                at,
                may_have_arrived,
            } => {
                // By the wall clock as it is: one that has stepped back makes
                // the batch no younger, and its wait no longer.
                let delay = at.duration_since(now);
                let next_at = self.kit.clock.now() + delay;
                let change = self.stays(&mut batch, may_have_arrived, code, why);
                let change = BatchChange {
                    next_at: Some(next_at),
                    ..change
                };
                self.kit.ledger.change_batch(change).await?;
                batch.wait_for(self.kit.clock.elapsed(), delay);
                Ok(Next::Again(batch))
            }
            Move::Stop {
                reason,
                may_have_arrived,
            } => {
                let change = self.stays(&mut batch, may_have_arrived, code, why);
                self.kit.ledger.change_batch(change).await?;
                Ok(Next::Done(Delivered::Halt(Refusal {
                    reason,
                    pauses_destination: true,
                })))
            }
        }
    }

    /// One of its members may be to blame, and does not cost the others.
    async fn cut(
        &self,
        batch: Batch,
        http_status: Option<u16>,
        why: String,
    ) -> Result<Next, RunError> {
        let change = BatchChange {
            http_status,
            ..self.change(&batch, BatchState::Split, Some(why))
        };
        self.kit.ledger.change_batch(change).await?;
        self.budget.lock().cut(&batch.path, batch.members);
        Ok(Next::Done(Delivered::Cut(batch.path)))
    }

    /// A single member was refused: too many of them, and something else is
    /// wrong.
    fn single_out(&self, path: &BatchPath) -> Option<Refusal> {
        let mut budget = self.budget.lock();
        (!budget.singled_out()).then(|| Refusal {
            reason: format!(
                "the destination has refused more than {} members one by one, batch {path} the last; \
                 `resume` goes on with the next as many",
                budget.most_singled_out()
            ),
            pauses_destination: false,
        })
    }

    /// The batch has not ended: to be sent again, or not for now.
    fn stays(
        &self,
        batch: &mut Batch,
        may_have_arrived: bool,
        http_status: Option<u16>,
        why: String,
    ) -> BatchChange {
        let to = if may_have_arrived {
            BatchState::Ambiguous
        } else {
            BatchState::Waiting
        };
        let change = BatchChange {
            http_status,
            ..self.change(batch, to, Some(why))
        };
        batch.state = Some(to);
        batch.course.was_ambiguous = may_have_arrived;
        change
    }

    /// Leaves the batch for a person to decide; history says `unknown`.
    async fn park(
        &self,
        batch: Batch,
        http_status: Option<u16>,
        why: String,
    ) -> Result<Next, RunError> {
        let ended = (BatchState::Parked, BatchStatus::Unknown);
        self.end(batch, ended, http_status, Some(why)).await
    }

    async fn end(
        &self,
        batch: Batch,
        (state, status): (BatchState, BatchStatus),
        http_status: Option<u16>,
        why: Option<String>,
    ) -> Result<Next, RunError> {
        let mut change = self.change(&batch, state, why);
        change.status = Some(status);
        change.http_status = http_status;
        self.kit.ledger.change_batch(change).await?;
        let refused = batch.refused.len() as u64;
        let members = u64::from(batch.members);
        if refused > 0 {
            self.reporter.ended(BatchStatus::Rejected, refused);
        }
        self.reporter.ended(status, members - refused.min(members));
        Ok(Next::Done(Delivered::Ended))
    }

    fn change(&self, batch: &Batch, to: BatchState, error: Option<String>) -> BatchChange {
        BatchChange {
            run: self.run.clone(),
            term: self.held.term(),
            path: batch.path.clone(),
            attempt: batch.attempts,
            from: batch.state.unwrap_or(BatchState::Sending),
            to,
            status: None,
            http_status: None,
            at: self.kit.clock.now(),
            next_at: None,
            excused: batch.course.excused,
            error,
            refused: batch.refused.clone(),
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
