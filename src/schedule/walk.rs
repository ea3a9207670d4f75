//! From wall-clock slots to instants, across the changes of a zone's offset.

use super::cron::CronLine;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// The first fire time of `line` strictly after `after`.
///
/// Walks the stretches of constant offset. Within one, wall clock and instant
/// go together and croner's answer is right as it is; what happens at the
/// seams is decided here, so that the answer is the same from wherever the
/// search begins.
pub(super) fn next_after(line: &CronLine, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut offset = zone.to_offset(after);
    let mut from = offset.to_datetime(after);
    let mut inclusive = false;
    if !line.repeats()
        && let Some(end) = end_of_first_pass(zone, after, offset)
        && from < end
    {
        (from, inclusive) = (end, true);
    }
    let mut slot = line.next_slot(from, inclusive)?;
    for change in zone.following(after) {
        let seam = change.timestamp();
        let (old_end, new_start) = (offset.to_datetime(seam), change.offset().to_datetime(seam));
        if slot < old_end {
            break;
        }
        offset = change.offset();
        if slot < new_start {
            // The clock jumps over the slot.
            if line.names_hours() {
                return Some(seam);
            }
            slot = line.next_slot(new_start, true)?;
        } else if line.repeats() && new_start < old_end {
            // The clock goes back: an interval runs through it again.
            slot = line.next_slot(new_start, true)?;
        }
    }
    offset.to_timestamp(slot).ok()
}

/// Where `at` lies after the clock went back: the wall-clock time at which it
/// did, up to which every slot has had its turn.
fn end_of_first_pass(zone: &TimeZone, at: Timestamp, offset: Offset) -> Option<DateTime> {
    // `preceding` leaves out a change at the very instant it is given.
    let just_after = at.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
    let seam = zone.preceding(just_after).next()?.timestamp();
    let before = seam.checked_sub(jiff::SignedDuration::from_nanos(1)).ok()?;
    let old_offset = zone.to_offset(before);
    (old_offset > offset).then(|| old_offset.to_datetime(seam))
}
