//! What a ledger forgets and what it keeps, on every database.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use campaignd::id::RunId;
use campaignd::ledger::SqliteLedger;
use campaignd::run::{Action, BatchState, BatchStatus, Forget, Ledger, RunState};
use jiff::Timestamp;
use support::records::{
    attempt, campaign, claim, ends, minute, moves, new_run, only_batch, queued, some_run,
};

macro_rules! promises {
    ($($promise:ident)*) => {
        mod on_sqlite {
            use super::SqliteLedger;

            $(#[tokio::test]
            async fn $promise() {
                let folder = tempfile::tempdir().unwrap();
                let ledger = SqliteLedger::open(&folder.path().join("state.db")).await.unwrap();
                super::$promise(&ledger).await;
                ledger.close().await;
            })*
        }

        mod on_postgres {
            use super::support::postgres::Postgres;

            $(#[tokio::test]
            async fn $promise() {
                let server = Postgres::start();
                let ledger = super::support::ledger::open(&server.database("ledger")).await;
                super::$promise(&ledger).await;
                ledger.close().await;
            })*
        }
    };
}

promises! {
    a_run_that_ended_long_ago_is_forgotten_with_its_batches
    what_somebody_may_still_need_stays
    a_step_is_bounded_and_the_newest_of_each_kind_stays
    what_people_asked_long_ago_is_forgotten
}

fn before(at: Timestamp) -> Forget {
    Forget {
        runs_before: at,
        actions_before: minute(0),
    }
}

/// Takes every step there is, none of them large.
async fn forget(ledger: &dyn Ledger, at: Timestamp) {
    for _ in 0..50 {
        match ledger.forget(before(at)).await.unwrap() {
            0 => return,
            removed => assert!(removed <= 4_000, "{removed} rows at once"),
        }
    }
    panic!("it never ends");
}

async fn ended(ledger: &dyn Ledger, at: i64, state: RunState) -> RunId {
    let run = queued(ledger, minute(at)).await;
    let ends = moves(&run, RunState::Queued, state);
    ledger.change_run(ends).await.unwrap();
    run
}

/// An ended batch of the run at minute 0.
async fn batch(ledger: &dyn Ledger) {
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    let ends = ends("1", 1, BatchState::Accepted);
    ledger.change_batch(ends).await.unwrap();
}

async fn settle(ledger: &dyn Ledger) {
    let settled = vec![("1".parse().unwrap(), BatchStatus::Delivered)];
    ledger.mark_settled(&some_run(), 0, settled).await.unwrap();
}

async fn there(ledger: &dyn Ledger) -> Vec<RunId> {
    let mut runs = ledger.runs(None, 1_000).await.unwrap();
    runs.reverse();
    runs.into_iter().map(|run| run.run).collect()
}

async fn a_run_that_ended_long_ago_is_forgotten_with_its_batches(ledger: &dyn Ledger) {
    let old = ended(ledger, 0, RunState::Finished).await;
    batch(ledger).await;
    settle(ledger).await;
    let young = ended(ledger, 5, RunState::Finished).await;
    forget(ledger, minute(0)).await;
    assert_eq!(there(ledger).await, [old.clone(), young.clone()]);
    forget(ledger, minute(2)).await;
    assert_eq!(there(ledger).await, vec![young.clone()]);
    assert_eq!(ledger.batches(&old).await.unwrap(), []);
    let kept = ledger.run(&young).await.unwrap().unwrap();
    assert_eq!(kept.spec, "{}");
}

async fn what_somebody_may_still_need_stays(ledger: &dyn Ledger) {
    let unsettled = ended(ledger, 0, RunState::Incomplete).await;
    batch(ledger).await;
    let held = ended(ledger, 5, RunState::Held).await;
    let gone = ended(ledger, 10, RunState::Incomplete).await;
    let held_too = ended(ledger, 15, RunState::Held).await;
    let newest = ended(ledger, 20, RunState::Incomplete).await;
    let open = queued(ledger, minute(25)).await;
    let open_too = queued(ledger, minute(30)).await;
    forget(ledger, minute(1_000)).await;
    assert_eq!(ledger.run(&gone).await.unwrap(), None);
    let kept = [unsettled, held, held_too, newest, open, open_too];
    assert_eq!(there(ledger).await, kept);
    assert_eq!(only_batch(ledger).await.state, BatchState::Accepted);
    settle(ledger).await;
    forget(ledger, minute(1_000)).await;
    assert_eq!(there(ledger).await, kept[1..]);
}

async fn a_step_is_bounded_and_the_newest_of_each_kind_stays(ledger: &dyn Ledger) {
    let states = |n: i64| match n {
        7 => RunState::Missed,
        _ => RunState::Skipped,
    };
    let runs = (0..250).map(|n| new_run(minute(n), states(n))).collect();
    ledger.claim(claim(None, minute(250), runs)).await.unwrap();
    let first = ledger.forget(before(minute(9_999))).await.unwrap();
    assert_eq!(first, 100);
    forget(ledger, minute(9_999)).await;
    let newest = [7, 249].map(|n| RunId::scheduled(&campaign(), minute(n)));
    assert_eq!(there(ledger).await, newest);
}

async fn what_people_asked_long_ago_is_forgotten(ledger: &dyn Ledger) {
    for n in [0, 50] {
        let action = Action {
            by: "ada".to_owned(),
            verb: "pause".to_owned(),
            target: "all".to_owned(),
            outcome: Some("done".to_owned()),
            at: minute(n),
        };
        ledger.note_action(action).await.unwrap();
    }
    let old = Forget {
        runs_before: minute(0),
        actions_before: minute(50),
    };
    assert_eq!(ledger.forget(old).await, Ok(1));
    assert_eq!(ledger.forget(old).await, Ok(0));
}
