//! A batch on its way: what is sent of it, and where it stands.

use super::consent::Places;
use super::memory::Room;
use super::records::BatchRecord;
use super::rejected::Roll;
use super::state::BatchState;
use crate::delivery::{Course, Page, RenderError, Renderer, body_hash};
use crate::id::BatchPath;
use bytes::Bytes;
use jiff::Timestamp;
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
    /// What the ledger knows of earlier attempts.
    pub(super) known: Option<BatchRecord>,
    /// Until when it may be begun without asking for consent again; none where
    /// it is not asked for, or was begun already.
    pub(super) fresh_until: Option<Timestamp>,
    /// Cancelled when no further attempt may be begun.
    pub(super) halt: CancellationToken,
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
    pub(super) next_at: Option<Timestamp>,
    /// The newest instant seen, so that a clock that steps back cannot make
    /// the dedupe window look wider.
    pub(super) newest: Timestamp,
    /// Until when it may be begun without asking for consent again.
    pub(super) fresh_until: Option<Timestamp>,
}

impl Batch {
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
        self.next_at = None;
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
