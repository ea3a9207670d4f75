//! Text that would end its literal, planted in every place where text meets
//! SQL: it stays text, or is refused where only a plain name can stand.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::audience::{Dialect, Holdout};
use campaignd::history::{BatchStatus, BootstrapOptions, RunStatus, TABLES, bootstrap};
use campaignd::warehouse::{Change, ConnectorOptions, ServerOptions, apply_bootstrap, open};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use support::night::{self, NEVER, number};
use support::oracle;
use support::place::{Place, closing, facts, outcome, settlement};
use support::postgres::{ConnDetails, Postgres};
use support::psql::Client;
use support::receiver::Answer;
use support::site::{Site, World};

/// Ends a literal whose backslashes or whose quotes alone are heeded, and ends
/// in one that takes the meaning of what follows.
const NASTY: &str = r#"x\'); drop table people; --\\'' "\"#;

const PEOPLE: u64 = 40;
const LIMIT: usize = 12;

crate::in_both_worlds! {
    Postgres
    planted_text_stays_text_through_a_run_and_an_erasure
    where_only_a_name_can_stand_planted_text_is_refused
}

/// The same for what stands in the campaign's SQL. That is refused where any
/// database would read a `;` outside of its literals, and one that heeds
/// backslashes does so in PostgreSQL's.
fn in_sql(world: World) -> String {
    match world {
        World::Redshift => NASTY.to_owned(),
        World::Postgres | World::Gate => NASTY.replace(';', ""),
    }
}

fn key(n: u64) -> String {
    format!("{NASTY}{n}")
}

/// As YAML, which JSON is.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

/// Forty people and who of them is not to be contacted: one is on a list, and
/// one has had something on the channel that is called so.
async fn people(world: World, site: &Site) {
    let note = in_sql(world);
    for sql in [
        format!(
            "create table people as select $q${NASTY}$q$ || n as profile_id, \
             $q${note}$q$::varchar as note, n as \"odd\"\"c'\\\", \
             cast('2026-11-22 14:00:00' as timestamp) as seen_at \
             from generate_series(1, {PEOPLE}) n"
        ),
        format!(
            "create table stop as select $q${}$q$ as profile_id",
            key(40)
        ),
        format!(
            "insert into campaignd.contact_history (run_id, campaign, profile_id, channel, \
             status, counts_as_contact, is_test, contacted_at, recorded_at) \
             values ('other@20261101T000000Z', 'other', $q${}$q$, $q${NASTY}$q$, 'unknown', \
             true, false, now() at time zone 'UTC', now() at time zone 'UTC')",
            key(39)
        ),
    ] {
        site.sql(&sql).await;
    }
}

fn campaign(world: World) -> String {
    let (text, var) = (quoted(NASTY), quoted(&in_sql(world)));
    let who = "{{ var('who') | literal }}";
    format!(
        r#"name: {name}
description: {text}
owner: {text}
connector: warehouse
schedule: {{ cron: '{NEVER}', timezone: UTC }}
vars: {{ who: {var} }}
fresh_when:
  sql: select max(seen_at) from people where note = {who}
  max_age: 400d
audience:
  key: profile_id
  sql: |
    select profile_id, note, "odd""c'\" from people
    where note = {who} and profile_id <> {who}
policy:
  suppress: [ stop ]
  holdout: {{ percent: 50, salt: {text} }}
  frequency_cap: [ {{ contacts: 1, within: 7d, channel: {text} }} ]
  limit: {LIMIT}
  order_by: [ {odd} ]
activation: {{ destination: sink, batch_size: 7, rejected_at: /rejected }}
contact_history:
  attributes: {{ {text}: {text} }}
"#,
        name = night::CAMPAIGN,
        odd = quoted(r#"odd"c'\ desc"#),
    )
}

async fn site(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    let channel = format!("channel: {}", quoted(NASTY));
    site.write(
        "campaignd.yaml",
        &site.settings().replace("channel: email", &channel),
    );
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    people(world, &site).await;
    site.write("campaigns/hello.yaml", &campaign(world));
    site
}

/// Whether the salt, as it is written, holds the key out.
fn is_held_out(key: &str) -> bool {
    let digest = Md5::digest(format!("{NASTY}:{key}"));
    let first = u32::from_be_bytes(digest[..4].try_into().unwrap());
    first % 10_000 < 5_000
}

async fn planted_text_stays_text_through_a_run_and_an_erasure(world: World) {
    let site = site(world, "planted_text").await;
    for args in [
        &["check", "--online"][..],
        &["count", night::CAMPAIGN],
        &["plan", night::CAMPAIGN, "--sql", "--explain"],
    ] {
        let output = site.campaignd(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    site.receiver.rule(|request| {
        let first = request.members()[0]["profile_id"].clone();
        let refused = json!({"rejected": [{"key": first, "reason": NASTY}]});
        Answer::reply(200, &[], &refused.to_string())
    });
    let output = site
        .campaignd(&["run", night::CAMPAIGN, "--format", "json"])
        .await;
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The list and the channel are matched as they are, the salt is what it
    // is, and the limit takes those at the end of the odd column.
    let asked = (1..=PEOPLE).filter(|n| *n != 40 && !is_held_out(&key(*n)));
    let asked: Vec<u64> = asked.filter(|n| *n != 39).collect();
    let held_out = (1..40).filter(|n| is_held_out(&key(*n))).count();
    assert_eq!(run["suppressed"], 1, "{run}");
    assert_eq!(run["held_out"], held_out, "{run}");
    assert_eq!(run["planned"], LIMIT, "{run}");
    let mut sent: Vec<Value> = Vec::new();
    for request in site.receiver.requests() {
        assert_eq!(request.json()["data"]["attributes"], json!({NASTY: NASTY}));
        assert_eq!(request.json()["data"]["channel"], NASTY);
        sent.extend(request.members());
    }
    let mut numbers: Vec<u64> = Vec::new();
    for member in &sent {
        assert_eq!(member["note"], in_sql(world));
        let n = member[r#"odd"c'\"#].as_u64().unwrap();
        assert_eq!(member["profile_id"], key(n));
        numbers.push(n);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, asked[asked.len() - LIMIT..]);
    let ours = "from campaignd.contact_history where campaign = 'hello'";
    let rows = site
        .sql(&format!("select distinct attributes, channel {ours}"))
        .await;
    assert_eq!(rows.len(), 1);
    assert_eq!(
        rows[0]["attributes"],
        Some(json!({NASTY: NASTY}).to_string())
    );
    assert_eq!(rows[0]["channel"].as_deref(), Some(NASTY));
    let rejected = format!("select reason {ours} and status = 'rejected'");
    let rows = site.sql(&rejected).await;
    assert_eq!(rows.len(), 2);
    assert!(
        rows.iter()
            .all(|row| row["reason"].as_deref() == Some(NASTY))
    );
    oracle::check(&site).await;
    // Erased is who is listed, and nobody else.
    site.write("keys.txt", &format!("{}\n{NASTY}\n", key(numbers[0])));
    let erased = site
        .json(&["erase", "warehouse", "--keys", "keys.txt"])
        .await;
    assert_eq!(erased["tables"][0]["rows"], 1, "{erased}");
    let left = format!("select count(*) {ours} and status <> 'held_out'");
    let withheld = asked.len() + 2 - LIMIT - usize::from(is_held_out(&key(39)));
    assert_eq!(
        number(&site, &left).await,
        u64::try_from(LIMIT - 1 + withheld).unwrap()
    );
    let all = "select count(*) from people";
    assert_eq!(number(&site, all).await, PEOPLE);
    site.check_gate();
}

async fn where_only_a_name_can_stand_planted_text_is_refused(world: World) {
    let site = site(world, "planted_names").await;
    let good = campaign(world);
    let text = quoted(NASTY);
    for (from, to) in [
        ("name: hello", format!("name: {text}")),
        ("connector: warehouse", format!("connector: {text}")),
        ("destination: sink", format!("destination: {text}")),
        ("key: profile_id", format!("key: {text}")),
        ("suppress: [ stop ]", format!("suppress: [ {text} ]")),
        ("timezone: UTC", format!("timezone: {text}")),
        // A value that is no literal has to be plain.
        (
            "profile_id <> {{ var('who') | literal }}",
            "profile_id <> '{{ var(\"who\") }}'".to_owned(),
        ),
    ] {
        assert!(good.contains(from), "{from}");
        site.write("campaigns/hello.yaml", &good.replacen(from, &to, 1));
        let output = site.campaignd(&["check"]).await;
        assert_eq!(output.status.code(), Some(3), "{to}: {output:?}");
    }
    site.write("campaigns/hello.yaml", &good);
    for args in [
        &["runs", "show", NASTY][..],
        &["cancel", NASTY],
        &["resume", NASTY],
        &["resolve", NASTY, "--batch", "1", "--delivered"],
        &["run", NASTY],
        &["erase", NASTY, "--keys", "keys.txt"],
        &["bootstrap", "warehouse", "--conversions", NASTY],
        &[
            "bootstrap",
            "warehouse",
            "--share",
            "x'); drop table people; --",
        ],
    ] {
        let output = site.campaignd(args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
    let settings = site.settings();
    let (user, lines) = (&site.database().user, quoted("two\nlines"));
    for (from, to) in [
        ("schema: campaignd", format!("schema: {text}")),
        (&format!("user: {user}"), format!("user: {lines}")),
    ] {
        assert!(settings.contains(from), "{from}");
        site.write("campaignd.yaml", &settings.replacen(from, &to, 1));
        let output = site.campaignd(&["check"]).await;
        assert_eq!(output.status.code(), Some(3), "{to}: {output:?}");
    }
    assert_eq!(site.receiver.count(), 0);
    site.check_gate();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_the_administrators_sql_are_quoted() {
    let odd = r#"o"d'd\"#;
    let options = BootstrapOptions {
        schema: odd.to_owned(),
        user: odd.to_owned(),
        by_iam: false,
        max_queries: 6,
        shared: vec![format!("{odd}s.{odd}v")],
        conversions: None,
    };
    let sql = bootstrap(Dialect::Redshift, &options).unwrap();
    let place = Place::redshift().await;
    let ConnectorOptions::Server(server) = place.options.clone() else {
        panic!("it is a server");
    };
    let database = ConnDetails {
        host: server.host.clone(),
        port: server.port,
        user: server.user.clone(),
        database: server.database.clone(),
    };
    let psql = Client::of(place.gate(), &database);
    let login = sql.lines().find(|line| line.starts_with("-- create user "));
    let login = login.unwrap().trim_start_matches("-- ");
    let (login, _) = login.split_once(" session timeout ").unwrap();
    let doubled = odd.replace('"', "\"\"");
    let view = format!(
        "{login}; create schema \"{doubled}s\"; \
         create view \"{doubled}s\".\"{doubled}v\" as select id from people;"
    );
    assert_eq!(psql.script(&view).await, "");
    assert_eq!(psql.script(&sql).await, "");
    // The login has what was granted, and finds everything made.
    let mut app = Client::of(place.gate(), &database);
    app.user = odd.to_owned();
    let count = format!("select count(*) from \"{doubled}s\".\"{doubled}v\"");
    assert_eq!(app.says(&count).await, "12");
    let own = ConnectorOptions::Server(ServerOptions {
        schema: odd.to_owned(),
        user: odd.to_owned(),
        ..server
    });
    let applied = apply_bootstrap(own.clone()).await.unwrap();
    assert!(applied.iter().all(|one| one.change == Change::None));
    assert_eq!(applied.len(), TABLES.len() + 2, "schema, tables, view");
    let warehouse = open(own).unwrap();
    warehouse.ping().await.unwrap();
    assert_eq!(place.gate().refused(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_the_administrators_sql_are_quoted_on_postgresql() {
    let odd = r#"o"d'd\$$"#;
    let server = Postgres::start();
    let database = server.database("odd_names");
    let options = BootstrapOptions {
        schema: odd.to_owned(),
        user: odd.to_owned(),
        by_iam: false,
        max_queries: 6,
        shared: vec![format!("public.{odd}")],
        conversions: None,
    };
    let sql = bootstrap(Dialect::Postgres, &options).unwrap();
    let mut psql = Client::directly(&database);
    // As servers are set up; those of the tests are not.
    let usual = "-c standard_conforming_strings=on".to_owned();
    psql.environment.push(("PGOPTIONS", usual));
    let view = format!(
        "create view \"{}\" as select 12 as id",
        odd.replace('"', "\"\"")
    );
    assert_eq!(psql.says(&view).await, "");
    assert_eq!(psql.script(&sql).await, "");
    let login = "select count(*) from pg_roles where rolname = $q$";
    assert_eq!(psql.says(&format!("{login}{odd}$q$")).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_with_backslashes_and_quotes_stays_text_wherever_it_meets_sql() {
    let mut place = Place::redshift().await;
    let mut facts = facts("select id from people");
    facts.attributes = Some(NASTY.to_owned());
    facts.channel = NASTY.to_owned();
    facts.campaign_version = NASTY.to_owned();
    facts.policy.holdout = Some(Holdout {
        basis_points: 0,
        salt: NASTY.to_owned(),
    });
    let funnel = place.laid_out(&facts).await;
    let mut sent = outcome(&facts, 1, 3, BatchStatus::Rejected);
    sent.error = Some(NASTY.to_owned());
    let settled = settlement(&facts, funnel, vec![sent]);
    place.warehouse.settle(&[settled]).await.unwrap();
    let mut end = closing(&facts, funnel, RunStatus::Incomplete);
    end.error = Some(NASTY.to_owned());
    place.warehouse.close(&end).await.unwrap();
    let rows = "select distinct attributes, channel, campaign_version, reason \
                from campaignd.contact_history";
    assert_eq!(place.rows(rows).await, [[NASTY; 4].join("|")]);
    let rows = "select error from campaignd.runs union all \
                select error from campaignd.deliveries";
    assert_eq!(place.rows(rows).await, [NASTY; 2]);
    assert_eq!(place.rows("select count(*) from people").await, ["12"]);
}
