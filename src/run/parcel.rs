//! A batch on its way: what is sent of it, and where it stands.

use super::clock::Clock;
use super::consent::Places;
use super::memory::Room;
use super::records::BatchRecord;
use super::rejected::Roll;
use super::state::BatchState;
use super::waits::Wait;
use crate::delivery::{Course, Page, RenderError, Renderer, body_hash};
use crate::id::BatchPath;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A batch on its way.
pub(super) struct Delivery {
    pub(super) path: BatchPath,
    pub(super) page: Arc<Page>,
    pub(super) rows: Range<usize>,
    /// What the page holds, and what the body will.
    pub(super) page_room: Arc<Room>,
    pub(super) room: Room,
    /// Where these are in the run's table.
    pub(super) places: Places,
    pub(super) renderer: Arc<Renderer>,
    pub(super) stands: Stands,
    /// Until when it may be begun without asking for consent again; none where
    /// it is not asked for, or was begun already.
    pub(super) fresh_until: Option<Timestamp>,
    /// Cancelled when no further attempt may be begun.
    pub(super) halt: CancellationToken,
}

/// What is known of a batch that is about to be delivered.
#[derive(Default)]
pub(super) enum Stands {
    /// Nothing: it was not begun.
    #[default]
    New,
    /// What the ledger has of earlier attempts.
    Known(BatchRecord),
    /// It was begun by us, and has waited without its body.
    Waited(Batch),
}

/// A batch between two attempts: its course, and where the ledger has it.
pub(super) struct Batch {
    pub(super) path: BatchPath,
    pub(super) members: u32,
    /// The places of those refused one by one.
    pub(super) refused: Vec<u64>,
    pub(super) places: Option<(u64, u64)>,
    pub(super) generation: u32,
    pub(super) attempts: u32,
    pub(super) course: Course,
    /// The state the ledger has; none before the first attempt.
    pub(super) state: Option<BatchState>,
    pub(super) wait: Wait,
    /// The newest instant seen, so that a clock that steps back cannot make
    /// the dedupe window look wider.
    pub(super) newest: Timestamp,
    /// Until when it may be begun without asking for consent again.
    pub(super) fresh_until: Option<Timestamp>,
}

impl Batch {
    /// The delivery's batch where it stands, which is taken out of it. No
    /// instant of it is earlier than `newest`, the newest the ledger has of the
    /// run.
    pub(super) fn of(delivery: &mut Delivery, clock: &dyn Clock, newest: Timestamp) -> Self {
        let (wall, elapsed) = (clock.now(), clock.elapsed());
        let now = wall.max(newest);
        let known = match std::mem::take(&mut delivery.stands) {
            Stands::Waited(batch) => return batch.taken_up(now, elapsed),
            Stands::Known(known) => Some(known),
            Stands::New => None,
        };
        let is_part = !delivery.path.part.is_empty();
        let new = Self {
            path: delivery.path.clone(),
            members: u32::try_from(delivery.rows.len()).unwrap_or(u32::MAX),
            refused: Vec::new(),
            places: delivery.places.ends().filter(|_| is_part),
            generation: 0,
            attempts: 0,
            course: Course::default(),
            state: None,
            wait: Wait::none(elapsed),
            newest: now,
            fresh_until: delivery.fresh_until,
        };
        let Some(known) = known else {
            return new;
        };
        let mut batch = Self {
            generation: known.generation,
            attempts: known.attempts,
            course: Course {
                first_sending_at: Some(known.first_sending_at),
                was_ambiguous: known.was_ambiguous,
                excused: known.excused,
            },
            state: Some(known.state),
            newest: now.max(known.first_sending_at),
            fresh_until: None,
            ..new
        };
        let ahead = known.next_at.map(|at| at.duration_since(wall));
        batch.wait_for(elapsed, ahead.unwrap_or_default());
        batch
    }

    /// What it has waited without its body beyond its time, it has waited for
    /// us.
    fn taken_up(mut self, now: Timestamp, elapsed: Duration) -> Self {
        let excused = self.wait.excused + elapsed.saturating_sub(self.wait.due);
        self.course.excused = excused.max(self.course.excused);
        self.newest = self.newest.max(now);
        self.wait_for(elapsed, SignedDuration::ZERO);
        self
    }

    /// From `elapsed` on its body waits, and its time comes after `ahead`.
    pub(super) fn wait_for(&mut self, elapsed: Duration, ahead: SignedDuration) {
        self.wait = Wait {
            since: elapsed,
            due: elapsed.saturating_add(Duration::try_from(ahead).unwrap_or_default()),
            excused: self.course.excused,
        };
    }

    /// Whether consent is to be asked for again before it is begun. What was
    /// begun keeps its bytes.
    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        self.state.is_none() && self.fresh_until.is_some_and(|until| now > until)
    }

    /// Whether nothing was attempted before the attempt that is begun.
    pub(super) fn is_first_attempt(&self) -> bool {
        self.attempts == 1 && self.generation == 0 && !self.course.was_ambiguous
    }

    /// The ledger has taken its first attempt back.
    pub(super) fn forget_attempt(&mut self) {
        self.attempts = 0;
        self.state = None;
        self.course = Course::default();
    }

    /// Notes that it waited for us. Before its first attempt there is nothing
    /// to use up.
    pub(super) fn excuse(&mut self, waited: Duration) {
        if self.course.first_sending_at.is_some() {
            self.course.excused += waited;
        }
    }
}

/// What is sent of a batch, the same in every attempt.
pub(super) struct Parcel {
    pub(super) body: Bytes,
    pub(super) hash: [u8; 32],
    pub(super) content_type: &'static str,
    pub(super) headers: Arc<[(&'static str, String)]>,
    /// Where its answer may refuse members one by one.
    pub(super) roll: Option<Roll>,
}

impl Parcel {
    pub(super) fn of(
        delivery: &Delivery,
        hash_key: &[u8; 32],
        member_key: Option<&str>,
    ) -> Result<Self, RenderError> {
        let Delivery { renderer, path, .. } = delivery;
        let body = renderer.render(path, &delivery.page, delivery.rows.clone())?;
        Ok(Self {
            hash: body_hash(hash_key, &body),
            roll: member_key.map(|key| Roll::of(delivery, key)),
            body,
            content_type: renderer.content_type(),
            headers: renderer.headers(path)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_batch_waits_beyond_its_time_without_its_body_is_excused() {
        let s = Duration::from_secs;
        let mut batch = Batch {
            path: BatchPath::whole(3),
            members: 4,
            refused: Vec::new(),
            places: None,
            generation: 0,
            attempts: 1,
            course: Course {
                first_sending_at: Some(Timestamp::UNIX_EPOCH),
                excused: s(7),
                ..Course::default()
            },
            state: Some(BatchState::Waiting),
            wait: Wait::none(s(0)),
            newest: Timestamp::UNIX_EPOCH,
            fresh_until: None,
        };
        batch.wait_for(s(1_000), SignedDuration::from_secs(120));
        assert_eq!(batch.wait.keeps(s(1_000)), None);
        let mut batch = batch.taken_up(Timestamp::UNIX_EPOCH, s(1_121));
        assert_eq!(batch.course.excused, s(8));
        // A pause, of which a part is counted before the body is given back.
        batch.excuse(s(60));
        let batch = batch.taken_up(Timestamp::UNIX_EPOCH, s(1_421));
        assert_eq!(batch.course.excused, s(8 + 300));
    }
}
