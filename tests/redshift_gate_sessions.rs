//! Sessions at the gate that passes for Redshift, held by clients that are not
//! ours: encryption, what one statement decides about the next, binds, and the
//! warehouse's own log.

use crate::support;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, raw_sql};
use std::time::Duration;
use support::gate::Gate;
use support::postgres::{ConnDetails, Postgres};
use support::psql::Client;
use support::redshift_gate::{PASSWORD, SHA256_USER};
use support::tls::{Authority, self_signed};

/// A server, the gate before it, a client of it, and tables to play with.
struct Scene {
    _server: Postgres,
    database: ConnDetails,
    gate: Gate,
    psql: Client,
}

impl Scene {
    async fn new() -> Self {
        let server = Postgres::start();
        let database = server.database("gate_sessions");
        let gate = Gate::redshift(&database).await;
        let psql = Client::of(&gate, &database);
        let scene = Self {
            _server: server,
            database,
            gate,
            psql,
        };
        let made = "create table t (a int, v varchar(8)); create table s (a int, v varchar(8))";
        assert_eq!(scene.psql.says(made).await, "");
        scene
    }

    fn client(&self) -> Client {
        Client::of(&self.gate, &self.database)
    }

    async fn connect(&self, digits: i8) -> sqlx::Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.gate.address().port())
            .username(&self.database.user)
            .password(PASSWORD)
            .database(&self.database.database)
            .ssl_mode(PgSslMode::Disable)
            .extra_float_digits(digits);
        options.disable_statement_logging().connect().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_checked_before_anything_else() {
    let scene = Scene::new().await;
    let one = "select 1";
    let mut wrong = scene.client();
    wrong.password = "wrong".to_owned();
    let wrong = wrong.says(one).await;
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let mut digest = scene.client();
    digest.user = SHA256_USER.to_owned();
    let digest = digest.says(one).await;
    assert!(digest.contains("authentication method 13"), "{digest}");
    let mut option = scene.client();
    let value = "-c standard_conforming_strings=on".to_owned();
    option.environment.push(("PGOPTIONS", value));
    let option = option.says(one).await;
    assert!(
        option.contains("unrecognized configuration parameter"),
        "{option}"
    );
    let mut absent = scene.client();
    absent.database = "nowhere".to_owned();
    let absent = absent.says(one).await;
    assert!(absent.contains("does not exist"), "{absent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_encrypted_as_the_server_offers_and_the_client_insists() {
    let scene = Scene::new().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &authority.cert).unwrap();
    let says = async |mode: &str| {
        let mut client = scene.client();
        client.host = "localhost".to_owned();
        let root = root.display().to_string();
        client.environment.push(("PGSSLMODE", mode.to_owned()));
        client.environment.push(("PGSSLROOTCERT", root));
        client.says("select 'in'").await
    };
    let is_encrypted = || scene.gate.log().last().unwrap().session.is_encrypted;
    // Off: who does not insist is served in the clear.
    assert_eq!(says("prefer").await, "in");
    assert!(!is_encrypted());
    let refused = says("require").await;
    assert!(refused.contains("does not support SSL"), "{refused}");
    // On, by an authority that the client knows.
    scene.gate.offer_tls(&authority.sign("localhost", 2999));
    assert_eq!(says("verify-full").await, "in");
    assert!(is_encrypted());
    assert_eq!(says("disable").await, "in");
    assert!(!is_encrypted());
    scene
        .gate
        .offer_tls(&authority.sign("elsewhere.example", 2999));
    let refused = says("verify-full").await;
    assert!(refused.contains("does not match host name"), "{refused}");
    // By nobody but itself.
    scene.gate.offer_tls(&self_signed("localhost"));
    let refused = says("verify-full").await;
    assert!(refused.contains("certificate verify failed"), "{refused}");
    scene.gate.refuse_tls();
    let refused = says("verify-full").await;
    assert!(refused.contains("does not support SSL"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_may_is_decided_by_those_before_it() {
    let scene = Scene::new().await;
    let refused = async |script: &str, code: &str| {
        let said = scene.psql.script(script).await;
        let errors: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("ERROR:"))
            .collect();
        assert_eq!(errors.len(), 1, "{script}: {said}");
        assert!(errors[0].contains(code), "{script}: {said}");
    };
    refused("declare c cursor for select 1;", "25P01").await;
    refused(
        "begin; declare c cursor for select 1; declare d cursor for select 2;",
        "0A000",
    )
    .await;
    refused(
        "begin; alter table t alter column v type varchar(9);",
        "25001",
    )
    .await;
    let good = "
        begin; declare c cursor for select 1; fetch all from c; commit;
        begin; declare c cursor for select 2; close c; declare d cursor for select 3;
        fetch all from d; commit;
        alter table t alter column v type varchar(9);
        insert into t values (1, 'nine byte');";
    assert_eq!(scene.psql.script(good).await, "1\n3");
    let wide = scene.psql.says("insert into t values (1, 'ten bytes!')");
    assert!(wide.await.contains("22001"));
    // What only the database knows of the column.
    refused("alter table t alter column v type varchar(9);", "0A000").await;
    refused("alter table t alter column a type varchar(9);", "0A000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_are_for_queries_and_not_for_what_defines_or_carries_data() {
    let scene = Scene::new().await;
    let mut client = scene.connect(2).await.unwrap();
    let statements = [
        "create table made as select $1::int as a",
        "alter table t add column w varchar($1)",
        "copy t from 's3://bucket/key' iam_role $1",
        "unload ('select a from t') to 's3://bucket/key' iam_role $1",
    ];
    for sql in statements {
        let refused = sqlx::query(sql).bind(1).execute(&mut client).await;
        assert_eq!(code(&refused.unwrap_err()), "42601", "{sql}");
        // What is not ours says the same.
        let script = format!("\\set one 1\n{};\n", sql.replace("$1", ":one"));
        let said = scene.psql.binds(&script).await;
        assert!(said.contains("syntax error at or near \"$1\""), "{said}");
    }
    let bound = "\\set one 1\ninsert into t (a) values (:one);\n";
    let said = scene.psql.binds(bound).await;
    assert!(said.contains("actually processed: 1/1"), "{said}");
    assert_eq!(scene.psql.says("select a from t").await, "1");
}

fn code(error: &sqlx::Error) -> String {
    let database = error.as_database_error();
    database.map_or(error.to_string(), |error| {
        error.code().unwrap_or_default().into_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_driver_does_by_itself_is_held_to_redshifts_rules() {
    let scene = Scene::new().await;
    let refused = scene.connect(3).await.err().unwrap();
    assert_eq!(code(&refused), "22023");
    let mut client = scene.connect(2).await.unwrap();
    let number: i32 = sqlx::query_scalar("select a + $1 from (select 1 as a) x")
        .bind(1)
        .fetch_one(&mut client)
        .await
        .unwrap();
    assert_eq!(number, 2);
    assert_eq!(scene.gate.prepared(), 1);
    let limit = sqlx::query("select a from t limit $1").bind(1_i64);
    let refused = limit.fetch_all(&mut client).await.err().unwrap();
    assert_eq!(code(&refused), "XX000");
    let mut many = sqlx::query("select $32768::varchar");
    for _ in 0..32_768 {
        many = many.bind("x");
    }
    let refused = many.fetch_all(&mut client).await.err().unwrap();
    assert_eq!(code(&refused), "42P02");
    let long = format!("select '{}'", "x".repeat(16 * 1024 * 1024));
    let refused = raw_sql(AssertSqlSafe(long))
        .execute(&mut client)
        .await
        .err()
        .unwrap();
    assert_eq!(code(&refused), "54000");
    let nested = client.begin().await.unwrap();
    drop(nested);
    let text = raw_sql("select 1.5::numeric(4,2) as n")
        .fetch_one(&mut client)
        .await
        .unwrap();
    assert_eq!(text.try_get_raw(0).unwrap().as_str().unwrap(), "1.50");
    // What in binary is read by no client of theirs, or otherwise.
    for value in [
        "1.5::numeric(4,2)",
        "'2026-01-02'::date",
        "'03:04:05'::time",
        "'03:04:05+02'::timetz",
        "interval '1-2' year to month",
    ] {
        let mut client = scene.connect(2).await.unwrap();
        let sql = AssertSqlSafe(format!("select {value}"));
        assert!(sqlx::query(sql).fetch_one(&mut client).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_that_removes_duplicates_takes_away_what_matches_and_brings_all() {
    let scene = Scene::new().await;
    let fill = "insert into t values (30, 'Tony'), (11, 'Alice'), (23, 'Bill'), (23, 'Bill'); \
                insert into s values (23, 'David'), (22, 'Clarence'), (null, 'nobody')";
    assert_eq!(scene.psql.says(fill).await, "");
    let merge = "merge into t using s on t.a = s.a remove duplicates";
    assert_eq!(scene.psql.says(merge).await, "");
    let rows = "select a, v from t order by a nulls last, v";
    let merged = "11|Alice\n22|Clarence\n23|David\n30|Tony\n|nobody";
    assert_eq!(scene.psql.says(rows).await, merged);
    let query = "merge into t using (select a, v from s where a = 22) as n on t.a = n.a \
                 remove duplicates; select count(*) from t";
    assert_eq!(scene.psql.says(query).await, "5");
    let narrow = "merge into t using (select a from s) as n on t.a = n.a remove duplicates";
    let refused = scene.psql.says(narrow).await;
    assert!(refused.contains("0A000"), "{refused}");
    assert!(refused.contains("same number of columns"), "{refused}");
    let twice = "insert into s values (23, 'Eve'); \
                 merge into t using s on t.a = s.a when matched then update set v = s.v \
                 when not matched then insert values (s.a, s.v)";
    let refused = scene.psql.says(twice).await;
    assert!(refused.contains("Found multiple matches"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_bound_late_is_kept_as_it_was_written() {
    let scene = Scene::new().await;
    let made = "create view late as select * from public.t with no schema binding;
                create view bound as select * from public.t;";
    assert_eq!(scene.psql.script(made).await, "");
    let text = async |view: &str| {
        let ask = format!("select pg_get_viewdef('{view}'::regclass)");
        scene.psql.says(&ask).await
    };
    let late = text("late").await;
    let written = "create view late as select * from public.t with no schema binding;";
    assert_eq!(late, written);
    let bound = text("bound").await;
    assert!(!bound.contains('*') && bound.contains("t.v"), "{bound}");
    let again = "drop view late; create view late as select a from t";
    assert_eq!(scene.psql.script(again).await, "");
    assert!(!text("late").await.contains("binding"));
    let columns = "select column_name from svv_columns where table_name = 'late'";
    assert_eq!(scene.psql.says(columns).await, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_warehouses_own_log_files_each_statement_under_its_label() {
    let scene = Scene::new().await;
    let asked = r"
        set query_group to 'winback_261122';
        insert into t values (1, 'it\'s');
        select a from t;
        select oops from t;
        reset query_group;
        select 2;";
    scene.psql.script(asked).await;
    let log = "select trim(status), query_type, returned_rows, query_text from sys_query_history \
               where query_label like 'winback%' order by query_id";
    let filed = [
        r"success|INSERT|0|insert into t values (1, 'it\'s');",
        "success|SELECT|1|select a from t;",
        "failed|SELECT|0|select oops from t;",
        "success|RESET|0|reset query_group;",
    ];
    assert_eq!(scene.psql.says(log).await, filed.join("\n"));
    // Another login sees nothing of it.
    scene
        .psql
        .says("create user other password 'Other-1'")
        .await;
    let mut other = scene.client();
    other.user = "other".to_owned();
    let count = "select count(*) from sys_query_history where query_label like 'winback%'";
    assert_eq!(other.says(count).await, "0");
    let restarted = "select count(*) from stl_restarted_sessions";
    assert_eq!(other.says(restarted).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_is_cancelled_by_its_sessions_number() {
    let scene = Scene::new().await;
    let slow = "create view slow as select pg_sleep(600)::varchar as s";
    support::site::postgres_rows(&scene.database, slow).await;
    let mut client = scene.connect(2).await.unwrap();
    let pid: i32 = raw_sql("select pg_backend_pid()")
        .fetch_one(&mut client)
        .await
        .unwrap()
        .get_unchecked(0);
    let asking = raw_sql("select s from slow").fetch_all(&mut client);
    let cancelling = async {
        let cancel = format!("cancel {pid} 'enough'");
        // Until it has begun there is nothing to cancel.
        loop {
            scene.psql.says(&cancel).await;
        }
    };
    let refused = tokio::select! {
        done = asking => done.unwrap_err(),
        () = cancelling => unreachable!("it goes on until the other ends"),
    };
    assert_eq!(code(&refused), "57014");
    assert!(refused.to_string().contains("cancelled on user's request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_seen_to_hold_its_slot() {
    let scene = Scene::new().await;
    let much = "create table much as select repeat('x', 100000) as v from generate_series(1, 80)";
    support::site::postgres_rows(&scene.database, much).await;
    let mut client = scene.connect(2).await.unwrap();
    let pause = Duration::from_secs(1);
    for stops in [false, true] {
        let sql = format!("/* campaignd read {stops} */ select v from much");
        let mut rows = raw_sql(AssertSqlSafe(sql)).fetch(&mut client);
        rows.try_next().await.unwrap();
        if stops {
            tokio::time::sleep(pause).await;
        }
        while rows.try_next().await.unwrap().is_some() {}
    }
    let log = scene.gate.log();
    let held = |stops: bool| {
        let label = format!("/* campaignd read {stops}");
        let ended = log.iter().find(|ended| ended.label == label).unwrap();
        assert!(ended.bytes > 8_000_000, "{}", ended.bytes);
        ended.slot_held
    };
    assert!(held(true) > pause / 2, "{:?}", held(true));
    assert!(held(true) > held(false));
}
