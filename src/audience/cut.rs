//! How the places of a run's members are cut into batches.

/// Batches of consecutive places: all of them full but the last and, where
/// some members are to be sent first, the first one. It is short by as much as
/// makes those a number of whole batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    size: u64,
    shift: u64,
}

impl Cut {
    /// Batches of up to `size` members; the first `canary` members, unless it
    /// is 0, are whole batches of their own.
    pub fn new(size: u32, canary: u32) -> Self {
        let size = u64::from(size.max(1));
        let over = u64::from(canary) % size;
        Self {
            size,
            shift: (size - over) % size,
        }
    }

    /// The batch of the member at `place`, counted from 1; both of them.
    pub fn batch_of(&self, place: u64) -> u64 {
        (place.max(1) - 1 + self.shift) / self.size + 1
    }

    /// How many batches so many members are.
    pub fn batches(&self, members: u64) -> u64 {
        match members {
            0 => 0,
            last => self.batch_of(last),
        }
    }

    /// The first and last place of a full `batch`, both inclusive.
    pub fn places_of(&self, batch: u64) -> (u64, u64) {
        let end = |batch: u64| batch.saturating_mul(self.size).saturating_sub(self.shift);
        (end(batch.saturating_sub(1)) + 1, end(batch))
    }

    /// The members of a full batch.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The same in SQL, of the places that the expression `place` gives.
    pub(super) fn sql(&self, place: &str, integer: &str) -> String {
        let Self { size, shift } = self;
        match shift {
            0 => format!("cast(({place} - 1) / {size} + 1 as {integer})"),
            shift => format!("cast(({place} - 1 + {shift}) / {size} + 1 as {integer})"),
        }
    }
}

impl From<u32> for Cut {
    fn from(size: u32) -> Self {
        Self::new(size, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_are_ranges_without_a_gap_and_the_canary_is_whole_ones(
            size in 1_u32..60, canary in 0_u32..200, members in 1_u64..500,
        ) {
            let cut = Cut::new(size, canary);
            let mut next = 1;
            for batch in 1..=cut.batches(members) {
                let (first, last) = cut.places_of(batch);
                prop_assert_eq!(first, next);
                prop_assert!(last >= first && last - first < u64::from(size));
                prop_assert!((first..=last).all(|place| cut.batch_of(place) == batch));
                next = last + 1;
            }
            prop_assert!(next > members && next - members <= u64::from(size));
            if canary > 0 {
                let last = cut.batch_of(u64::from(canary));
                prop_assert_eq!(cut.places_of(last).1, u64::from(canary));
                prop_assert_eq!(last, u64::from(canary.div_ceil(size)));
            }
        }
    }
}
