//! Outcomes brought into history, on SQLite, on a real PostgreSQL and on one
//! that passes for Redshift: once each, and counted right.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::history::{BatchOutcome, BatchStatus, RefusedMember, RunStatus, Settlement, Tally};
use support::place::{PEOPLE, Place, closing, facts, facts_of, outcome, settlement};

crate::on_each_warehouse! {
    settling_again_writes_nothing
    settled_bit_by_bit_a_runs_row_says_what_its_deliveries_say
    where_nothing_can_be_added_to_a_runs_row_its_deliveries_are_counted
    a_run_is_not_settled_twice_in_one_transaction
    several_runs_settle_in_one_transaction
}

async fn settling_again_writes_nothing(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let outcomes = vec![
        outcome(&facts, 1, 3, BatchStatus::Delivered),
        outcome(&facts, 2, 3, BatchStatus::Failed),
        outcome(&facts, 2, 3, BatchStatus::Failed),
    ];
    let settlement = [settlement(&facts, funnel, outcomes)];
    let once = place.warehouse.settle(&settlement).await.unwrap();
    assert_eq!(place.warehouse.settle(&settlement).await.unwrap(), once);
    assert_eq!(
        (once[0].delivered, once[0].failed, once[0].still_open),
        (3, 3, 1)
    );

    // Nor does what is known when something else is new.
    let mut more = settlement.clone();
    let last = outcome(&facts, 3, 1, BatchStatus::Delivered);
    let known = more[0].outcomes.iter().cloned();
    more[0].outcomes = known.chain([last]).collect();
    let all = place.warehouse.settle(&more).await.unwrap();
    assert_eq!((all[0].delivered, all[0].still_open), (4, 0));

    place
        .warehouse
        .close(&closing(&facts, funnel, RunStatus::Incomplete))
        .await
        .unwrap();
    // Also when the run is closed: its last row stays as it is.
    assert_eq!(place.warehouse.settle(&settlement).await.unwrap(), all);
    let counts = "select (select count(*) from campaignd.contact_history), \
                  (select count(*) from campaignd.deliveries), \
                  (select count(*) from campaignd.runs where status = 'incomplete')";
    assert_eq!(place.rows(counts).await, ["7|3|1"]);
}

async fn settled_bit_by_bit_a_runs_row_says_what_its_deliveries_say(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let refuses_one = BatchOutcome {
        refused: vec![RefusedMember {
            place: 2,
            reason: None,
        }],
        ..outcome(&facts, 1, 3, BatchStatus::Delivered)
    };
    let parked = outcome(&facts, 2, 3, BatchStatus::Unknown);
    // A person has decided about it.
    let arrived = outcome(&facts, 2, 3, BatchStatus::Delivered);
    let last = outcome(&facts, 3, 1, BatchStatus::Rejected);
    let mut said = Vec::new();
    for outcomes in [
        vec![refuses_one.clone()],
        vec![],
        vec![parked],
        vec![refuses_one, arrived],
        vec![last],
    ] {
        let settlement = settlement(&facts, funnel, outcomes);
        let tally = place.warehouse.settle(&[settlement]).await.unwrap()[0];
        let row = "select delivered, rejected, unknown, still_open from campaignd.runs";
        let by_tally = format!(
            "{}|{}|{}|{}",
            tally.delivered, tally.rejected, tally.unknown, tally.still_open
        );
        assert_eq!(place.rows(row).await, [by_tally.as_str()]);
        said.push(by_tally);
    }
    let expect = ["2|1|0|4", "2|1|0|4", "2|1|3|1", "5|1|0|1", "5|2|0|0"];
    assert_eq!(said, expect);
    let close = closing(&facts, funnel, RunStatus::Incomplete);
    let counted = place.warehouse.close(&close).await.unwrap();
    assert_eq!((counted.delivered, counted.rejected), (5, 2));
}

async fn where_nothing_can_be_added_to_a_runs_row_its_deliveries_are_counted(place: &mut Place) {
    let (one, two) = (facts_of("one", PEOPLE), facts_of("two", PEOPLE));
    let funnel = place.laid_out(&one).await;
    place.laid_out(&two).await;
    let first = |facts| outcome(facts, 1, 3, BatchStatus::Delivered);
    let second = |facts| outcome(facts, 2, 3, BatchStatus::Failed);
    let third = |facts| outcome(facts, 3, 1, BatchStatus::Delivered);
    // Of one run all is new, of the other a part is known.
    let begun = settlement(&two, funnel, vec![first(&two)]);
    place.warehouse.settle(&[begun]).await.unwrap();
    let both = [
        settlement(&one, funnel, vec![first(&one)]),
        settlement(&two, funnel, vec![first(&two), second(&two)]),
    ];
    let tallies = place.warehouse.settle(&both).await.unwrap();
    let counts = |tally: &Tally| (tally.delivered, tally.failed, tally.still_open);
    assert_eq!(
        (counts(&tallies[0]), counts(&tallies[1])),
        ((3, 0, 4), (3, 3, 1))
    );
    // One run has lost its row, the other has two.
    place
        .run_ours("delete from campaignd.runs where campaign = 'one'")
        .await;
    place
        .run_ours("insert into campaignd.runs select * from campaignd.runs")
        .await;
    let both = [
        settlement(&one, funnel, vec![second(&one)]),
        settlement(&two, funnel, vec![third(&two)]),
    ];
    let tallies = place.warehouse.settle(&both).await.unwrap();
    assert_eq!(
        (counts(&tallies[0]), counts(&tallies[1])),
        ((3, 3, 1), (4, 3, 0))
    );
    // A row that is wrong is put right when the run has been sent.
    place
        .run_ours("update campaignd.runs set delivered = 9 where campaign = 'one'")
        .await;
    let last = Settlement {
        counts_anew: true,
        ..settlement(&one, funnel, vec![third(&one)])
    };
    let tallies = place.warehouse.settle(&[last]).await.unwrap();
    assert_eq!(counts(&tallies[0]), (4, 3, 0));
    let rows = "select campaign, delivered, failed from campaignd.runs order by campaign";
    assert_eq!(place.rows(rows).await, ["one|4|3", "two|4|3"]);
}

async fn a_run_is_not_settled_twice_in_one_transaction(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let sent = vec![outcome(&facts, 1, 3, BatchStatus::Delivered)];
    let once = settlement(&facts, funnel, sent);
    let both = [once.clone(), once];
    let refused = place.warehouse.settle(&both).await.unwrap_err();
    assert!(refused.is_transient(), "each alone is taken: {refused}");
    for alone in both {
        place.warehouse.settle(&[alone]).await.unwrap();
    }
    let rows = "select count(*) from campaignd.contact_history";
    assert_eq!(place.rows(rows).await, ["3"]);
}

async fn several_runs_settle_in_one_transaction(place: &mut Place) {
    let (one, two) = (facts_of("one", PEOPLE), facts_of("two", PEOPLE));
    let funnel = place.laid_out(&one).await;
    place.laid_out(&two).await;
    let settlements = [
        settlement(
            &one,
            funnel,
            vec![outcome(&one, 3, 1, BatchStatus::Delivered)],
        ),
        settlement(
            &two,
            funnel,
            vec![outcome(&two, 1, 3, BatchStatus::Cancelled)],
        ),
    ];
    let tallies = place.warehouse.settle(&settlements).await.unwrap();
    assert_eq!((tallies[0].delivered, tallies[0].still_open), (1, 6));
    assert_eq!((tallies[1].cancelled, tallies[1].still_open), (3, 4));
    let rows = "select campaign, status, count(*) from campaignd.contact_history \
                group by campaign, status order by campaign";
    assert_eq!(
        place.rows(rows).await,
        ["one|delivered|1", "two|cancelled|3"]
    );
}
