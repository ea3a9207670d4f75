//! What has been kept long enough is removed, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::history::{BatchStatus, Retention, RunFacts, RunStatus, Tidied};
use campaignd::id::RunId;
use campaignd::run::{Clock as _, SystemClock};
use std::time::Duration;
use support::place::{PEOPLE, Place, closing, facts_of, outcome, settlement};

const DAY: u64 = 24 * 3600;

const KEEP: Retention = Retention {
    history: Duration::from_secs(400 * DAY),
    tables: Duration::from_secs(7 * DAY),
};

/// A run that has ended with a failed batch, and keeps its table.
async fn ended(place: &Place, facts: &RunFacts) {
    let funnel = place.laid_out(facts).await;
    let failed = outcome(facts, 1, 3, BatchStatus::Failed);
    let settled = settlement(facts, funnel, vec![failed]);
    place.warehouse.settle(&[settled]).await.unwrap();
    let mut closing = closing(facts, funnel, RunStatus::Incomplete);
    closing.keep_run_table = true;
    place.warehouse.close(&closing).await.unwrap();
}

/// Puts the run's beginning and end back to so many days ago.
async fn put_back(place: &mut Place, facts: &RunFacts, days: u64) {
    let ago = SystemClock.now() - Duration::from_secs(days * DAY);
    let ago = ago.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let sql = format!(
        "update campaignd.runs set started_at = '{ago}', finished_at = '{ago}' \
         where run_id = '{}'",
        facts.run
    );
    place.run_ours(&sql).await;
}

/// Another run of the same campaign.
fn nth(of: &RunFacts, n: u32) -> RunFacts {
    let run: RunId = format!("{}-manual-{n}", of.run).parse().unwrap();
    RunFacts { run, ..of.clone() }
}

async fn rows_of(place: &mut Place, table: &str, facts: &RunFacts) -> String {
    let sql = format!(
        "select count(*) || '' from campaignd.{table} where run_id = '{}'",
        facts.run
    );
    place.rows(&sql).await.remove(0)
}

async fn tidied(place: &Place, except: Option<&RunId>) -> Tidied {
    place.warehouse.tidy(KEEP, except).await.unwrap()
}

async fn tables_go_after_their_time_and_stay_until_then(mut place: Place) {
    let old = facts_of("hello", PEOPLE);
    let (young, open) = (nth(&old, 1), nth(&old, 2));
    for facts in [&old, &young] {
        ended(&place, facts).await;
    }
    put_back(&mut place, &old, 8).await;
    put_back(&mut place, &young, 6).await;
    place.laid_out(&open).await;
    let foreign = "create table campaignd.run_of_the_mill as select 1 as n";
    place.run_ours(foreign).await;
    let expected = Tidied { runs: 0, tables: 1 };
    assert_eq!(tidied(&place, None).await, expected);
    assert_eq!(place.tables_of(&old).await, [""; 0]);
    assert_eq!(place.tables_of(&young).await, ["run"]);
    assert_eq!(place.tables_of(&open).await, ["run"]);
    let kept = place.rows("select n || '' from campaignd.run_of_the_mill");
    assert_eq!(kept.await, ["1"]);
    // What BI reads stays, and a second time there is nothing to do.
    assert_eq!(rows_of(&mut place, "contact_history", &old).await, "3");
    assert_eq!(tidied(&place, None).await, Tidied::default());
    let (funnel, known) = Default::default();
    let reopened = place.warehouse.reopen(&old, &funnel, &known, true);
    let refused = reopened.await.unwrap_err();
    assert!(refused.is_gone());
    assert!(refused.to_string().contains("stage_retention"), "{refused}");
}

async fn the_table_of_a_run_that_was_opened_again_stays(mut place: Place) {
    let facts = facts_of("hello", PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let mut closing = closing(&facts, funnel, RunStatus::Cancelled);
    closing.keep_run_table = true;
    place.warehouse.close(&closing).await.unwrap();
    let known = Default::default();
    let reopened = place.warehouse.reopen(&facts, &funnel, &known, true);
    reopened.await.unwrap();
    put_back(&mut place, &facts, 500).await;
    // Even where its row does not say that it is open.
    let ended = "update campaignd.runs set status = 'cancelled'";
    place.run_ours(ended).await;
    assert_eq!(tidied(&place, None).await, Tidied::default());
    assert_eq!(place.tables_of(&facts).await, ["run"]);
    assert_eq!(rows_of(&mut place, "runs", &facts).await, "1");
}

async fn rows_go_after_their_time_save_those_of_the_newest_run(mut place: Place) {
    let first = facts_of("hello", PEOPLE);
    let (second, newest, young) = (nth(&first, 1), nth(&first, 2), facts_of("other", PEOPLE));
    for facts in [&first, &second, &newest, &young] {
        ended(&place, facts).await;
    }
    for (facts, days) in [(&first, 403), (&second, 402), (&newest, 401), (&young, 399)] {
        put_back(&mut place, facts, days).await;
    }
    let expected = Tidied { runs: 1, tables: 4 };
    assert_eq!(tidied(&place, Some(&second.run)).await, expected);
    for table in ["contact_history", "deliveries", "runs"] {
        assert_eq!(rows_of(&mut place, table, &first).await, "0", "{table}");
        for kept in [&second, &newest, &young] {
            assert_ne!(rows_of(&mut place, table, kept).await, "0", "{table}");
        }
    }
    let expected = Tidied { runs: 1, tables: 0 };
    assert_eq!(tidied(&place, None).await, expected);
    assert_eq!(rows_of(&mut place, "contact_history", &second).await, "0");
    assert_eq!(rows_of(&mut place, "runs", &newest).await, "1");
}

async fn a_table_of_no_run_goes_once_it_was_seen_long_enough(mut place: Place) {
    let open = facts_of("hello", PEOPLE);
    place.laid_out(&open).await;
    for table in ["run_0123456789abcdef", "run_of_the_mill"] {
        let create = format!("create table campaignd.{table} as select 1 as n");
        place.run_ours(&create).await;
    }
    assert_eq!(tidied(&place, None).await, Tidied::default());
    assert_eq!(tidied(&place, None).await, Tidied::default());
    let keep = Retention {
        tables: Duration::from_nanos(1),
        ..KEEP
    };
    let expected = Tidied { runs: 0, tables: 1 };
    assert_eq!(place.warehouse.tidy(keep, None).await.unwrap(), expected);
    assert_eq!(place.tables_of(&open).await, ["run"]);
    let kept = place.rows("select n || '' from campaignd.run_of_the_mill");
    assert_eq!(kept.await, ["1"]);
    let again = place.warehouse.tidy(keep, None).await.unwrap();
    assert_eq!(again, Tidied::default());
}

macro_rules! on_each {
    ($($name:ident)*) => {
        mod sqlite {
            use super::Place;
            $(#[tokio::test] async fn $name() { super::$name(Place::sqlite().await).await; })*
        }
        mod postgres {
            use super::Place;
            $(#[tokio::test] async fn $name() { super::$name(Place::postgres().await).await; })*
        }
        mod redshift {
            use super::Place;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(Place::redshift().await).await;
            })*
        }
    };
}

on_each! {
    tables_go_after_their_time_and_stay_until_then
    the_table_of_a_run_that_was_opened_again_stays
    rows_go_after_their_time_save_those_of_the_newest_run
    a_table_of_no_run_goes_once_it_was_seen_long_enough
}
