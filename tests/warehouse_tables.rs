//! What a connector does besides a run's steps: it reads SQLite's cells, makes its
//! tables, and says clearly what keeps it from working.

use crate::support;

use campaignd::audience::{Dialect, Schema, TableNames};
use campaignd::history::settle::{count_new, outcomes};
use campaignd::history::{BatchStatus, BootstrapOptions, bootstrap};
use campaignd::run::{Kind, WarehouseErrorClass};
use campaignd::warehouse::{Change, ConnectorOptions, ServerOptions, apply_bootstrap, open};
use std::sync::Arc;
use std::time::Duration;
use support::place::{PEOPLE, Place, facts, outcome, server_options, settlement};
use support::postgres::Postgres;

#[tokio::test]
async fn sqlite_cells_take_the_kind_of_their_declared_column() {
    let mut place = Place::sqlite().await;
    place
        .run("create table things (id text, b boolean, t timestamp, j json, r real, x blob)")
        .await;
    place
        .run("insert into things values ('a', 1, '2026-01-02 03:04:05', '{\"a\":1}', 0.5, x'00ff')")
        .await;
    let facts = facts("select id, b, t, j, r, x, 1.0 / 3 as third from things");
    place.laid_out(&facts).await;
    let page = place
        .warehouse
        .page(&facts, (1, 1), usize::MAX)
        .await
        .unwrap();
    let cells: Vec<_> = page.row(0).cells().skip(1).collect();
    assert_eq!(
        cells,
        [
            (Kind::Bool, "true"),
            (Kind::Timestamp, "2026-01-02 03:04:05"),
            (Kind::Json, "{\"a\":1}"),
            (Kind::Float, "0.5"),
            (Kind::Text, "AP8="),
            (Kind::Float, "0.3333333333333333"),
        ]
    );
}

#[tokio::test]
async fn what_was_settled_of_a_run_before_is_not_read_again() {
    let mut place = Place::postgres().await;
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let settled = format!(
        "insert into campaignd.deliveries (run_id, batch, part, status, members) \
         select '{}', n, '', 'delivered', 1 from generate_series(1, 50000) n",
        facts.run
    );
    place.run(&settled).await;
    place.run("analyze campaignd.deliveries").await;
    let schema = Schema {
        dialect: Dialect::Postgres,
        name: "campaignd".to_owned(),
    };
    let new = (50_001..50_101).map(|batch| outcome(&facts, batch, 1, BatchStatus::Delivered));
    let settlements = [settlement(&facts, funnel, new.collect())];
    for statement in outcomes(&schema, &settlements).unwrap() {
        place.run(&statement.sql).await;
    }
    let count = count_new(&schema, &settlements).unwrap();
    let plan = place.rows(&format!("explain {}", count.sql)).await;
    let plan = plan.join("\n");
    let bounds = "batch >= 50001) AND (batch <= 50100)";
    let index_cond = plan.lines().find(|line| line.contains("Index Cond"));
    assert!(
        index_cond.is_some_and(|line| line.contains(bounds)),
        "{plan}"
    );
}

#[tokio::test]
async fn tables_that_are_not_there_are_asked_for_and_made_once() {
    let server = Postgres::start();
    let options = ConnectorOptions::Server(server_options(&server));
    let warehouse = open(options.clone()).unwrap();
    for failed in [
        warehouse.ping().await.unwrap_err(),
        warehouse.register(&facts(PEOPLE)).await.unwrap_err(),
    ] {
        assert_eq!(failed.class, WarehouseErrorClass::Configuration);
        assert!(
            failed
                .message
                .ends_with("run `campaignd bootstrap NAME --apply`")
        );
    }
    let made = apply_bootstrap(options.clone()).await.unwrap();
    assert!(made.iter().all(|made| made.change == Change::Created));
    warehouse.ping().await.unwrap();
    let again = apply_bootstrap(options).await.unwrap();
    assert!(again.iter().all(|made| made.change == Change::None));
}

#[tokio::test]
async fn a_column_that_an_older_version_did_not_have_is_added() {
    let mut place = Place::postgres().await;
    place
        .run("alter table campaignd.runs drop column error")
        .await;
    let applied = apply_bootstrap(place.options.clone()).await.unwrap();
    let runs = applied
        .iter()
        .find(|made| made.what == "table runs")
        .unwrap();
    assert_eq!(runs.change, Change::ColumnsAdded(1));
}

#[tokio::test]
async fn what_bootstrap_prints_can_be_run_twice_by_an_administrator() {
    let mut place = Place::postgres().await;
    let options = BootstrapOptions {
        schema: "other \"schema\"".to_owned(),
        user: "campaigner".to_owned(),
        by_iam: false,
        max_queries: 6,
        shared: vec!["public.people".to_owned()],
        conversions: Some("public.conversions".parse().unwrap()),
    };
    place
        .run("create table conversions (profile_id text, converted_at timestamp)")
        .await;
    let sql = bootstrap(Dialect::Postgres, &options).unwrap();
    place.run(&sql).await;
    place.run(&sql).await;
    let ConnectorOptions::Server(server) = place.options.clone() else {
        unreachable!("it is a server");
    };
    let login = ConnectorOptions::Server(ServerOptions {
        user: options.user,
        schema: options.schema,
        ..server
    });
    let warehouse = open(login).unwrap();
    warehouse.ping().await.unwrap();
    let facts = facts(PEOPLE);
    warehouse.register(&facts).await.unwrap();
    warehouse.freeze(&facts).await.unwrap();
    assert_eq!(warehouse.admit(&facts).await.unwrap().planned, 7);
}

#[tokio::test]
async fn a_warehouse_that_cannot_be_reached_is_named() {
    let server = Postgres::start();
    let mut options = server_options(&server);
    options.host = "127.0.0.1".to_owned();
    let there = open(ConnectorOptions::Server(options.clone())).unwrap();
    let failed = there.ping().await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Configuration, "{failed}");

    options.database = "no_such_database".to_owned();
    let wrong = open(ConnectorOptions::Server(options.clone())).unwrap();
    let failed = wrong.ping().await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Configuration);
    assert!(
        failed
            .message
            .ends_with("correct `database` of the connector"),
        "{failed}"
    );

    drop(server);
    let gone = open(ConnectorOptions::Server(options.clone())).unwrap();
    let failed = gone.ping().await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Lost);
    let target = format!("127.0.0.1:{}", options.port);
    assert!(failed.message.contains(&target), "{failed}");
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_cancelled() {
    let place = Place::postgres().await;
    let ConnectorOptions::Server(server) = place.options.clone() else {
        unreachable!("it is a server");
    };
    let hasty = open(ConnectorOptions::Server(ServerOptions {
        statement_timeout: Duration::from_millis(100),
        ..server
    }))
    .unwrap();
    let slow = facts("select id, cast(pg_sleep(60) as text) as nothing from people");
    hasty.register(&slow).await.unwrap();
    let failed = hasty.freeze(&slow).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Cancelled, "{failed}");
    hasty.ping().await.unwrap();
}

#[tokio::test]
async fn a_literal_holds_whatever_the_session_makes_of_backslashes() {
    let mut place = Place::postgres().await;
    let nasty = r"x\'); drop table people; -- \\ ''";
    for (setting, dialect) in [("off", Dialect::Redshift), ("on", Dialect::Postgres)] {
        place
            .run(&format!("set standard_conforming_strings = {setting}"))
            .await;
        let select = format!("select {}", dialect.literal(nasty).unwrap());
        assert_eq!(place.rows(&select).await, [nasty]);
    }
}

#[tokio::test]
async fn a_freeze_whose_reply_was_lost_is_waited_for_and_found_done() {
    let mut place = Place::postgres().await;
    let lost = facts(PEOPLE);
    let stage = TableNames::of(&lost.run).stage;
    place.run("begin").await;
    place
        .run(&format!(
            "create table campaignd.{stage} as select 'p-1' as id, 'p-1' as cd_key, 'ok' as cd_status"
        ))
        .await;
    let warehouse = Arc::clone(&place.warehouse);
    let again = warehouse.freeze(&lost);
    let first_ends = async {
        let waiting = "select count(*) from pg_locks where not granted";
        while place.rows(waiting).await == ["0"] {
            tokio::task::yield_now().await;
        }
        place.run("commit").await;
    };
    let (again, ()) = tokio::join!(again, first_ends);
    again.unwrap();
    warehouse.register(&lost).await.unwrap();
    assert_eq!(warehouse.admit(&lost).await.unwrap().planned, 1);
}
