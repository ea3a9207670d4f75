//! `check --online`, with the built program on SQLite and on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use serde_json::json;
use support::site::Site;

fn campaign(name: &str, columns: &str, relation: &str, suppress: &str) -> String {
    format!(
        "name: {name}
connector: warehouse
schedule: {{ cron: '0 0 1 1 *', timezone: UTC }}
audience:
  key: profile_id
  sql: |
    select profile_id, {columns}
    from {relation}
policy:
  suppress: [ {suppress} ]
  cooldown: 7d
activation: {{ destination: sink }}
"
    )
}

async fn prepared(site: &Site) {
    site.sql("create table shoppers (profile_id text, email text)")
        .await;
    site.sql("create table never (profile_id text)").await;
    site.sql("create table keyless (email text)").await;
    site.sql("create view people as select email as profile_id from keyless")
        .await;
    site.write(
        "campaigns/good.yaml",
        &campaign("good", "email", "shoppers", "never"),
    );
}

/// What refuses a file: the place and the message of each.
async fn problems(site: &Site) -> (Option<i32>, Vec<[String; 2]>) {
    told(site, "error").await
}

async fn told(site: &Site, severity: &str) -> (Option<i32>, Vec<[String; 2]>) {
    let output = site
        .campaignd(&["check", "--online", "--format", "json"])
        .await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|problem| problem["severity"] == severity)
        .map(|problem| {
            let file = problem["file"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap();
            let place = format!("{file}:{}:{}", problem["line"], problem["column"]);
            [place, problem["message"].as_str().unwrap().to_owned()]
        });
    (output.status.code(), found.collect())
}

async fn finds_everything(site: &Site) {
    prepared(site).await;
    assert_eq!(problems(site).await, (Some(0), Vec::new()));
    for (name, columns, relation, suppress) in [
        ("a", "email, phone", "shoppers", "never"),
        ("b", "email", "nowhere", "never"),
        ("c", "email", "shoppers", "keyless, nobody"),
    ] {
        let text = campaign(name, columns, relation, suppress);
        site.write(&format!("campaigns/{name}.yaml"), &text);
    }
    let (code, found) = problems(site).await;
    assert_eq!(code, Some(3));
    let places: Vec<&str> = found.iter().map(|[place, _]| &**place).collect();
    assert_eq!(places.len(), 4, "{found:#?}");
    for (problem, (file, word)) in found.iter().zip([
        ("a.yaml", "phone"),
        ("b.yaml", "nowhere"),
        ("c.yaml:10:13", "keyless"),
        ("c.yaml:10:13", "nobody"),
    ]) {
        let [place, message] = problem;
        assert!(
            place.starts_with(file) && message.contains(word),
            "{problem:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_it_finds_what_the_warehouse_would_refuse_and_makes_nothing() {
    let site = Site::sqlite().await;
    finds_everything(&site).await;
    let tables = site.sql("select name from sqlite_master").await;
    assert_eq!(tables.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_it_finds_what_the_warehouse_would_refuse_with_its_place() {
    let site = Site::new("check_online").await;
    let output = site.campaignd(&["check", "--online"]).await;
    assert_eq!(output.status.code(), Some(5));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("connector `warehouse`"), "{text}");
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    finds_everything(&site).await;
    let (_, found) = problems(&site).await;
    assert_eq!(json!(found[0][0]), "a.yaml:7:31");
    assert_eq!(json!(found[1][0]), "b.yaml:8:10");
}

/// Everybody with everybody else, and a table where there should be a view.
const EACH_WITH_EACH: &str = "name: pairs
connector: warehouse
schedule: { cron: '0 0 1 1 *', timezone: UTC }
audience:
  key: profile_id
  sql: |
    select a.profile_id, b.email
    from shoppers a join shoppers b on a.email < b.email
activation: { destination: sink }
";

async fn noted(site: Site) -> Vec<String> {
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site.sql("create table shoppers (profile_id varchar(20), email varchar(99))")
        .await;
    site.write("campaigns/pairs.yaml", EACH_WITH_EACH);
    let (code, notes) = told(&site, "note").await;
    assert_eq!(code, Some(0), "notes refuse nothing");
    notes.into_iter().map(|note| note.join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redshift_it_notes_a_dear_plan_and_what_the_connector_test_finds() {
    let notes = noted(Site::on_redshift("check_online").await).await;
    let nested = notes.iter().find(|note| note.contains("a nested loop"));
    assert!(nested.unwrap().starts_with("pairs.yaml:7:"), "{notes:#?}");
    assert!(
        notes
            .iter()
            .any(|note| note.contains("shoppers") && note.contains("table")),
        "{notes:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_nested_loop_is_nothing_to_note() {
    let notes = noted(Site::new("check_notes").await).await;
    assert!(
        !notes.iter().any(|note| note.contains("loop")),
        "{notes:#?}"
    );
    assert!(
        notes.iter().any(|note| note.contains("superuser")),
        "{notes:#?}"
    );
}

/// A key of truth values, freshness that is a number, an order of what has
/// none, an exact decimal that is compared, JSON in the middle of a text.
const TYPES: &str = r#"name: types
connector: warehouse
schedule: { cron: '0 0 1 1 *', timezone: UTC }
fresh_when:
  sql: select count(*) as loaded from shoppers
  max_age: 6h
audience:
  key: active
  sql: select active, email, spent, prefs from shoppers
policy:
  order_by: prefs
activation:
  destination: sink
  payload:
    member:
      to: "{{ email }}"
      tier: "{{ 'gold' if spent > 100 else 'basic' }}"
      about: "likes {{ prefs }}"
"#;

/// What is said of columns whose types do not fit what a campaign does with
/// them: the refusals and the notes of its file.
async fn misfits(site: &Site, json: &str) -> Vec<String> {
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site.sql(&format!(
        "create table shoppers (active boolean, email varchar(99), spent numeric(8,2), prefs {json})"
    ))
    .await;
    site.write("campaigns/types.yaml", TYPES);
    let (code, refused) = told(site, "error").await;
    assert_eq!(code, Some(3));
    let (_, notes) = told(site, "note").await;
    let of_file = |said: &[String; 2]| said[0].starts_with("types.yaml");
    let notes = notes.into_iter().filter(of_file);
    let all = refused.into_iter().chain(notes);
    all.map(|said| said.join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_does_not_fit_is_told_of_at_its_place() {
    let on_redshift = misfits(&Site::on_redshift("types").await, "super").await;
    insta::assert_snapshot!("types_on_redshift", on_redshift.join("\n"));
    let on_postgres = misfits(&Site::new("types_too").await, "jsonb").await;
    insta::assert_snapshot!("types_on_postgres", on_postgres.join("\n"));
}
