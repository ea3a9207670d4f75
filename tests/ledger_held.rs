//! Held runs, as every ledger keeps them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use campaignd::ledger::SqliteLedger;
use campaignd::run::{AttemptBegun, HeldRun, Ledger, Reopen, Reopening, RunState};
use support::postgres::Postgres;
use support::records::{attempt, campaign, manual, minute, moves, queued, refused};

async fn one_of_which_something_was_sent_stands_in_the_way(ledger: &dyn Ledger) {
    let held = queued(ledger, minute(0)).await;
    let other = queued(ledger, minute(1)).await;
    let change = async |run, from, to| ledger.change_run(moves(run, from, to)).await.unwrap();
    change(&other, RunState::Queued, RunState::Incomplete).await;
    let resume = || Reopen {
        run: other.clone(),
        campaign: campaign(),
        from: RunState::Incomplete,
        to: RunState::Sending,
        reopening: Reopening::Resume,
        error: None,
        at: minute(2),
    };
    change(&held, RunState::Queued, RunState::Held).await;
    let found = ledger.held_runs().await.unwrap();
    let record = ledger.run(&held).await.unwrap().unwrap();
    let has_sent = false;
    assert_eq!(found, [HeldRun { record, has_sent }]);
    // It counts for nothing.
    let beside = ledger.claim_manual(manual(minute(2)), minute(2)).await;
    let beside = beside.unwrap();
    change(&beside, RunState::Queued, RunState::Cancelled).await;

    change(&held, RunState::Held, RunState::Sending).await;
    let first = AttemptBegun {
        run: held.clone(),
        ..attempt("1", 1)
    };
    ledger.begin_attempt(first).await.unwrap();
    assert_eq!(ledger.held_runs().await.unwrap(), []);
    change(&held, RunState::Sending, RunState::Held).await;
    let of_campaign = ledger.held_runs_of(&campaign()).await.unwrap();
    assert!(of_campaign[0].has_sent);
    assert_eq!(of_campaign, ledger.held_runs().await.unwrap());
    let other = "other".parse().unwrap();
    assert_eq!(ledger.held_runs_of(&other).await.unwrap(), []);
    refused(ledger.claim_manual(manual(minute(3)), minute(3)).await);
    refused(ledger.reopen(resume()).await);
    change(&held, RunState::Held, RunState::Cancelled).await;
    ledger.reopen(resume()).await.unwrap();
    assert_eq!(ledger.held_runs().await.unwrap(), []);
}

#[tokio::test]
async fn on_sqlite_one_of_which_something_was_sent_stands_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = SqliteLedger::open(&path).await.unwrap();
    one_of_which_something_was_sent_stands_in_the_way(&ledger).await;
    ledger.close().await;
}

#[tokio::test]
async fn on_postgres_one_of_which_something_was_sent_stands_in_the_way() {
    let server = Postgres::start();
    let ledger = support::ledger::open(&server.database("ledger")).await;
    one_of_which_something_was_sent_stands_in_the_way(&ledger).await;
    ledger.close().await;
}
