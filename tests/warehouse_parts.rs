//! Batches cut into parts, outcomes that a person changes, and ended runs that
//! are opened again: the statements on a real database of each kind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use campaignd::audience::TableNames;
use campaignd::history::{
    BatchOutcome, BatchStatus, Closing, RefusedMember, RunFacts, RunStatus, Tally,
};
use support::place::{PEOPLE, Place, closing, facts, outcome, settlement};
use uuid::Uuid;

/// Runs each test on both databases.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() {
                let mut place = super::Place::sqlite().await;
                super::$name(&mut place).await;
            })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() {
                let mut place = super::Place::postgres().await;
                super::$name(&mut place).await;
            })*
        }
    };
}

on_both! {
    parts_and_members_refused_one_by_one_are_in_history_one_by_one
    an_outcome_that_a_person_has_changed_replaces_the_one_before
    an_ended_run_is_opened_again_with_what_it_did_not_deliver_still_open
    a_run_that_history_knows_more_of_is_not_opened_again_to_send
    what_is_left_of_a_cut_batch_is_cancelled_with_the_rest
}

/// Batch 1 cut in two: its first two members, of which one was refused by
/// name, and its third.
fn cut(facts: &RunFacts) -> Vec<BatchOutcome> {
    let first = BatchOutcome {
        path: "1.0".parse().unwrap(),
        places: Some((1, 2)),
        refused: vec![RefusedMember {
            place: 2,
            reason: Some("no such address".to_owned()),
        }],
        ..outcome(facts, 1, 2, BatchStatus::Delivered)
    };
    let second = BatchOutcome {
        path: "1.1".parse().unwrap(),
        places: Some((3, 3)),
        ..outcome(facts, 1, 1, BatchStatus::Rejected)
    };
    vec![first, second]
}

async fn parts_and_members_refused_one_by_one_are_in_history_one_by_one(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let mut outcomes = cut(&facts);
    outcomes.push(outcome(&facts, 2, 3, BatchStatus::Delivered));
    let settlement = [settlement(&facts, funnel, outcomes)];
    for _ in 0..2 {
        let tally = place.warehouse.settle(&settlement).await.unwrap().remove(0);
        assert_eq!(
            (tally.delivered, tally.rejected, tally.still_open),
            (4, 2, 1)
        );
    }
    let table = TableNames::of(&facts.run).run;
    let rows = format!(
        "select r.cd_seq, h.batch, h.part, h.status, h.reason from campaignd.contact_history h \
         join campaignd.{table} r on r.cd_key = h.profile_id where h.batch = 1 order by r.cd_seq"
    );
    assert_eq!(
        place.rows(&rows).await,
        [
            "1|1|0|delivered|null",
            "2|1|0|rejected|no such address",
            "3|1|1|rejected|the destination's no"
        ]
    );
    let rows =
        "select part, status, members, rejected from campaignd.deliveries order by batch, part";
    assert_eq!(
        place.rows(rows).await,
        ["0|delivered|2|1", "1|rejected|1|1", "|delivered|3|0"]
    );
}

async fn an_outcome_that_a_person_has_changed_replaces_the_one_before(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let parked = |status| {
        vec![
            outcome(&facts, 1, 3, status),
            outcome(&facts, 2, 3, BatchStatus::Delivered),
        ]
    };
    for (status, expect) in [
        (BatchStatus::Unknown, "3|3|3"),
        (BatchStatus::Delivered, "6|0|6"),
        (BatchStatus::Failed, "3|0|3"),
    ] {
        let settlement = [settlement(&facts, funnel, parked(status))];
        for _ in 0..2 {
            place.warehouse.settle(&settlement).await.unwrap();
        }
        let rows = "select (select sum(delivered) from campaignd.runs), \
                    (select sum(unknown) from campaignd.runs), \
                    (select count(*) from campaignd.contact_history where status = 'delivered')";
        assert_eq!(place.rows(rows).await, [expect], "{status:?}");
        let counts = "select (select count(*) from campaignd.contact_history), \
                      (select count(*) from campaignd.deliveries)";
        assert_eq!(place.rows(counts).await, ["6|2"], "{status:?}");
    }
}

async fn an_ended_run_is_opened_again_with_what_it_did_not_deliver_still_open(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let outcomes = vec![
        outcome(&facts, 1, 3, BatchStatus::Delivered),
        outcome(&facts, 2, 3, BatchStatus::Failed),
    ];
    let settled = [settlement(&facts, funnel, outcomes)];
    place.warehouse.settle(&settled).await.unwrap();
    let end = Closing {
        keep_run_table: true,
        withheld_rows: true,
        cancels_rest: Some("the run was cancelled".to_owned()),
        ..closing(&facts, funnel, RunStatus::Cancelled)
    };
    let known = place.warehouse.close(&end).await.unwrap();
    assert_eq!((known.failed, known.cancelled), (3, 1));
    for _ in 0..2 {
        let open = place.warehouse.reopen(&facts, &funnel, &known, true).await;
        assert_eq!(open.unwrap().still_open, 4);
        let rows = "select status, delivered, failed, cancelled, still_open from campaignd.runs";
        assert_eq!(place.rows(rows).await, ["open|3|0|0|4"]);
        let rows = "select run_id, state from campaignd.open_runs";
        assert_eq!(place.rows(rows).await.len(), 1);
        let rows = "select status, count(*) from campaignd.contact_history group by status";
        assert_eq!(place.rows(rows).await, ["delivered|3"]);
    }
    // Another daemon cannot.
    let theirs = RunFacts {
        owner: Uuid::from_u128(2),
        ..facts.clone()
    };
    let taken = place.warehouse.reopen(&theirs, &funnel, &known, true).await;
    assert!(taken.unwrap_err().is_not_ours());
    place
        .warehouse
        .close(&closing(&facts, funnel, RunStatus::Finished))
        .await
        .unwrap();
    let gone = place.warehouse.reopen(&facts, &funnel, &known, true).await;
    assert!(gone.unwrap_err().is_gone());
}

async fn a_run_that_history_knows_more_of_is_not_opened_again_to_send(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let outcomes = vec![outcome(&facts, 1, 3, BatchStatus::Unknown)];
    let settled = [settlement(&facts, funnel, outcomes)];
    place.warehouse.settle(&settled).await.unwrap();
    let end = Closing {
        keep_run_table: true,
        withheld_rows: true,
        ..closing(&facts, funnel, RunStatus::Incomplete)
    };
    place.warehouse.close(&end).await.unwrap();
    let known = Tally::default();
    let refused = place.warehouse.reopen(&facts, &funnel, &known, true).await;
    assert!(refused.unwrap_err().is_gone());
    let rows = "select status from campaignd.runs";
    assert_eq!(place.rows(rows).await, ["incomplete"]);
    // To decide a batch of it is another matter.
    place
        .warehouse
        .reopen(&facts, &funnel, &known, false)
        .await
        .unwrap();
}

async fn what_is_left_of_a_cut_batch_is_cancelled_with_the_rest(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let settled = [settlement(&facts, funnel, cut(&facts)[..1].to_vec())];
    place.warehouse.settle(&settled).await.unwrap();
    let end = Closing {
        keep_run_table: true,
        withheld_rows: true,
        cancels_rest: Some("the run was cancelled".to_owned()),
        ..closing(&facts, funnel, RunStatus::Cancelled)
    };
    for _ in 0..2 {
        let tally = place.warehouse.close(&end).await.unwrap();
        assert_eq!(
            (tally.delivered, tally.rejected, tally.cancelled),
            (1, 1, 5)
        );
    }
    let rows = "select batch, part, status, members from campaignd.deliveries order by batch, part";
    assert_eq!(
        place.rows(rows).await,
        [
            "1||cancelled|1",
            "1|0|delivered|2",
            "2||cancelled|3",
            "3||cancelled|1"
        ]
    );
    let rows = "select count(*), count(distinct profile_id) from campaignd.contact_history";
    assert_eq!(place.rows(rows).await, ["7|7"]);
}
