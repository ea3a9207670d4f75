//! Member data in memory: every run holds its share of `limits.memory` at
//! most, half of it in pages and half in bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What all runs hold. Clones are the same.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    /// What one run may hold.
    share: u64,
    held: AtomicU64,
    most_held: AtomicU64,
}

/// What one run may hold of one kind. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Share {
    memory: Memory,
    limit: u64,
    held: Arc<AtomicU64>,
    /// The largest mean of a member in a body so far.
    of_a_member: Arc<AtomicU64>,
}

/// The right to hold so many bytes; given back when it is dropped.
#[derive(Debug)]
#[must_use = "what is held without it is not counted"]
pub(super) struct Room {
    share: Share,
    bytes: u64,
}

impl Memory {
    /// Nothing held yet, of `share` bytes for each run.
    pub fn new(share: u64) -> Self {
        Self(Arc::new(Counted {
            share,
            held: AtomicU64::new(0),
            most_held: AtomicU64::new(0),
        }))
    }

    /// Bytes that one run may hold.
    pub fn share(&self) -> u64 {
        self.0.share
    }

    /// Bytes held now, of all runs.
    pub fn held(&self) -> u64 {
        self.0.held.load(Relaxed)
    }

    /// The most that were held at a time.
    pub fn most_held(&self) -> u64 {
        self.0.most_held.load(Relaxed)
    }

    /// Members that a page is meant to have, in bytes: there are two at a
    /// time, the one that is sent and the next.
    pub(super) fn page_bytes(&self) -> usize {
        usize::try_from(self.0.share / 4).unwrap_or(usize::MAX)
    }

    /// A run's half, for pages or for bodies.
    pub(super) fn half(&self) -> Share {
        Share {
            memory: self.clone(),
            limit: self.0.share / 2,
            held: Arc::default(),
            of_a_member: Arc::default(),
        }
    }
}

impl Share {
    /// Takes room for so many bytes, if they fit in or nothing else is held.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Room> {
        let fits = |held: u64| held == 0 || held.saturating_add(bytes) <= self.limit;
        let taken = self
            .held
            .try_update(Relaxed, Relaxed, |held| fits(held).then_some(held + bytes));
        taken.ok().map(|_| {
            self.memory.count(bytes, 0);
            let share = self.clone();
            Room { share, bytes }
        })
    }

    /// What a body of so many members, who take `bytes` in their page, will
    /// take by what was learnt of others.
    pub(super) fn of_body(&self, members: usize, bytes: usize) -> u64 {
        let learnt = self.of_a_member.load(Relaxed);
        (bytes as u64).max(learnt.saturating_mul(members as u64))
    }

    /// Whether no body has been seen.
    pub(super) fn knows_nothing(&self) -> bool {
        self.of_a_member.load(Relaxed) == 0
    }

    /// Learns how long a body of so many members is.
    pub(super) fn learn(&self, members: usize, bytes: usize) {
        let mean = (bytes as u64).div_ceil(members.max(1) as u64);
        self.of_a_member.fetch_max(mean, Relaxed);
    }
}

impl Room {
    /// It was more, or less, than was thought.
    pub(super) fn becomes(&mut self, bytes: usize) {
        let (before, now) = (self.bytes, bytes as u64);
        self.bytes = now;
        self.share.held.fetch_add(now, Relaxed);
        self.share.held.fetch_sub(before, Relaxed);
        self.share.memory.count(now, before);
    }

    /// The same for the body of so many members, from which others are
    /// guessed.
    pub(super) fn becomes_body(&mut self, members: usize, bytes: usize) {
        self.share.learn(members, bytes);
        self.becomes(bytes);
    }
}

impl Memory {
    fn count(&self, more: u64, less: u64) {
        self.0.held.fetch_add(more, Relaxed);
        let before = self.0.held.fetch_sub(less, Relaxed);
        self.0.most_held.fetch_max(before - less, Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.share.held.fetch_sub(self.bytes, Relaxed);
        self.share.memory.count(0, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_taken_and_what_is_larger_than_all_goes_alone() {
        let memory = Memory::new(200);
        let share = memory.half();
        let mut first = share.try_take(60).unwrap();
        assert!(share.try_take(41).is_none());
        first.becomes(50);
        let second = share.try_take(50).unwrap();
        assert!(share.try_take(1).is_none());
        drop(first);
        assert!(share.try_take(51).is_none());
        drop(second);
        assert_eq!(memory.held(), 0);
        let alone = share.try_take(1_000).unwrap();
        assert!(share.try_take(0).is_none());
        assert_eq!((memory.held(), memory.most_held()), (1_000, 1_000));
        drop(alone);
    }

    #[test]
    fn a_body_is_thought_as_long_as_the_longest_so_far() {
        let share = Memory::new(200).half();
        assert!(share.knows_nothing());
        assert_eq!(share.of_body(10, 70), 70);
        share.learn(10, 95);
        assert_eq!((share.of_body(10, 70), share.of_body(10, 700)), (100, 700));
    }
}
