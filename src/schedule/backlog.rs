//! A schedule that is so far behind that not each of its fire times gets a
//! row.

use super::due::{Due, Look, fate};
use super::plan::Schedule;
use jiff::{SignedDuration, Timestamp};

/// How many fire times of one time in which nothing was running are written
/// down one by one: the newest. Two weeks of a schedule that fires every
/// minute; a month of one that fires every second would be 2.6 million rows in
/// a warehouse that takes a few hundred a second.
const MAX_RECORDED: usize = 20_000;

/// The first look at more fire times than get a row each: those before the
/// newest share one, which says so, and the cursor goes on behind them. None
/// where each gets its own. `chosen` runs, where it is among them.
pub(super) fn far_behind(
    schedule: &Schedule,
    (since, until): (Timestamp, Timestamp),
    chosen: Option<Timestamp>,
    now: Timestamp,
) -> Option<Look> {
    let from = newest_from(schedule, since, until)?;
    let last = schedule.last_until(since, from)?;
    let told = schedule.fire_times(since, last, 2);
    let teller = *told.iter().find(|told| Some(**told) != chosen)?;
    let mut due = vec![Due::Missed {
        fire_time: teller,
        reason: format!(
            "passed while nothing was running, as did every fire time up to {last}: only the \
             newest are written down one by one"
        ),
    }];
    if let Some(chosen) = chosen.filter(|chosen| *chosen <= last) {
        due.push(fate(schedule, chosen, Some(chosen), now));
        due.sort_by_key(Due::fire_time);
    }
    Some(Look {
        due,
        seen_until: last,
    })
}

/// From when on the fire times until then are at most [`MAX_RECORDED`]; none
/// where all of them are.
fn newest_from(schedule: &Schedule, since: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let mut newest = until;
    let mut window = SignedDuration::from_mins(10);
    loop {
        // Looks back further each time: the search knows only forward, and
        // what lies between may be millions.
        let from = until.checked_sub(window).unwrap_or(since).max(since);
        let found = schedule.fire_times(from, until, MAX_RECORDED + 1).len();
        if found > MAX_RECORDED {
            return Some(newest);
        }
        if from == since {
            return None;
        }
        newest = from;
        window = window.saturating_add(window);
    }
}

#[cfg(test)]
mod tests {
    use super::super::due::{Seen, due};
    use super::super::terms::{CatchUp, Terms};
    use super::*;

    /// Looks as the ticker does, until all is seen.
    fn all_due(terms: Terms, since: &str, now: &str) -> Vec<Due> {
        let every_second = Schedule::compile(&["* * * * * *".to_owned()], "UTC").unwrap();
        let schedule = every_second.under(terms);
        let (hash, now) = (schedule.hash(), now.parse().unwrap());
        let mut seen_until: Timestamp = since.parse().unwrap();
        let mut all = Vec::new();
        while seen_until < now {
            let seen = Seen {
                schedule_hash: &hash,
                seen_until,
            };
            let look = due(&schedule, Some(seen), now, false);
            seen_until = look.seen_until;
            all.extend(look.due);
            if let Some(Due::Run(_)) = all.last() {
                break;
            }
        }
        all
    }

    #[track_caller]
    fn check(terms: Terms) {
        let all = all_due(terms, "2026-10-22T09:00:00Z", "2026-11-22T09:00:00Z");
        assert!(
            (MAX_RECORDED / 2..=MAX_RECORDED + 1).contains(&all.len()),
            "{}",
            all.len()
        );
        let Due::Missed { fire_time, reason } = &all[0] else {
            panic!("{:?}", all[0]);
        };
        assert_eq!(fire_time.to_string(), "2026-10-22T09:00:01Z");
        let (_, told) = reason.split_once("every fire time up to ").unwrap();
        let last: Timestamp = told.split_once(": only").unwrap().0.parse().unwrap();
        let second = SignedDuration::from_secs(1);
        assert_eq!(
            all[1].fire_time(),
            last + second,
            "none between them is lost"
        );
        let each = all[1..].windows(2);
        assert!(
            each.map(|pair| pair[1].fire_time().duration_since(pair[0].fire_time()))
                .all(|gap| gap == second)
        );
    }

    #[test]
    fn the_older_ones_share_a_row_that_says_so_and_the_newest_have_one_each() {
        check(Terms::default());
        check(Terms {
            catch_up: CatchUp::None,
            ..Terms::default()
        });
        check(Terms {
            catch_up: CatchUp::All,
            catch_up_within: Some(std::time::Duration::from_secs(60)),
            ..Terms::default()
        });
    }
}
