//! What a ledger takes back, on every database.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use campaignd::ledger::SqliteLedger;
use campaignd::run::{BatchChange, BatchState, Ledger};
use support::records::{attempt, ends, minute, only_batch, queued, refused, some_run};

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
    a_first_attempt_is_taken_back_as_if_it_had_never_been
    what_may_have_arrived_or_was_attempted_before_is_not_taken_back
    nobody_takes_back_under_another_term
}

async fn a_first_attempt_is_taken_back_as_if_it_had_never_been(ledger: &dyn Ledger) {
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    let back = ends("1", 1, BatchState::Waiting);
    assert!(ledger.take_back(back.clone()).await.unwrap());
    assert_eq!(ledger.batches(&some_run()).await.unwrap(), []);
    refused(ledger.take_back(back.clone()).await.map(drop));
    // With other bytes than before: nobody has seen them.
    let mut again = attempt("1", 1);
    again.body_hash = [8; 32];
    ledger.begin_attempt(again).await.unwrap();
    let batch = only_batch(ledger).await;
    assert_eq!((batch.state, batch.attempts), (BatchState::Sending, 1));
    assert_eq!(batch.body_hash, [8; 32]);
}

async fn what_may_have_arrived_or_was_attempted_before_is_not_taken_back(ledger: &dyn Ledger) {
    let back = ends("1", 1, BatchState::Waiting);
    refused(ledger.take_back(back.clone()).await.map(drop));
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    let ambiguous = ends("1", 1, BatchState::Ambiguous);
    ledger.change_batch(ambiguous).await.unwrap();
    refused(ledger.take_back(back).await.map(drop));
    ledger.begin_attempt(attempt("1", 2)).await.unwrap();
    let later = ends("1", 2, BatchState::Waiting);
    refused(ledger.take_back(later).await.map(drop));
    assert_eq!(only_batch(ledger).await.state, BatchState::Sending);
}

async fn nobody_takes_back_under_another_term(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    let record = ledger.run(&run).await.unwrap().unwrap();
    let begun = campaignd::run::AttemptBegun {
        run: run.clone(),
        term: record.term,
        ..attempt("1", 1)
    };
    ledger.begin_attempt(begun).await.unwrap();
    let back = BatchChange {
        run,
        term: record.term + 1,
        ..ends("1", 1, BatchState::Waiting)
    };
    refused(ledger.take_back(back.clone()).await.map(drop));
    let ours = BatchChange {
        term: record.term,
        ..back
    };
    assert!(ledger.take_back(ours).await.unwrap());
}
