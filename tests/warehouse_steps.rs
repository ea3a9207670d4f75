//! The steps of a run in the warehouse, on SQLite, on a real PostgreSQL and
//! on one that passes for Redshift: the same promises for all.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::audience::TableNames;
use campaignd::history::{
    BatchStatus, Closing, RunFacts, RunStatus, Settlement, Tally, UnstartedRun,
};
use campaignd::id::{CampaignName, RunId};
use campaignd::run::{Kind, Registration, WarehouseErrorClass};
use campaignd::warehouse::open;
use support::place::{Eyes, PEOPLE, Place, at, closing, facts, facts_of, outcome, settlement};
use uuid::Uuid;

crate::on_each_warehouse! {
    a_run_goes_from_its_audience_to_its_history
    every_step_can_be_repeated
    values_come_back_as_they_were
    a_run_of_another_owner_is_taken
    a_run_that_has_ended_is_taken
    a_run_held_after_part_of_it_was_sent_is_never_staged_anew
    a_run_that_fails_to_register_leaves_anothers_row_as_it_is
    a_failing_query_says_where
    columns_that_cannot_be_staged_are_refused
    wide_audiences_are_whole_or_refused
    a_semicolon_and_a_comment_at_the_end_do_no_harm
    more_than_one_statement_is_never_run
    an_empty_audience_is_closed_with_zeros
    a_run_that_failed_before_admission_is_closed
    fire_times_without_a_run_are_recorded_once
    of_two_daemons_one_gets_the_run
    an_error_names_no_member
}

async fn a_run_goes_from_its_audience_to_its_history(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    assert!(funnel.adds_up());
    let fell_out = (
        funnel.audience,
        funnel.no_key,
        funnel.bad_key,
        funnel.duplicate,
    );
    assert_eq!(fell_out, (12, 2, 1, 2));
    assert_eq!(funnel.planned, 7);
    assert_eq!(place.tables_of(&facts).await, ["run"]);

    let page = place
        .warehouse
        .page(&facts, (1, 7), usize::MAX)
        .await
        .unwrap();
    assert_eq!(page.len(), 7);
    assert_eq!(&**page.columns(), ["id", "email", "age"]);

    let first = [
        outcome(&facts, 1, 3, BatchStatus::Delivered),
        outcome(&facts, 2, 3, BatchStatus::Unknown),
    ];
    let tally = place
        .warehouse
        .settle(&[settlement(&facts, funnel, first.into())])
        .await
        .unwrap();
    let expected = Tally {
        delivered: 3,
        unknown: 3,
        still_open: 1,
        ..Tally::default()
    };
    assert_eq!(tally, [expected]);
    let row =
        "select status, audience, planned, delivered, unknown, still_open from campaignd.runs";
    assert_eq!(place.rows(row).await, ["open|12|7|3|3|1"]);

    let last = outcome(&facts, 3, 1, BatchStatus::Rejected);
    place
        .warehouse
        .settle(&[settlement(&facts, funnel, vec![last])])
        .await
        .unwrap();
    let tally = place
        .warehouse
        .close(&closing(&facts, funnel, RunStatus::Incomplete))
        .await
        .unwrap();
    assert_eq!((tally.rejected, tally.still_open), (1, 0));
    assert_eq!(tally.total(), funnel.planned);
    assert_eq!(place.tables_of(&facts).await, [""; 0]);
    assert_eq!(
        place.rows("select * from campaignd.open_runs").await,
        [""; 0]
    );
    the_history_of_winback_is_whole(place).await;
}

async fn the_history_of_winback_is_whole(place: &mut Place) {
    let counted = "select status, batch, count(*), count(distinct profile_id) \
                   from campaignd.contact_history group by status, batch order by batch";
    assert_eq!(
        place.rows(counted).await,
        ["delivered|1|3|3", "unknown|2|3|3", "rejected|3|1|1"]
    );
    let details = "select run_id, campaign, destination, channel, part, reason, attributes, \
                   campaign_version from campaignd.contact_history where batch = 3";
    assert_eq!(
        place.rows(details).await,
        [
            r#"winback@20261122T140000Z|winback|email-esp|email||the destination's no|{"offer":"it's \\ 10 %"}|v1"#
        ]
    );
    let counts = match place.eyes {
        Eyes::Sqlite(_) => ["1|0", "1|0", "0|0"],
        Eyes::Postgres(_) => ["t|f", "t|f", "f|f"],
    };
    let contacts = "select counts_as_contact, is_test from campaignd.contact_history \
                    group by batch, counts_as_contact, is_test order by batch";
    assert_eq!(place.rows(contacts).await, counts);
    let times = "select distinct cast(fire_time as varchar(19)), cast(contacted_at as varchar(22)) \
                 from campaignd.contact_history";
    let times = place.rows(times).await;
    assert_eq!(times.len(), 1);
    assert!(times[0].starts_with("2026-11-22 14:00:00"), "{times:?}");
    assert!(times[0].contains("|2026-11-22 14:01:00.25"), "{times:?}");
    let runs = "select status, delivered, rejected, unknown, still_open from campaignd.runs";
    assert_eq!(place.rows(runs).await, ["incomplete|3|1|3|0"]);
}

async fn every_step_can_be_repeated(place: &mut Place) {
    let facts = facts(PEOPLE);
    for _ in 0..2 {
        let ours = place.warehouse.register(&facts).await.unwrap();
        assert_eq!(ours, Registration::Ours);
    }
    for _ in 0..2 {
        place.warehouse.freeze(&facts).await.unwrap();
        assert_eq!(place.tables_of(&facts).await, ["stage"]);
    }
    // What is frozen, stays: a later change of the source is not seen.
    place.run("delete from people where id = 'p-7'").await;
    let funnel = place.warehouse.admit(&facts).await.unwrap();
    assert_eq!(place.warehouse.admit(&facts).await.unwrap(), funnel);
    assert_eq!(funnel.planned, 7);
    for _ in 0..2 {
        place.warehouse.lay_out(&facts).await.unwrap();
        assert_eq!(place.tables_of(&facts).await, ["run"]);
    }
    place.warehouse.freeze(&facts).await.unwrap();
    assert_eq!(place.warehouse.admit(&facts).await.unwrap(), funnel);
    assert_eq!(place.tables_of(&facts).await, ["run"]);

    let closing = closing(&facts, funnel, RunStatus::Cancelled);
    let tally = place.warehouse.close(&closing).await.unwrap();
    assert_eq!(place.warehouse.close(&closing).await.unwrap(), tally);
    assert_eq!(tally.still_open, 7);
    let rows = "select status, still_open from campaignd.runs";
    assert_eq!(place.rows(rows).await, ["cancelled|7"]);
}

async fn values_come_back_as_they_were(place: &mut Place) {
    let facts = facts("select age, email, id from people");
    place.laid_out(&facts).await;
    let page = place
        .warehouse
        .page(&facts, (1, 7), usize::MAX)
        .await
        .unwrap();
    let rows: Vec<Vec<(Kind, &str)>> = (0..7).map(|n| page.row(n).cells().collect()).collect();
    // Of the rows of one key the first in the order of its columns stays.
    let ada = [
        (Kind::Integer, "36"),
        (Kind::Text, "ada@example.com"),
        (Kind::Text, "p-1"),
    ];
    assert!(rows.contains(&ada.to_vec()), "{rows:?}");
    let crab = [
        (Kind::Null, ""),
        (Kind::Text, "🦀 \"quoted\" 日本"),
        (Kind::Text, "p-3"),
    ];
    assert!(rows.contains(&crab.to_vec()), "{rows:?}");
    let slash = [
        (Kind::Integer, "-1"),
        (Kind::Text, ""),
        (Kind::Text, r"p-'5\"),
    ];
    assert!(rows.contains(&slash.to_vec()), "{rows:?}");

    let again = place
        .warehouse
        .page(&facts, (3, 4), usize::MAX)
        .await
        .unwrap();
    let again: Vec<Vec<_>> = (0..again.len())
        .map(|n| again.row(n).cells().collect())
        .collect();
    assert_eq!(again, rows[2..4]);

    // They come in this order also where they do not lie in it.
    let table = TableNames::of(&facts.run).run;
    place
        .run_ours(&format!(
            "update campaignd.{table} set cd_status = cd_status where cd_seq < 3"
        ))
        .await;
    let moved = place
        .warehouse
        .page(&facts, (1, 7), usize::MAX)
        .await
        .unwrap();
    let moved: Vec<Vec<_>> = (0..moved.len())
        .map(|n| moved.row(n).cells().collect())
        .collect();
    assert_eq!(moved, rows);
    let beyond = place
        .warehouse
        .page(&facts, (8, 100), usize::MAX)
        .await
        .unwrap();
    assert!(beyond.is_empty());
    assert_eq!(beyond.columns().len(), 3);
}

async fn a_run_of_another_owner_is_taken(place: &mut Place) {
    let ours = facts(PEOPLE);
    let theirs = RunFacts {
        owner: Uuid::from_u128(2),
        ..ours.clone()
    };
    place.warehouse.register(&ours).await.unwrap();
    let taken = place.warehouse.register(&theirs).await.unwrap();
    assert!(matches!(taken, Registration::Taken { .. }));
    place.warehouse.freeze(&ours).await.unwrap();
    let refused = place.warehouse.admit(&theirs).await.unwrap_err();
    assert_eq!(refused.class, WarehouseErrorClass::Statement);
    let closing = closing(&theirs, Default::default(), RunStatus::Failed);
    assert!(place.warehouse.close(&closing).await.is_err());
    assert_eq!(place.tables_of(&ours).await, ["stage"]);
    // And nothing was left locked.
    place.warehouse.admit(&ours).await.unwrap();
}

async fn of_two_daemons_one_gets_the_run(place: &mut Place) {
    let ours = facts(PEOPLE);
    let theirs = RunFacts {
        owner: Uuid::from_u128(2),
        ..ours.clone()
    };
    let other = open(place.options.clone()).unwrap();
    let (here, there) = tokio::join!(place.warehouse.register(&ours), other.register(&theirs));
    let ours = [here.unwrap(), there.unwrap()];
    let winners = ours.iter().filter(|found| **found == Registration::Ours);
    assert_eq!(winners.count(), 1);
    let rows = "select count(*) from campaignd.open_runs";
    assert_eq!(place.rows(rows).await, ["1"]);
}

async fn a_run_that_has_ended_is_taken(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let end = closing(&facts, funnel, RunStatus::Finished);
    place.warehouse.close(&end).await.unwrap();
    let taken = place.warehouse.register(&facts).await.unwrap();
    let by = "an earlier run that is finished".to_owned();
    assert_eq!(taken, Registration::Taken { by });

    // A held run is begun again under its own id.
    let held = facts_of("held", PEOPLE);
    let funnel = place.laid_out(&held).await;
    let end = closing(&held, funnel, RunStatus::Held);
    place.warehouse.close(&end).await.unwrap();
    assert_eq!(place.laid_out(&held).await, funnel);
    let rows = "select status from campaignd.runs where campaign = 'held'";
    assert_eq!(place.rows(rows).await, ["open"]);
}

async fn a_run_held_after_part_of_it_was_sent_is_never_staged_anew(place: &mut Place) {
    let held = facts(PEOPLE);
    let funnel = place.laid_out(&held).await;
    let sent = vec![outcome(&held, 1, 3, BatchStatus::Delivered)];
    let settled = Settlement {
        status: RunStatus::Held,
        ..settlement(&held, funnel, sent)
    };
    place.warehouse.settle(&[settled]).await.unwrap();
    // Somebody tidies up by hand.
    place.run_ours("delete from campaignd.open_runs").await;
    let found = place.warehouse.register(&held).await.unwrap();
    assert!(matches!(found, Registration::Taken { .. }), "{found:?}");

    let open = facts_of("open", PEOPLE);
    place.laid_out(&open).await;
    place.run_ours("delete from campaignd.open_runs").await;
    let found = place.warehouse.register(&open).await.unwrap();
    assert!(matches!(found, Registration::Taken { .. }), "{found:?}");
}

async fn a_run_that_fails_to_register_leaves_anothers_row_as_it_is(place: &mut Place) {
    let theirs = facts(PEOPLE);
    let funnel = place.laid_out(&theirs).await;
    let outcomes = (1..=3).map(|batch| {
        let members = if batch == 3 { 1 } else { 3 };
        outcome(&theirs, batch, members, BatchStatus::Delivered)
    });
    let settled = settlement(&theirs, funnel, outcomes.collect());
    place.warehouse.settle(&[settled]).await.unwrap();
    let end = closing(&theirs, funnel, RunStatus::Incomplete);
    let end = Closing {
        keep_run_table: true,
        withheld_rows: true,
        ..end
    };
    place.warehouse.close(&end).await.unwrap();
    let ours = RunFacts {
        owner: Uuid::from_u128(2),
        ..theirs.clone()
    };
    let failed = closing(&ours, Default::default(), RunStatus::Failed);
    place.warehouse.close(&failed).await.unwrap();
    let rows = "select status, planned, delivered from campaignd.runs";
    assert_eq!(place.rows(rows).await, ["incomplete|7|7"]);
    assert_eq!(place.tables_of(&theirs).await, ["run"]);
}

async fn a_failing_query_says_where(place: &mut Place) {
    let facts = facts("select id,\n  ägé, emial from people -- ü");
    place.warehouse.register(&facts).await.unwrap();
    let failed = place.warehouse.freeze(&facts).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Statement);
    assert_eq!(failed.place, Some((2, 3)), "{failed:?}");
    assert!(failed.message.contains("ägé"), "{failed}");
    assert_eq!(place.tables_of(&facts).await, [""; 0]);

    let gone = facts_of("gone", "select id from no_such_table");
    let failed = place.warehouse.freeze(&gone).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Statement);
    assert_eq!(failed.place, Some((1, 16)), "{failed:?}");
}

async fn columns_that_cannot_be_staged_are_refused(place: &mut Place) {
    for (sql, word) in [
        ("select email as idd, age from people", "`id`"),
        ("select id, age as cd_seq from people", "cd_seq"),
        ("select id, age, age from people", "age"),
    ] {
        let facts = facts(sql);
        let failed = place.warehouse.freeze(&facts).await.unwrap_err();
        assert_eq!(failed.class, WarehouseErrorClass::Statement, "{sql}");
        assert!(failed.message.contains(word), "{sql}: {failed}");
        assert_eq!(place.tables_of(&facts).await, [""; 0]);
    }
}

/// As many as a table holds beside our own, and as many as it holds.
async fn wide_audiences_are_whole_or_refused(place: &mut Place) {
    let wide = |columns: usize| {
        let others: Vec<String> = (1..columns).map(|n| format!("{n} as c{n}")).collect();
        format!("select id, {} from people", others.join(", "))
    };
    let facts = facts_of("wide", &wide(1_590));
    let funnel = place.laid_out(&facts).await;
    assert_eq!(funnel.planned, 7);
    let page = place
        .warehouse
        .page(&facts, (1, 7), usize::MAX)
        .await
        .unwrap();
    let cells: Vec<_> = page.row(6).cells().collect();
    assert_eq!((cells.len(), cells[1_589].1), (1_590, "1589"));
    for columns in [1_591, 1_600] {
        let facts = facts_of("too-wide", &wide(columns));
        let failed = place.warehouse.freeze(&facts).await.unwrap_err();
        assert_eq!(failed.class, WarehouseErrorClass::Statement);
        assert!(failed.message.contains("at most 1590"), "{failed}");
        assert_eq!(place.tables_of(&facts).await, [""; 0]);
    }
}

async fn a_semicolon_and_a_comment_at_the_end_do_no_harm(place: &mut Place) {
    let facts = facts("select id, email from people; -- everybody");
    let funnel = place.laid_out(&facts).await;
    assert_eq!(funnel.planned, 7);
}

async fn more_than_one_statement_is_never_run(place: &mut Place) {
    for sql in [
        "select id from people; drop table people",
        "select id from people) as q; drop table people; --",
        r"select id from people where email = 'x\'; drop table people; --'",
        "delete from people",
    ] {
        let failed = place.warehouse.freeze(&facts(sql)).await.unwrap_err();
        assert_eq!(failed.class, WarehouseErrorClass::Statement, "{sql}");
    }
    assert_eq!(place.rows("select count(*) from people").await, ["12"]);
}

async fn an_empty_audience_is_closed_with_zeros(place: &mut Place) {
    let facts = facts("select id, email from people where 1 = 0");
    let funnel = place.laid_out(&facts).await;
    assert_eq!(funnel, Default::default());
    let page = place
        .warehouse
        .page(&facts, (1, 3), usize::MAX)
        .await
        .unwrap();
    assert!(page.is_empty());
    let end = closing(&facts, funnel, RunStatus::Finished);
    let tally = place.warehouse.close(&end).await.unwrap();
    assert_eq!(tally, Tally::default());
    let rows = "select status, audience, planned, still_open from campaignd.runs";
    assert_eq!(place.rows(rows).await, ["finished|0|0|0"]);
}

async fn a_run_that_failed_before_admission_is_closed(place: &mut Place) {
    let facts = facts("select id, oops from people");
    place.warehouse.register(&facts).await.unwrap();
    let failed = place.warehouse.freeze(&facts).await.unwrap_err();
    let end = Closing {
        error: Some(failed.message),
        ..closing(&facts, Default::default(), RunStatus::Failed)
    };
    place.warehouse.close(&end).await.unwrap();
    let rows = place.rows("select status, error from campaignd.runs").await;
    assert!(
        rows[0].starts_with("failed|") && rows[0].contains("oops"),
        "{rows:?}"
    );
    assert_eq!(
        place.rows("select * from campaignd.open_runs").await,
        [""; 0]
    );
}

async fn fire_times_without_a_run_are_recorded_once(place: &mut Place) {
    let campaign: CampaignName = "winback".parse().unwrap();
    let missed = |hour: i64| {
        let fire_time = at("2026-11-22T00:00:00Z") + jiff::SignedDuration::from_hours(hour);
        UnstartedRun {
            run: RunId::scheduled(&campaign, fire_time),
            campaign: campaign.clone(),
            campaign_version: "v1".to_owned(),
            fire_time,
            status: RunStatus::Missed,
            reason: "the daemon wasn't running".to_owned(),
        }
    };
    let first: Vec<_> = (0..3).map(missed).collect();
    let more: Vec<_> = (0..700).map(missed).collect();
    place.warehouse.record_unstarted(&first).await.unwrap();
    place.warehouse.record_unstarted(&more).await.unwrap();
    place.warehouse.record_unstarted(&[]).await.unwrap();
    let rows = "select status, count(*), count(distinct run_id), max(error) \
                from campaignd.runs group by status";
    assert_eq!(
        place.rows(rows).await,
        ["missed|700|700|the daemon wasn't running"]
    );
}

async fn an_error_names_no_member(place: &mut Place) {
    let sql = match place.eyes {
        Eyes::Sqlite(_) => "select id, json_extract(email, '$') as j from people",
        Eyes::Postgres(_) => "select id, cast(email as int) as j from people",
    };
    let facts = facts(sql);
    let failed = place.warehouse.freeze(&facts).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Statement);
    let said = format!("{failed} {failed:?}");
    assert!(!said.contains("ada") && !said.contains("example"), "{said}");
}
