//! Which members are read together.

use super::known::Known;
use crate::audience::Cut;
use crate::delivery::Page;
use std::ops::Range;

/// Members of the first page, which tells how large a member is.
const FIRST_PAGE: u64 = 1_000;

/// Members of the largest page, however small they are.
const LARGEST_PAGE: u64 = 50_000;

/// Cuts a run into pages of whole batches, and leaves out what has ended.
pub(super) struct PagePlan {
    planned: u64,
    cut: Cut,
    page_bytes: u64,
    members_per_page: u64,
    next_batch: u64,
    /// The last batch that is planned for now.
    until: u64,
}

/// Consecutive batches read in one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRange {
    first: u64,
    last: u64,
    cut: Cut,
    planned: u64,
    /// Whether it has the room of two pages: it is one batch, which may be
    /// larger than a page.
    is_roomy: bool,
}

impl PagePlan {
    pub(super) fn new(planned: u64, cut: impl Into<Cut>, page_bytes: usize) -> Self {
        Self {
            planned,
            cut: cut.into(),
            page_bytes: page_bytes as u64,
            members_per_page: FIRST_PAGE,
            next_batch: 1,
            until: u64::MAX,
        }
    }

    /// Batches in the whole run.
    pub(super) fn batches(&self) -> u32 {
        u32::try_from(self.cut.batches(self.planned)).unwrap_or(u32::MAX)
    }

    /// Plans no member after the first `members`, who are whole batches.
    /// Returns whether there are any.
    pub(super) fn stop_after(&mut self, members: u32) -> bool {
        self.until = self.cut.batches(u64::from(members));
        self.until < u64::from(self.batches())
    }

    /// Whether there is a next page.
    pub(super) fn has_next(&mut self, known: &Known) -> bool {
        let batches = self.last_batch();
        // Looked through once, however often it is asked.
        while self.next_batch <= batches && has_ended(known, self.next_batch) {
            self.next_batch += 1;
        }
        self.next_batch <= batches
    }

    fn last_batch(&self) -> u64 {
        u64::from(self.batches()).min(self.until)
    }

    /// The next page, if anything is left to send.
    pub(super) fn next(&mut self, known: &Known) -> Option<PageRange> {
        if !self.has_next(known) {
            return None;
        }
        let (first, batches) = (self.next_batch, self.last_batch());
        let at_most = (self.members_per_page / self.cut.size()).max(1);
        let last = (first..=batches)
            .take_while(|batch| !has_ended(known, *batch))
            .take(usize::try_from(at_most).unwrap_or(usize::MAX))
            .last()?;
        self.next_batch = last + 1;
        Some(PageRange {
            first,
            last,
            cut: self.cut,
            planned: self.planned,
            is_roomy: self.members_per_page < self.cut.size(),
        })
    }

    /// A page of one batch.
    pub(super) fn only(&self, batch: u32) -> PageRange {
        PageRange {
            first: u64::from(batch),
            last: u64::from(batch),
            cut: self.cut,
            planned: self.planned,
            is_roomy: true,
        }
    }

    /// Bytes of members that may be kept of a page of the plan.
    pub(super) fn most_bytes(&self, range: PageRange) -> usize {
        let pages = if range.is_roomy { 2 } else { 1 };
        usize::try_from(self.page_bytes * pages).unwrap_or(usize::MAX)
    }

    /// Bytes of the next page, or of a batch that is read by itself since it
    /// `has_returned`.
    pub(super) fn room(&self, has_returned: bool) -> u64 {
        let is_roomy = has_returned || self.members_per_page < self.cut.size();
        self.page_bytes * if is_roomy { 2 } else { 1 }
    }

    /// Plans a batch at a time until a page has been read: the last was too
    /// large.
    pub(super) fn shrink(&mut self) {
        self.members_per_page = 1;
    }

    /// Takes up the plan at `batch` again, which was planned before.
    pub(super) fn back_to(&mut self, batch: u32) {
        self.next_batch = self.next_batch.min(u64::from(batch));
    }

    /// Sizes the pages to come by one that was read. Returns how many bytes a
    /// batch has, by that page; at least 1, and none if it was empty.
    pub(super) fn learn(&mut self, page: &Page) -> Option<u64> {
        let bytes = page.bytes().checked_div(page.len())?.max(1) as u64;
        self.members_per_page = (self.page_bytes / bytes).clamp(1, LARGEST_PAGE);
        Some(bytes * self.cut.size())
    }
}

fn has_ended(known: &Known, batch: u64) -> bool {
    u32::try_from(batch).is_ok_and(|batch| known.has_ended(batch))
}

impl PageRange {
    /// The places of its members, from and to, both inclusive.
    pub(super) fn members(&self) -> (u64, u64) {
        let last = self.cut.places_of(self.last).1.min(self.planned);
        (self.cut.places_of(self.first).0, last)
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = u32> + use<> {
        (self.first..=self.last).filter_map(|batch| u32::try_from(batch).ok())
    }

    /// Whether there is no more room for it.
    pub(super) fn is_roomy(&self) -> bool {
        self.is_roomy
    }

    /// The first of its batches.
    pub(super) fn first_batch(&self) -> u32 {
        u32::try_from(self.first).unwrap_or(u32::MAX)
    }

    /// The places of a batch of it.
    pub(super) fn places_of(&self, batch: u32) -> Range<u64> {
        let (_, end) = self.members();
        let (first, last) = self.cut.places_of(u64::from(batch));
        first..last.min(end) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(planned: u64, batch_size: u32, bytes: usize) -> Vec<(u64, u64)> {
        let mut plan = PagePlan::new(planned, batch_size, bytes);
        let none = Known::default();
        std::iter::from_fn(|| plan.next(&none))
            .map(|range| range.members())
            .collect()
    }

    #[test]
    fn pages_hold_whole_batches_and_every_member_once() {
        assert_eq!(
            ranges(2_500, 500, 1 << 20),
            [(1, 1_000), (1_001, 2_000), (2_001, 2_500)]
        );
        assert_eq!(ranges(1, 500, 1 << 20), [(1, 1)]);
        assert_eq!(ranges(0, 500, 1 << 20), []);
    }

    #[test]
    fn a_batch_larger_than_a_page_is_read_whole() {
        assert_eq!(ranges(9_000, 4_500, 1), [(1, 4_500), (4_501, 9_000)]);
    }

    #[test]
    fn a_batch_that_did_not_fit_in_is_read_by_itself_with_twice_the_room() {
        let mut plan = PagePlan::new(2_000, 500, 1 << 20);
        let none = Known::default();
        let page = plan.next(&none).unwrap();
        assert_eq!(
            (page.members(), plan.most_bytes(page)),
            ((1, 1_000), 1 << 20)
        );
        plan.back_to(1);
        plan.shrink();
        let batch = plan.next(&none).unwrap();
        assert_eq!(
            (batch.members(), plan.most_bytes(batch)),
            ((1, 500), 2 << 20)
        );
    }

    #[test]
    fn the_last_batch_is_as_short_as_its_page() {
        let mut plan = PagePlan::new(1_203, 500, 1 << 20);
        let none = Known::default();
        plan.next(&none);
        let last = plan.next(&none).unwrap();
        assert_eq!(last.batches().collect::<Vec<_>>(), [3]);
        assert_eq!(last.places_of(3), 1_001..1_204);
    }
}
