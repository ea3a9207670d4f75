//! Deliveries side by side.

use super::carrier::RunError;
use super::clock::Clock;
use super::deliver::{Budget, Delivered, Refusal};
use super::memory::{Room, Share};
use super::parcel::Batch;
use super::place::{Busy, Place, rest};
use super::throttle::Throttle;
use super::waits::{KEPT_FOR, Waiting, most_waiting};
use crate::delivery::halves;
use crate::id::BatchPath;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Requests at a time to a destination that nothing is said of: the default
/// of `max_in_flight`.
const USUAL_REQUESTS: u32 = 8;

/// Bytes of bodies that may wait for the ledger, before and after their
/// request; more only where as many requests may be in flight.
const WAITING_BYTES: u64 = 4 << 20;

/// How a delivery has ended.
type Ending = (Option<Busy>, Result<Delivered, RunError>);

/// Deliveries side by side.
pub(super) struct Lanes {
    tasks: JoinSet<Ending>,
    throttle: Throttle,
    place: Option<Place>,
    /// Cancelled with the first error or refusal: nothing more is begun, and
    /// what was begun ends by itself, so that no request is cut off.
    halt: CancellationToken,
    refusal: Option<Refusal>,
    error: Option<RunError>,
    /// Parts of batches that were cut, to be sent: at most two for each
    /// delivery that has ended since they were last taken.
    cut: BTreeMap<u32, Vec<BatchPath>>,
    /// Which of them are looked through.
    budget: Budget,
    /// Batches that were read and not begun in time, and whether consent has
    /// been asked for since, or need not be: no more than were read ahead.
    stale: BTreeMap<u32, bool>,
    /// Batches that were begun and wait without their bodies.
    waiting: Waiting,
    /// Batches and parts that have ended here, or were begun before us.
    ended: usize,
    clock: Arc<dyn Clock>,
    /// Members of a batch, at most.
    batch_size: u32,
    /// Bytes of a batch; 0 while they are not known.
    batch_bytes: u64,
}

impl Lanes {
    /// None yet, of batches of `batch_size`, to the destination of `throttle`.
    pub(super) fn new(
        (throttle, clock): (Throttle, Arc<dyn Clock>),
        (batch_size, budget): (u32, Budget),
        halt: CancellationToken,
        place: Option<Place>,
    ) -> Self {
        Self {
            tasks: JoinSet::new(),
            batch_size,
            throttle,
            place,
            halt,
            refusal: None,
            error: None,
            cut: BTreeMap::new(),
            budget,
            stale: BTreeMap::new(),
            waiting: Waiting::default(),
            ended: 0,
            clock,
            batch_bytes: 0,
        }
    }

    /// The same after so many batches and parts were begun by others.
    pub(super) fn after(mut self, begun: usize) -> Self {
        self.ended = begun;
        self
    }

    pub(super) fn begin(
        &mut self,
        delivery: impl Future<Output = Result<Delivered, RunError>> + Send + 'static,
    ) {
        // Counted before the task first runs, and until its end is seen: the
        // place is not to be lost in between.
        let busy = self.place.as_ref().map(Place::begin);
        // Boxed, since a task is copied with all it holds when it ends.
        let delivery = Box::pin(delivery);
        self.tasks.spawn(async move { (busy, delivery.await) });
    }

    pub(super) fn fail(&mut self, error: RunError) {
        self.error.get_or_insert(error);
        self.halt.cancel();
    }

    /// Nothing more is begun until a person has looked.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
        self.halt.cancel();
    }

    /// Waits until so many bytes more may be held.
    pub(super) async fn room_for(&mut self, share: &Share, bytes: u64) -> Room {
        loop {
            if let Some(room) = share.try_take(bytes) {
                return room;
            }
            if !self.wait_for_one().await {
                // What was last held is given back by whoever is at it.
                tokio::task::yield_now().await;
            }
        }
    }

    pub(super) async fn wait_for_room(&mut self) {
        while self.tasks.len() >= self.size() {
            self.join_one().await;
        }
    }

    /// Sizes the room by how many bytes a batch has, where that is known.
    pub(super) fn learn(&mut self, batch_bytes: Option<u64>) {
        self.batch_bytes = batch_bytes.unwrap_or(self.batch_bytes);
    }

    /// Twice as many as there may be requests now: while some are on the wire,
    /// others render their body or write their outcome. No fewer than twice
    /// what is usual, since a batch that is to be sent again soon has a lane too.
    /// Where batches are small and answers quick, as many as may be ready
    /// besides, and as many again whose outcome is being written. Never more
    /// than its rate lets go before their bodies are given back.
    fn size(&self) -> usize {
        let most = self.throttle.max_in_flight().min(USUAL_REQUESTS);
        let limit = self.throttle.limit();
        let fast = limit + 2 * self.throttle.most_ready(self.batch_size);
        let room = WAITING_BYTES.checked_div(self.batch_bytes).unwrap_or(0);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let by_rate = self.throttle.most_begun_in(KEPT_FOR).max(2);
        (2 * limit.max(most)).max(fast.min(room)).min(by_rate) as usize
    }

    /// The parts of one batch that was cut: of the one under suspicion before
    /// any other.
    pub(super) fn next_cut(&mut self) -> Option<(u32, Vec<BatchPath>)> {
        if let Some(suspect) = self.suspect() {
            return self.cut.remove_entry(&suspect);
        }
        let next = self.cut.pop_first();
        if let Some((batch, _)) = &next {
            let mut budget = self.budget.lock();
            budget.through();
            budget.turn_to(*batch);
        }
        next
    }

    /// The batch that was refused and is looked through, if one is: nothing else
    /// is begun, since a destination that refuses whatever it is sent would be
    /// sent it all.
    fn suspect(&self) -> Option<u32> {
        let suspect = self.budget.lock().suspect();
        suspect.filter(|batch| !self.tasks.is_empty() || self.cut.contains_key(batch))
    }

    /// Whether a part of a batch that was cut is to be sent now.
    fn has_cut(&self) -> bool {
        match self.suspect() {
            Some(suspect) => self.cut.contains_key(&suspect),
            None => !self.cut.is_empty(),
        }
    }

    /// Whether a batch is to be read again now, whole or in parts.
    pub(super) fn has_returned(&self) -> bool {
        self.has_cut()
            || self.waiting.is_due(self.clock.elapsed())
            || !self.stale.is_empty() && self.take_new()
    }

    /// Whether batches are to be begun that were not. What waits is no reason
    /// not to, unless nearly everything does.
    pub(super) fn take_new(&self) -> bool {
        let waiting = self.waiting.len();
        let most = most_waiting(self.size(), self.ended);
        (waiting == 0 || waiting < most) && self.suspect().is_none()
    }

    /// The first batch whose time has come.
    pub(super) fn next_due(&mut self) -> Option<Batch> {
        self.waiting.next_due(self.clock.elapsed())
    }

    /// The first batch that was not begun in time, and whether consent has
    /// been asked for since.
    pub(super) fn next_stale(&mut self) -> Option<(u32, bool)> {
        self.stale.pop_first()
    }

    /// Whether the batch is one of them.
    pub(super) fn is_stale(&self, batch: u32) -> bool {
        self.stale.contains_key(&batch)
    }

    /// Consent has been asked for, for all of them.
    pub(super) fn asked(&mut self) {
        self.stale.values_mut().for_each(|asked| *asked = true);
    }

    /// Waits for the next delivery to end; false if none is under way.
    pub(super) async fn wait_for_one(&mut self) -> bool {
        let busy = !self.tasks.is_empty();
        if busy {
            self.join_one().await;
        }
        busy
    }

    /// Waits until a delivery ends, or the time of one that waits has come, or
    /// until `halt`; false if there is none.
    pub(super) async fn wait_for_more(&mut self, halt: &CancellationToken) -> bool {
        let due = self.waiting.due();
        if halt.is_cancelled() || self.tasks.is_empty() && due.is_none() {
            return false;
        }
        let (tasks, clock) = (&mut self.tasks, &self.clock);
        let waiting = async {
            let left = due.map(|at| at.saturating_sub(clock.elapsed()));
            tokio::select! {
                biased;
                () = halt.cancelled() => None,
                ended = tasks.join_next(), if !tasks.is_empty() => ended,
                () = clock.sleep(left.unwrap_or_default()), if left.is_some() => None,
            }
        };
        if let Some(ended) = rest(self.place.as_ref(), waiting).await {
            self.note(ended);
        }
        true
    }

    /// Does `wait`, and sees meanwhile to what ends: who rests does not keep
    /// the run's place for it.
    pub(super) async fn beside(&mut self, wait: impl Future<Output = ()>) {
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                biased;
                () = &mut wait => return,
                Some(ended) = self.tasks.join_next() => self.note(ended),
            }
        }
    }

    /// Waits for all that were begun. Returns why the destination is not to
    /// be sent to, if one of them found that.
    pub(super) async fn finish(mut self) -> Result<Option<Refusal>, RunError> {
        while !self.tasks.is_empty() {
            self.join_one().await;
        }
        self.error.map_or(Ok(self.refusal), Err)
    }

    async fn join_one(&mut self) {
        let ended = rest(self.place.as_ref(), self.tasks.join_next()).await;
        if let Some(ended) = ended {
            self.note(ended);
        }
    }

    fn note(&mut self, ended: Result<Ending, JoinError>) {
        let delivered = match ended {
            Ok((_busy, Ok(delivered))) => delivered,
            Ok((_busy, Err(error))) => return self.fail(error),
            Err(error) => return self.fail(RunError::Task(error.to_string())),
        };
        match delivered {
            Delivered::Left => {}
            Delivered::Ended => self.ended += 1,
            Delivered::Cut(path) => {
                let parts = self.cut.entry(path.batch).or_default();
                parts.extend(halves(&path));
            }
            Delivered::Unbegun { path, is_stale } if path.part.is_empty() => {
                self.stale.insert(path.batch, !is_stale);
            }
            Delivered::Unbegun { path, .. } => {
                self.cut.entry(path.batch).or_default().push(path);
            }
            Delivered::Waits(batch) => self.waiting.push(batch),
            Delivered::Halt(refusal) => self.refuse(refusal),
        }
        if self.suspect().is_none() {
            self.budget.lock().through();
        }
    }
}
