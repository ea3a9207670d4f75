//! What is only so at Redshift: logins, what the administrator runs, and how a
//! statement is cancelled.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::audience::Dialect;
use campaignd::history::{BootstrapOptions, TABLES, bootstrap};
use campaignd::run::{WarehouseError, WarehouseErrorClass};
use campaignd::warehouse::{Change, ConnectorOptions, ServerOptions, apply_bootstrap, open};
use std::time::Duration;
use support::place::{Place, facts};
use support::redshift_gate::{SHA256_USER, Verdict, judge};
use support::redshift_gate_rules::Session;

/// What a connector with other options says when it is asked whether it is
/// ready.
async fn complaint(place: &Place, change: impl FnOnce(&mut ServerOptions)) -> WarehouseError {
    let ConnectorOptions::Server(mut server) = place.options.clone() else {
        panic!("it is a server");
    };
    change(&mut server);
    let warehouse = open(ConnectorOptions::Server(server)).unwrap();
    warehouse.ping().await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_says_what_to_do_about_it() {
    let place = Place::redshift().await;
    let digest = complaint(&place, |server| server.user = SHA256_USER.to_owned()).await;
    let password = complaint(&place, |server| {
        server.password = "wrong".to_owned().into();
    })
    .await;
    let database = complaint(&place, |server| server.database = "nowhere".to_owned()).await;
    for (failed, code, advice) in [
        (digest, None, "set the user's password again in clear text"),
        (password, Some("28000"), "correct `auth` of the connector"),
        (
            database,
            Some("3D000"),
            "correct `database` of the connector",
        ),
    ] {
        assert_eq!(
            failed.class,
            WarehouseErrorClass::Configuration,
            "{failed:?}"
        );
        assert_eq!(failed.code.as_deref(), code, "{failed:?}");
        assert!(failed.message.contains(advice), "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bootstrap_prints_is_sql_that_redshift_takes() {
    let options = BootstrapOptions {
        schema: "other_schema".to_owned(),
        user: "campaigner".to_owned(),
        by_iam: false,
        shared: vec!["public.people".to_owned()],
        max_queries: 6,
        conversions: None,
    };
    let sql = bootstrap(Dialect::Redshift, &options).unwrap();
    // One by one, as psql sends them.
    let taken = |sql: &str| match judge(sql, Session::default()) {
        Verdict::Passed(rewritten) => rewritten.sql,
        _ => panic!("it was refused: {sql}"),
    };
    let statements: Vec<String> = sql.split(";\n").map(taken).collect();
    let mut place = Place::redshift().await;
    let login = sql
        .lines()
        .find_map(|line| line.strip_prefix("-- create user "));
    let (login, timeout) = login.unwrap().split_once(" session timeout ").unwrap();
    assert_eq!(timeout, "3600;");
    place.run(&format!("create user {login}")).await;
    // It can be run again.
    for statement in statements.iter().chain(&statements) {
        place.run(statement).await;
    }
    // And the daemon's own part finds nothing left to do.
    let ConnectorOptions::Server(server) = place.options.clone() else {
        panic!("it is a server");
    };
    let schema = options.schema;
    let own = ConnectorOptions::Server(ServerOptions { schema, ..server });
    let applied = apply_bootstrap(own).await.unwrap();
    assert!(applied.iter().all(|one| one.change == Change::None));
    assert_eq!(applied.len(), TABLES.len() + 2, "schema, tables, view");
    assert_eq!(place.gate().refused(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_runs_too_long_is_cancelled_and_the_session_given_up() {
    let mut place = Place::redshift().await;
    place
        .run("create view slow as select p.* from people p, (select pg_sleep(60)) s")
        .await;
    let ConnectorOptions::Server(mut server) = place.options.clone() else {
        panic!("it is a server");
    };
    server.statement_timeout = Duration::from_secs(1);
    let warehouse = open(ConnectorOptions::Server(server)).unwrap();
    let slow = facts("select id from slow");
    warehouse.register(&slow).await.unwrap();
    let failed = warehouse.freeze(&slow).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Cancelled, "{failed:?}");
    assert!(failed.message.contains("`statement_timeout`"), "{failed:?}");
    warehouse.ping().await.unwrap();
}
