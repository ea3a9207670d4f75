//! The gate that passes for Redshift, checked by a client that is not ours:
//! `psql`; and its judgement of statements, without any client.

use crate::support;

use support::gate::Gate;
use support::postgres::{ConnDetails, Postgres};
use support::psql::Client;
use support::redshift_gate::{Verdict, judge};
use support::redshift_gate_login::startup_refusal;
use support::redshift_gate_rules::Session;

/// Statements and the code and words of the error that each gets.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "insert into t values (1) on conflict do nothing",
        "0A000",
        "ON CONFLICT",
    ),
    (
        "insert into t (a) values (1) returning a",
        "0A000",
        "RETURNING",
    ),
    (
        "delete from t where a = 1 returning *",
        "0A000",
        "RETURNING",
    ),
    ("select distinct on (a) a from t", "0A000", "DISTINCT ON"),
    ("select a from t for update", "0A000", "FOR UPDATE"),
    (
        "select a from t for share skip locked",
        "0A000",
        "FOR SHARE",
    ),
    (
        "select a from t where a is distinct from 1",
        "0A000",
        "IS DISTINCT FROM",
    ),
    ("select a from t, lateral (select 1) x", "0A000", "LATERAL"),
    ("select * from (values (1), (2)) v", "42601", "values"),
    ("values (1)", "42601", "values"),
    (
        "insert into t values (1), ((select 2))",
        "0A000",
        "subqueries",
    ),
    (
        "with c as (select 1 as a) insert into t select a from c",
        "42601",
        "insert",
    ),
    ("with c as (select 1 as a) delete from t", "42601", "delete"),
    ("select array[1, 2]", "0A000", "ARRAY"),
    ("select '{1}'::int[]", "0A000", "array"),
    ("select row(1, 2)", "0A000", "ROW"),
    ("select '1'::uuid", "0A000", "unsupported type \"uuid\""),
    (
        "select cast('1' as jsonb)",
        "0A000",
        "unsupported type \"jsonb\"",
    ),
    (
        "create table x (a int, b bytea)",
        "0A000",
        "unsupported type \"bytea\"",
    ),
    (
        "create table x (a serial, b int)",
        "0A000",
        "unsupported type \"serial\"",
    ),
    (
        "alter table t add column j json",
        "0A000",
        "unsupported type \"json\"",
    ),
    ("select array_agg(a) from t", "42883", "array_agg"),
    ("select string_agg(a, ',') from t", "42883", "string_agg"),
    ("select format('%s', 1)", "42883", "format"),
    ("select clock_timestamp()", "42883", "clock_timestamp"),
    ("select pg_sleep(1)", "42883", "pg_sleep"),
    ("select pg_advisory_lock(1)", "42883", "pg_advisory_lock"),
    ("select txid_current()", "42883", "txid_current"),
    ("select * from unnest('{1}') u", "42883", "unnest"),
    (
        "select n from generate_series(1, 3) n join t on t.a = n",
        "0A000",
        "Redshift tables",
    ),
    (
        "create table x as select current_schema() as a",
        "0A000",
        "Redshift tables",
    ),
    (
        "select t.a from t join pg_class c on c.relname = 't'",
        "0A000",
        "Redshift tables",
    ),
    ("select * from pg_enum", "42P01", "pg_enum"),
    (
        "select * from pg_stat_activity",
        "42P01",
        "pg_stat_activity",
    ),
    ("select typcategory from pg_type", "42703", "typcategory"),
    (
        "select count(*) filter (where a > 1) from t",
        "0A000",
        "FILTER",
    ),
    (
        "select sum(a) over (order by a) from t",
        "0A000",
        "frame clause",
    ),
    (
        "select lag(a) over (order by a nulls first) from t",
        "0A000",
        "NULLS",
    ),
    (
        "select sum(a) over w from t window w as (partition by a)",
        "0A000",
        "WINDOW",
    ),
    (
        "select a from t tablesample system (10)",
        "0A000",
        "TABLESAMPLE",
    ),
    ("savepoint s", "0A000", "SAVEPOINT"),
    ("rollback to s", "0A000", "ROLLBACK"),
    ("listen c", "0A000", "LISTEN"),
    ("notify c", "0A000", "NOTIFY"),
    ("deallocate all", "0A000", "DEALLOCATE"),
    ("discard all", "0A000", "DISCARD"),
    ("do $$ begin end $$", "0A000", "DO"),
    ("create index i on t (a)", "0A000", "CREATE INDEX"),
    ("create unique index i on t (a)", "0A000", "CREATE UNIQUE"),
    ("create sequence s", "0A000", "CREATE SEQUENCE"),
    (
        "create trigger x after insert on t execute function f()",
        "0A000",
        "CREATE TRIGGER",
    ),
    ("create type mood as enum ('a')", "0A000", "CREATE TYPE"),
    (
        "create unlogged table x (a int)",
        "0A000",
        "CREATE UNLOGGED",
    ),
    (
        "create temp table x (a int) on commit drop",
        "0A000",
        "ON COMMIT",
    ),
    ("copy t from stdin", "0A000", "COPY"),
    ("copy t to stdout", "0A000", "COPY"),
    ("lock table t in share mode", "42601", "in"),
    ("explain (format json) select 1", "0A000", "EXPLAIN"),
    (
        "alter table t add column b int, add column c int",
        "42601",
        ",",
    ),
    (
        "alter table t add column if not exists b int",
        "42601",
        "not",
    ),
    ("declare c cursor for select 1", "25P01", "transaction"),
    (
        "begin; declare c cursor for select 1; declare d cursor for select 2",
        "0A000",
        "only one cursor",
    ),
    (
        "begin; alter table t alter column v type varchar(9)",
        "25001",
        "ALTER COLUMN",
    ),
    (
        "alter table t alter column a type bigint",
        "0A000",
        "VARCHAR",
    ),
    (
        "alter table t alter column a set default 1",
        "0A000",
        "VARCHAR",
    ),
    (
        "with c as (select 1 as a) merge into t using c on t.a = c.a remove duplicates",
        "42601",
        "merge",
    ),
    ("set time zone local", "42601", "local"),
    ("set time zone -7", "42601", "-"),
    ("set timezone to interval '2 hours'", "42601", "interval"),
    ("create table x as select $1 as a", "42601", "$1"),
    ("alter table t add column c varchar($1)", "42601", "$1"),
    ("copy t from 's3://b/k' iam_role $1", "42601", "$1"),
    (
        "unload ('select 1') to 's3://b/k' iam_role $1",
        "42601",
        "$1",
    ),
    (
        "create view late as select a from t with no schema binding",
        "0A000",
        "qualified",
    ),
    (
        "merge into t using (with c as (select 1 as a) select a from c) s on t.a = s.a \
         remove duplicates",
        "42601",
        "with",
    ),
    (
        "merge into t using s on t.a = s.a remove duplicates when matched then delete",
        "42601",
        "remove",
    ),
    (
        "set standard_conforming_strings = on",
        "42704",
        "standard_conforming_strings",
    ),
    ("set lock_timeout = 1", "42704", "lock_timeout"),
    ("create table x (a int, tag varchar(10))", "42601", "tag"),
    (
        "merge into t using s on t.a = s.a when matched then delete",
        "42601",
        "MERGE",
    ),
    (
        "merge into t using s on t.a = s.a when matched and t.a > 1 then delete \
      when not matched then insert values (1)",
        "42601",
        "and",
    ),
    ("select 1; savepoint s", "0A000", "SAVEPOINT"),
];

/// Statements that pass although they hold such words, and most of what is
/// put into other words.
const PASSED: &[&str] = &[
    "select 'savepoint returning' -- for update",
    "/* on conflict */ select 1 as \"returning\"",
    r"select 'it\'s; savepoint s'",
    "select nvl(null, 1), len('abc'), getdate(), sysdate, version()",
    "select dateadd(day, 1, getdate()), datediff(second, getdate(), sysdate)",
    "select convert_timezone('Europe/Berlin', getdate())",
    "select listagg(a, ',') within group (order by a desc) from t",
    "select listagg(a) from t",
    "select a, row_number() over (order by a), lag(a) over (order by a) from t",
    "select sum(a) over (order by a rows unbounded preceding) from t",
    "create table y (a int identity(1, 1), b varchar(max) encode zstd distkey, c super, \
     d varbyte(20), e text, primary key (a)) diststyle key compound sortkey (b, a)",
    "create table z diststyle even compound sortkey (a) as select a from t",
    "create table if not exists w (a int) diststyle key distkey (a) sortkey (a)",
    "insert into t with c as (select 2 as a) select a from c",
    "insert into t (a) values (1), (2)",
    "set query_group to 'campaignd'",
    "set statement_timeout to 60000",
    "begin; lock table t; commit",
    "select column_name from svv_columns where table_name = 't'",
    "select n from generate_series(1, 3) n",
    "alter table t rename to t2",
    "alter table t2 rename to t",
    "explain select a from t",
    "set time zone 'America/New_York'",
    "set timezone to 'UTC'",
    "set time zone default",
    "begin; declare c cursor for select 1; fetch all from c; close c; \
     declare d cursor for select 2; commit",
    "alter table t alter column v type varchar(20)",
    "create table s (a int, v varchar(8))",
    "merge into t using s on t.a = s.a when matched then update set v = s.v \
     when not matched then insert values (s.a, s.v)",
    "merge into t using s on t.a = s.a remove duplicates",
    "create view late as select a from public.t with no schema binding",
    "cancel 1234567 'a reason'",
    "select * from stl_restarted_sessions",
    "select privilege_type from svv_relation_privileges where relation_name = 't'",
    "select application_name from sys_connection_log",
    "select query_label, query_text from sys_query_history",
];

#[test]
fn what_redshift_refuses_is_refused_in_its_words() {
    for (sql, code, words) in REFUSED {
        match judge(sql, Session::default()) {
            Verdict::Refused(refused) => {
                assert_eq!(refused.code, *code, "{sql}: {refused:?}");
                assert!(refused.message.contains(words), "{sql}: {refused:?}");
            }
            Verdict::Passed(_) => panic!("it passed: {sql}"),
        }
    }
}

#[test]
fn a_session_may_ask_for_what_redshift_knows_and_nothing_else() {
    let refused = |name: &str, value: &str| {
        let asked = [("user", "app"), ("database", "shared"), (name, value)];
        let asked = asked.map(|(name, value)| (name.to_owned(), value.to_owned()));
        startup_refusal(&asked.into()).map(|refused| (refused.code, refused.is_fatal))
    };
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("application_name", "campaignd/1"),
        ("extra_float_digits", "2"),
        ("extra_float_digits", "-15"),
        ("client_protocol_version", "2"),
        ("driver_version", "x"),
        ("driver_discovery_version", "1"),
        ("options", "-c statement_timeout=60000 -c query_group=x"),
    ] {
        assert_eq!(refused(name, value), None, "{name}={value}");
    }
    for (name, value, code) in [
        ("extra_float_digits", "3", "22023"),
        ("extra_float_digits", "-16", "22023"),
        ("standard_conforming_strings", "on", "42704"),
        ("options", "-c lock_timeout=1", "42704"),
        ("replication", "true", "42704"),
    ] {
        assert_eq!(refused(name, value), Some((code, true)), "{name}={value}");
    }
}

#[test]
fn a_place_in_what_postgresql_got_is_found_in_what_was_sent() {
    let sql = "select nvl(a, 1), sysdate, ä, oops from t";
    let Verdict::Passed(rewritten) = judge(sql, Session::default()) else {
        panic!("it was refused");
    };
    let there = rewritten.sql.find("oops").unwrap();
    let there = rewritten.sql[..there].chars().count() + 1;
    let here = sql[..sql.find("oops").unwrap()].chars().count() + 1;
    assert_eq!(rewritten.original(there), here);
}

/// A server, its database, and the gate before it, with a table in it.
async fn gate() -> (Postgres, ConnDetails, Gate) {
    let server = Postgres::start();
    let database = server.database("redshift_gate");
    let gate = Gate::redshift(&database).await;
    let made = psql(&gate, &database, "create table t (a int, v varchar(8))").await;
    assert_eq!(made, "");
    (server, database, gate)
}

/// What `psql` says to a statement: rows, or the error with its code.
async fn psql(gate: &Gate, database: &ConnDetails, sql: &str) -> String {
    Client::of(gate, database).says(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_is_refused_what_redshift_refuses_and_served_the_rest() {
    let (_server, database, gate) = gate().await;
    for (sql, code, _) in REFUSED {
        let said = psql(&gate, &database, sql).await;
        assert!(said.contains(&format!("ERROR:  {code}")), "{sql}: {said}");
    }
    for sql in PASSED {
        let said = psql(&gate, &database, sql).await;
        assert!(
            !said.contains("ERROR") && !said.contains("FATAL"),
            "{sql}: {said}"
        );
    }
    // What is refused aborts its transaction, as an error of the server's.
    let script = "begin; insert into t values (77); savepoint s; commit";
    let said = psql(&gate, &database, script).await;
    assert!(said.contains("0A000"), "{said}");
    let said = psql(&gate, &database, "select count(*) from t where a = 77").await;
    assert_eq!(said, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_sees_redshifts_version_values_and_columns() {
    let (_server, database, gate) = gate().await;
    let said = async |sql: &str| psql(&gate, &database, sql).await;
    assert!(
        said("select version()")
            .await
            .ends_with("Redshift 1.0.61687")
    );
    assert_eq!(said(r"\echo :SERVER_VERSION_NAME").await, "8.0.2");
    assert_eq!(said(r"select 'it\'s'").await, "it's");
    assert_eq!(said(r"select len('a\\b')").await, "3");
    assert_eq!(
        said("select dateadd(day, 1, '2026-01-31'::timestamp)").await,
        "2026-02-01 00:00:00"
    );
    let between = "select datediff(second, '2026-01-01 00:00:01'::timestamp, '2026-01-01 00:01:00'::timestamp)";
    assert_eq!(said(between).await, "59");
    let berlin = "select convert_timezone('Europe/Berlin', '2026-01-01 00:00:00'::timestamp)";
    assert_eq!(said(berlin).await, "2026-01-01 01:00:00");
    said("insert into t values (1), (2)").await;
    assert_eq!(
        said("select listagg(a, '-') within group (order by a desc) from t").await,
        "2-1"
    );

    said("create table bytes (v varchar(4), k int primary key, s super)").await;
    let long = said("insert into bytes values ('äää', 1)").await;
    assert!(long.contains("22001"), "{long}");
    said("create table texts (v text, k varchar(max))").await;
    let long = said("insert into texts (v) values (repeat('x', 257))").await;
    assert!(long.contains("22001"), "{long}");
    assert_eq!(
        said("insert into texts values (repeat('x', 256), repeat('x', 65535))").await,
        ""
    );
    // Neither kept apart nor lost: keys are declared and not enforced.
    assert_eq!(
        said("insert into bytes values ('ää', 1), ('x', 1)").await,
        ""
    );
    assert_eq!(said("select count(*) from bytes where k = 1").await, "2");
    let types = "select atttypid from pg_attribute where attname = 's' and attnum > 0";
    assert_eq!(said(types).await, "4000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_made_from_a_literal_is_as_wide_as_the_literal() {
    let (_server, database, gate) = gate().await;
    let said = async |sql: &str| psql(&gate, &database, sql).await;
    let made = "create table narrow as select 'planned' as s, case when 1 = 1 then 'ok' else 'no' end as c, \
                cast('ok' as varchar(16)) as w";
    assert_eq!(said(made).await, "");
    let refused = said("insert into narrow (s) values ('suppressed')").await;
    assert!(refused.contains("22001"), "{refused}");
    let refused = said("update narrow set c = 'yes'").await;
    assert!(refused.contains("22001"), "{refused}");
    assert_eq!(said("update narrow set w = 'suppressed'").await, "");
}
