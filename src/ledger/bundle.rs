//! Writes of one kind that wait together, done by one statement: first
//! attempts, and moves of batches. A statement a write is what a ledger would
//! otherwise spend most of its time on.

use super::command::Command;
use super::rows::{micros, micros_of};
use super::trouble::conflict;
use super::write_batch::{place, refused};
use crate::id::{BatchPath, RunId};
use crate::run::{AttemptBegun, BatchChange, BatchState, LedgerError};
use serde::Serialize;
use std::collections::BTreeSet;

/// What is done next of a group of writes, each with its place in it.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// One write by itself.
    One(usize, &'a Command),
    /// First attempts of different batches.
    First(Vec<(usize, &'a AttemptBegun)>),
    /// Moves of different batches.
    Changes(Vec<(usize, &'a BatchChange)>),
}

/// The batches that a statement has written.
pub(super) type Done = BTreeSet<(String, i64, String)>;

/// Orders a group of writes: those of one batch, and those before and after
/// any other kind of write, stay in their order.
pub(super) fn steps<'a>(commands: impl Iterator<Item = &'a Command>) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let mut open = Open::default();
    for (place, command) in commands.enumerate() {
        match command {
            Command::BeginAttempt(begun) if begun.attempt == 1 => {
                open.make_way((&begun.run, &begun.path), &mut steps);
                open.first.push((place, begun));
            }
            Command::ChangeBatch(change) => {
                open.make_way((&change.run, &change.path), &mut steps);
                open.changes.push((place, change));
            }
            _ => {
                open.close(&mut steps);
                steps.push(Step::One(place, command));
            }
        }
    }
    open.close(&mut steps);
    steps
}

/// Refused where the statement has not written the first attempt: the batch
/// is there already, or the run under another term.
pub(super) fn begun(begun: &AttemptBegun, done: &Done) -> Result<(), LedgerError> {
    written((&begun.run, &begun.path), done, || not_attempted(begun))
}

/// The same, where it is known without a statement.
pub(super) fn not_begun(begun: &AttemptBegun) -> LedgerError {
    conflict(not_attempted(begun))
}

fn not_attempted(begun: &AttemptBegun) -> String {
    format!("batch {} of {} not yet attempted", begun.path, begun.run)
}

/// Refused where the statement has not moved the batch: it is elsewhere, or
/// the run under another term.
pub(super) fn changed(change: &BatchChange, done: &Done) -> Result<(), LedgerError> {
    let what = || {
        format!(
            "batch {} of {} in state {} at attempt {}",
            change.path,
            change.run,
            change.from.as_str(),
            change.attempt
        )
    };
    written((&change.run, &change.path), done, what)
}

/// Refused where no row of a first attempt was removed: the batch is elsewhere,
/// or the run under another term.
pub(super) fn taken_back(change: &BatchChange, removed: u64) -> Result<(), LedgerError> {
    let what = || {
        format!(
            "batch {} of {} at its first attempt",
            change.path, change.run
        )
    };
    (removed == 1).then_some(()).ok_or_else(|| conflict(what()))
}

fn written(
    (run, path): (&RunId, &BatchPath),
    done: &Done,
    what: impl FnOnce() -> String,
) -> Result<(), LedgerError> {
    let batch = i64::from(path.batch);
    let is_done = done.contains(&(run.to_string(), batch, path.part.clone()));
    is_done.then_some(()).ok_or_else(|| conflict(what()))
}

/// What is collected for the next statements, of a batch each.
#[derive(Default)]
struct Open<'a> {
    first: Vec<(usize, &'a AttemptBegun)>,
    changes: Vec<(usize, &'a BatchChange)>,
    batches: BTreeSet<(&'a RunId, &'a BatchPath)>,
}

impl<'a> Open<'a> {
    /// A second write of a batch comes after the first.
    fn make_way(&mut self, batch: (&'a RunId, &'a BatchPath), steps: &mut Vec<Step<'a>>) {
        if !self.batches.insert(batch) {
            self.close(steps);
            self.batches.insert(batch);
        }
    }

    fn close(&mut self, steps: &mut Vec<Step<'a>>) {
        if !self.first.is_empty() {
            steps.push(Step::First(std::mem::take(&mut self.first)));
        }
        if !self.changes.is_empty() {
            steps.push(Step::Changes(std::mem::take(&mut self.changes)));
        }
        self.batches.clear();
    }
}

/// A first attempt as the statement reads it.
#[derive(Serialize)]
pub(super) struct FirstRow<'a> {
    pub(super) run_id: &'a str,
    pub(super) term: i32,
    pub(super) batch: u32,
    pub(super) part: &'a str,
    pub(super) generation: u32,
    pub(super) members: u32,
    pub(super) body_hash: String,
    pub(super) at: i64,
    pub(super) first_place: Option<i64>,
    pub(super) last_place: Option<i64>,
}

impl<'a> FirstRow<'a> {
    pub(super) fn of(begun: &'a AttemptBegun) -> Self {
        Self {
            run_id: begun.run.as_str(),
            term: begun.term,
            batch: begun.path.batch,
            part: &begun.path.part,
            generation: begun.generation,
            members: begun.members,
            body_hash: hex::encode(begun.body_hash),
            at: micros(begun.at),
            first_place: place(begun.places.map(|(first, _)| first)),
            last_place: place(begun.places.map(|(_, last)| last)),
        }
    }
}

/// A move as the statement reads it.
#[derive(Serialize)]
pub(super) struct ChangeRow<'a> {
    pub(super) run_id: &'a str,
    pub(super) term: i32,
    pub(super) batch: u32,
    pub(super) part: &'a str,
    pub(super) attempt: u32,
    pub(super) from_state: &'static str,
    pub(super) to_state: &'static str,
    pub(super) status: Option<&'static str>,
    pub(super) http_status: Option<u16>,
    pub(super) next_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) error: Option<&'a str>,
    pub(super) excused: i64,
    pub(super) rejected: Option<String>,
}

impl<'a> ChangeRow<'a> {
    pub(super) fn of(change: &'a BatchChange) -> Self {
        let has_ended = change.to.has_ended();
        let is_sent_again = matches!(change.to, BatchState::Waiting | BatchState::Ambiguous);
        let status = change.status.filter(|_| has_ended);
        Self {
            run_id: change.run.as_str(),
            term: change.term,
            batch: change.path.batch,
            part: &change.path.part,
            attempt: change.attempt,
            from_state: change.from.as_str(),
            to_state: change.to.as_str(),
            status: status.map(|status| status.as_str()),
            http_status: change.http_status,
            next_at: change.next_at.filter(|_| is_sent_again).map(micros),
            ended_at: has_ended.then(|| micros(change.at)),
            error: change.error.as_deref(),
            excused: micros_of(change.excused),
            rejected: refused(&change.refused),
        }
    }
}

#[cfg(test)]
mod tests;
