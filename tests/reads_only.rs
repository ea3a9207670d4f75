//! An audience that would write: whatever a campaign's SQL calls, nothing but
//! our own tables changes, and a query that tries is a run that fails.

use crate::support;

use support::night;
use support::oracle;
use support::site::{Site, World};

fn campaign(sql: &str, fresh_when: &str) -> String {
    format!(
        "name: hello
connector: warehouse
schedule: {{ cron: '0 9 1 1 *', timezone: UTC }}
{fresh_when}audience:
  key: profile_id
  sql: {sql}
activation: {{ destination: sink }}
"
    )
}

/// People, a table that nobody may write, and functions that do.
async fn prepared(name: &str) -> Site {
    let site = Site::new(name).await;
    for sql in [
        "create schema shared",
        "create table shared.people as select 'p-' || n as profile_id from generate_series(1, 5) n",
        "create table shared.seen (profile_id text)",
        "create sequence shared.counter",
        "create function shared.noted(id text) returns text language plpgsql as
         $$ begin insert into shared.seen values (id); return id; end $$",
        // It says that it does not write, and has another do it.
        "create function shared.innocent(id text) returns text stable language sql as
         $$ select shared.noted(id) $$",
        "create function shared.emptied(id text) returns text language plpgsql as
         $$ begin truncate shared.seen; return id; end $$",
        "create function shared.chosen(id text) returns text language plpgsql as
         $$ begin return case when random() < 2 then id end; end $$",
        "create view shared.noted_people as select shared.noted(profile_id) as profile_id from shared.people",
        "insert into shared.seen values ('before')",
    ] {
        site.sql(sql).await;
    }
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site
}

/// What nobody may have changed, and what is left of runs.
async fn untouched(site: &Site) {
    let seen = "select string_agg(profile_id, ',') as it from shared.seen";
    assert_eq!(site.sql(seen).await[0]["it"].as_deref(), Some("before"));
    nothing_is_left(site).await;
}

async fn nothing_is_left(site: &Site) {
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
    let tables = "select relname from pg_class where relname ~ '^(stage|admit|run)_[0-9a-f]+$'";
    assert_eq!(site.sql(tables).await, []);
    assert_eq!(site.receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_writes_fails_its_run_as_the_plan_said_and_nothing_is_written() {
    let site = prepared("reads_only").await;
    for (sql, written) in [
        (
            "select shared.noted(profile_id) as profile_id from shared.people",
            "shared.seen",
        ),
        ("select profile_id from shared.noted_people", "shared.seen"),
        (
            "select shared.innocent(profile_id) as profile_id from shared.people",
            "shared.seen",
        ),
        (
            "select shared.emptied(profile_id) as profile_id from shared.people",
            "shared.seen",
        ),
        (
            "select profile_id || nextval('shared.counter') as profile_id from shared.people",
            "shared.counter",
        ),
    ] {
        site.write("campaigns/hello.yaml", &campaign(sql, ""));
        let plan = site.campaignd(&["plan", "hello"]).await;
        assert_eq!(plan.status.code(), Some(3), "{sql}: {plan:?}");
        let why = String::from_utf8(plan.stderr).unwrap();
        assert!(why.contains("a query only reads"), "{why}");
        let output = site.campaignd(&["run", "hello"]).await;
        assert_eq!(output.status.code(), Some(4), "{sql}: {output:?}");
        let row = site
            .sql("select status, error from campaignd.runs order by started_at desc limit 1")
            .await
            .remove(0);
        assert_eq!(row["status"].as_deref(), Some("failed"), "{sql}");
        let why = row["error"].clone().unwrap();
        let says = format!("the query writes: a function that it calls has changed {written}");
        assert!(why.starts_with(&says), "{sql}: {why}");
        untouched(&site).await;
    }
    let report = site.campaignd(&["connector", "test", "warehouse"]).await;
    assert!(report.status.success(), "{report:?}");
    untouched(&site).await;
    let newest = ["select shared.noted(now()::text)::timestamptz as newest"];
    for sql in newest {
        let fresh_when = format!("fresh_when: {{ sql: '{sql}', max_age: 1h }}\n");
        let people = "select profile_id from shared.people";
        site.write("campaigns/hello.yaml", &campaign(people, &fresh_when));
        let output = site.campaignd(&["run", "hello"]).await;
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        untouched(&site).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_may_write_and_does_not_is_no_hindrance() {
    let site = prepared("reads_functions").await;
    let sql = "select shared.chosen(profile_id) as profile_id from shared.people";
    site.write("campaigns/hello.yaml", &campaign(sql, ""));
    let run = site.json(&["run", "hello"]).await;
    assert_eq!(run["delivered"], 5);
    oracle::check(&site).await;
}

/// A query that would take years fails its run, twice tried, and leaves
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_takes_too_long_fails_its_run_and_nothing_of_it_is_left() {
    for world in [World::Postgres, World::Redshift] {
        let site = Site::of(world, "too_long").await;
        site.sql("create table people as select 'p-' || n as profile_id, n from generate_series(1, 1000) n")
            .await;
        night::change_settings(&site, "tls: disable", "tls: disable, statement_timeout: 1s");
        let sql = "select a.profile_id from people a, people b, people c, people d where a.n + b.n + c.n + d.n < 0";
        site.write("campaigns/hello.yaml", &campaign(sql, ""));
        let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
        assert!(output.status.success());
        let output = site.campaignd(&["run", "hello"]).await;
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let rows = site.sql("select status, error from campaignd.runs").await;
        assert_eq!(rows[0]["status"].as_deref(), Some("failed"));
        let why = rows[0]["error"].as_deref().unwrap();
        assert!(
            why.contains("longer than the connector's `statement_timeout`"),
            "{why}"
        );
        nothing_is_left(&site).await;
    }
}
