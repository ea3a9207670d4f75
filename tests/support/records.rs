//! Runs, batches and their moves, as a ledger is asked to write them.

use campaignd::id::{CampaignName, RunId, Trigger};
use campaignd::run::{
    AttemptBegun, BatchChange, BatchRecord, BatchState, BatchStatus, Claim, Cursor, Ledger,
    LedgerError, NewRun, RunChange, RunState,
};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Minutes after nine o'clock.
pub fn minute(n: i64) -> Timestamp {
    at("2026-11-22T09:00:00Z") + SignedDuration::from_mins(n)
}

pub fn campaign() -> CampaignName {
    "winback".parse().unwrap()
}

pub fn new_run(fire_time: Timestamp, state: RunState) -> NewRun {
    NewRun {
        run: RunId::scheduled(&campaign(), fire_time),
        campaign: campaign(),
        connector: "warehouse".parse().unwrap(),
        fire_time,
        trigger: Trigger::Scheduled,
        campaign_version: "v1".to_owned(),
        spec: "{}".into(),
        state,
        error: None,
    }
}

pub fn cursor(seen_until: Timestamp) -> Cursor {
    Cursor {
        schedule_hash: "hash".to_owned(),
        seen_until,
        schedule: Some("every\n3600\n".to_owned()),
        is_disabled: true,
    }
}

pub fn claim(before: Option<Timestamp>, after: Timestamp, runs: Vec<NewRun>) -> Claim {
    Claim {
        campaign: campaign(),
        before: before.map(cursor),
        after: cursor(after),
        runs,
        at: after,
    }
}

/// A run in the ledger, queued.
pub async fn queued(ledger: &dyn Ledger, fire_time: Timestamp) -> RunId {
    let before = ledger.cursor(&campaign()).await.unwrap();
    let runs = vec![new_run(fire_time, RunState::Queued)];
    let mut claim = claim(None, fire_time, runs);
    claim.before = before;
    ledger.claim(claim).await.unwrap().remove(0)
}

pub fn moves(run: &RunId, from: RunState, to: RunState) -> RunChange {
    RunChange {
        run: run.clone(),
        term: 0,
        from,
        to,
        at: minute(1),
        asked: None,
        funnel: None,
        tally: None,
        error: None,
    }
}

pub fn manual(fire_time: Timestamp) -> NewRun {
    NewRun {
        trigger: Trigger::Manual,
        ..new_run(fire_time, RunState::Queued)
    }
}

pub fn some_run() -> RunId {
    RunId::scheduled(&campaign(), minute(0))
}

pub fn attempt(path: &str, attempt: u32) -> AttemptBegun {
    AttemptBegun {
        run: some_run(),
        term: 0,
        path: path.parse().unwrap(),
        generation: 0,
        attempt,
        members: 500,
        body_hash: [7; 32],
        places: None,
        at: minute(i64::from(attempt)),
    }
}

/// A move out of `Sending`, with the status an ended batch needs.
pub fn ends(path: &str, attempt: u32, to: BatchState) -> BatchChange {
    BatchChange {
        run: some_run(),
        term: 0,
        path: path.parse().unwrap(),
        attempt,
        from: BatchState::Sending,
        to,
        status: match to {
            BatchState::Accepted => Some(BatchStatus::Delivered),
            BatchState::Refused => Some(BatchStatus::Failed),
            BatchState::Parked => Some(BatchStatus::Unknown),
            _ => None,
        },
        http_status: None,
        at: minute(30),
        next_at: None,
        excused: Duration::ZERO,
        error: None,
        refused: Vec::new(),
    }
}

pub async fn only_batch(ledger: &dyn Ledger) -> BatchRecord {
    let mut batches = ledger.batches(&some_run()).await.unwrap();
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, LedgerError>) {
    let error = answer.expect_err("not refused");
    assert!(matches!(error, LedgerError::Conflict { .. }), "{error:?}");
}
