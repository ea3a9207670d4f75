//! Templates and body formats with the built program, a real PostgreSQL and a
//! real HTTP receiver.

use crate::support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::oracle;
use support::receiver::Recorded;
use support::site::{Site, TextRow, World};

/// Five people; the third has no first name, the first a strange one.
const PEOPLE: &str = "
    create table people as
    select 'p-' || n as profile_id, n * 1.10 as spent, 9007199254740993 + n as big,
           case when n = 1 then E'Zo\u{eb} \"\\\\\\n\u{1f98a}' when n <> 3 then 'Ada' end as first_name,
           timestamp '2026-11-22 14:00:00' - n * interval '30 days' as seen_at
    from generate_series(1, 5) n";

const SQL: &str = "
    select profile_id, spent, big, first_name from people
    where seen_at >= '{{ days_ago(120) }}' and profile_id like {{ var('pattern') | literal }}";

async fn site(name: &str, format: &str, activation: &str) -> Site {
    let site = Site::new(name).await;
    site.sql(PEOPLE).await;
    let settings = site.settings();
    let with_format = format!("    channel: email\n    format: {format}\n");
    let settings = settings.replace("    channel: email\n", &with_format);
    site.write("campaignd.yaml", &settings);
    let campaign = format!(
        "name: hello
connector: warehouse
schedule: {{ cron: '0 9 * * *', timezone: UTC }}
vars: {{ pattern: 'p-%', shop: north }}
audience:
  key: profile_id
  sql: |{SQL}
activation:
  destination: sink
{activation}
contact_history: {{ attributes: {{ offer: Gr\u{fc}\u{df}e }} }}
"
    );
    site.write("campaigns/hello.yaml", &campaign);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

const RUN: &[&str] = &["run", "hello", "--fire-time", "2026-11-22T14:00:00Z"];

/// Four of the five: the fifth was not seen for 150 days.
async fn run(site: &Site) -> Value {
    let run = site.json(RUN).await;
    assert_eq!(run["status"], "finished", "{run}");
    assert_eq!(run["delivered"], 4, "{run}");
    run
}

fn members(site: &Site) -> Vec<Value> {
    let requests = site.receiver.requests();
    let mut members: Vec<Value> = requests.iter().flat_map(Recorded::members).collect();
    members.sort_by_key(|member| member["profile_id"].to_string());
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_attributes_go_out_as_the_templates_say() {
    let site = site(
        "payload_templates",
        "json",
        "  batch_size: 3
  payload:
    member:
      profile_id: '{{ profile_id }}'
      greeting: 'Hi {{ first_name | default(\"there\") }} from {{ var(\"shop\") }}'
      numbers: [ '{{ spent }}', '{{ big }}', 7 ]
      since: '{{ days_ago(1) }}'
    attributes: { wave: '{{ batch }} of {{ run_id }}' }",
    )
    .await;
    let run = run(&site).await;
    oracle::check(&site).await;
    let members = members(&site);
    let first = json!({
        "profile_id": "p-1", "greeting": "Hi Zo\u{eb} \"\\\n\u{1f98a} from north",
        "numbers": [1.10, "9007199254740994", 7], "since": "2026-11-21 14:00:00",
    });
    assert_eq!(members[0], first);
    assert_eq!(members[2]["greeting"], "Hi there from north");
    for request in site.receiver.requests() {
        let data = &request.json()["data"];
        let id = run["run_id"].as_str().unwrap();
        let wave = format!("{} of {id}", data["batch"]);
        assert_eq!(data["attributes"], json!({ "wave": wave }));
        let digits = String::from_utf8(request.body.clone()).unwrap();
        assert!(
            !digits.contains("p-1\"") || digits.contains("[1.10,"),
            "{digits}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_its_own_stands_for_the_envelope() {
    let site = site(
        "payload_body",
        "json",
        "  batch_size: 1
  payload: { body: { to: '{{ profile_id }}', n: { b: '{{ batch }}' } } }",
    )
    .await;
    run(&site).await;
    let requests = site.receiver.requests();
    let bodies: BTreeSet<String> = requests.iter().map(|r| r.json().to_string()).collect();
    let expect = (1..=4).map(|n| json!({"to": format!("p-{n}"), "n": {"b": n}}).to_string());
    assert_eq!(bodies, expect.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_is_a_member_a_line_and_its_envelope_in_headers() {
    let site = site("payload_ndjson", "ndjson", "  batch_size: 3").await;
    let run = run(&site).await;
    oracle::check(&site).await;
    let requests = site.receiver.requests();
    assert_eq!(requests.len(), 2);
    let mut lines: Vec<usize> = Vec::new();
    for request in &requests {
        let header = |name| request.header(name).unwrap_or_default();
        assert_eq!(header("content-type"), "application/x-ndjson");
        assert_eq!(header("campaignd-campaign"), "hello");
        assert_eq!(header("campaignd-run-id"), run["run_id"]);
        assert_eq!(header("campaignd-fire-time"), "2026-11-22T14:00:00Z");
        assert_eq!(header("campaignd-channel"), "email");
        assert_eq!(header("campaignd-part"), "");
        assert_eq!(header("campaignd-batches"), "2");
        assert_eq!(
            header("campaignd-attributes"),
            "{\"offer\":\"Gr\\u00fc\\u00dfe\"}"
        );
        lines.push(request.members().len());
    }
    lines.sort_unstable();
    assert_eq!(lines, [1, 3]);
    assert_eq!(members(&site)[2]["first_name"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_the_fields_of_one_member() {
    let site = site(
        "payload_form",
        "form",
        "  batch_size: 1
  payload:
    member: { profile_id: '{{ profile_id }}', run_id: '{{ run_id }}', spent: '{{ spent }}' }",
    )
    .await;
    let run = run(&site).await;
    oracle::check(&site).await;
    let requests = site.receiver.requests();
    assert_eq!(
        requests[0].header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(
        members(&site)[3],
        json!({"profile_id": "p-4", "run_id": run["run_id"], "spent": "4.40"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fits_a_member_not_holds_the_run_and_names_no_value() {
    let site = site(
        "payload_held",
        "json",
        "  batch_size: 1
  payload: { member: { profile_id: '{{ profile_id }}', name: '{{ first_name }}' } }",
    )
    .await;
    let output = site.campaignd(RUN).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let rows = site.sql("select * from campaignd.runs").await;
    let shown = |row: &TextRow, column: &str| row[column].clone().unwrap_or_default();
    assert_eq!(shown(&rows[0], "status"), "held");
    let error = shown(&rows[0], "error");
    for part in ["batch 3: ", "`activation.payload.member.name`", "`default`"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(
        members(&site)
            .iter()
            .all(|member| member["profile_id"] != "p-3")
    );
    oracle::check(&site).await;
    // Nothing is lost: what was not sent is still the run's.
    let (delivered, open) = (shown(&rows[0], "delivered"), shown(&rows[0], "still_open"));
    let whole = delivered.parse::<u32>().unwrap() + open.parse::<u32>().unwrap();
    assert_eq!(whole, 4, "{delivered} delivered, {open} open");
    let output = site
        .campaignd(&["cancel", &shown(&rows[0], "run_id")])
        .await;
    assert!(output.status.success(), "{output:?}");
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_held_for_its_first_batch_leaves_nothing_open_and_is_staged_anew() {
    let site = site(
        "payload_held_unsent",
        "json",
        "  batch_size: 4
  payload: { member: { profile_id: '{{ profile_id }}', name: '{{ first_name }}' } }",
    )
    .await;
    let output = site.campaignd(RUN).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let rows = site.sql("select * from campaignd.runs").await;
    assert_eq!(rows[0]["status"].as_deref(), Some("held"));
    assert_eq!(site.receiver.count(), 0);
    // It counts for nothing: no cap counts its members, and another may run.
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
    site.sql("update people set first_name = 'Eve' where first_name is null")
        .await;
    let run = rows[0]["run_id"].as_deref().unwrap();
    let output = site.campaignd(&["resume", run]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(members(&site).len(), 4);
    oracle::check(&site).await;
}

/// What an expression in SQL is in a body, on each of the databases.
async fn values(site: &Site, columns: &[(&str, Value)]) {
    let listed: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, (sql, _))| format!("{sql} as v{at}"))
        .collect();
    let names: Vec<String> = (0..columns.len()).map(|at| format!("v{at}")).collect();
    let create = format!(
        "create table strange as select 'p-1' as profile_id, {}",
        listed.join(", ")
    );
    site.sql(&create).await;
    let campaign = format!(
        "name: hello
connector: warehouse
schedule: {{ cron: '0 9 * * *', timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id, {} from strange' }}
activation: {{ destination: sink }}
",
        names.join(", ")
    );
    site.write("campaigns/hello.yaml", &campaign);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    let run = site.json(RUN).await;
    assert_eq!(run["delivered"], 1, "{run}");
    oracle::check(site).await;
    let member = members(site).remove(0);
    for (name, (sql, expect)) in names.iter().zip(columns) {
        let shown: String = sql.chars().take(60).collect();
        let received: String = member[name].to_string().chars().take(60).collect();
        assert!(member[name] == *expect, "{shown} arrives as {received}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strange_value_of_sqlite_arrives_exact() {
    let site = Site::sqlite().await;
    let columns = [
        ("'a' || char(0) || 'b'", json!("a\0b")),
        (
            "'q\" \\ ' || char(10) || char(129418)",
            json!("q\" \\ \n\u{1f98a}"),
        ),
        ("9223372036854775807", json!("9223372036854775807")),
        ("-9223372036854775807 - 1", json!("-9223372036854775808")),
        ("9e999", Value::Null),
        ("-9e999", Value::Null),
        (
            "replace(hex(zeroblob(500000)), '0', 'x')",
            json!("x".repeat(1_000_000)),
        ),
        ("''", json!("")),
        ("'-0044-03-15'", json!("-0044-03-15")),
        (
            "'12345678901234567890123456789012345678'",
            json!("12345678901234567890123456789012345678"),
        ),
        ("null", Value::Null),
    ];
    values(&site, &columns).await;
}

/// What cannot be exact in a template is refused with its place, or is exact.
#[tokio::test(flavor = "multi_thread")]
async fn digits_within_json_arrive_whole_through_templates() {
    let site = site(
        "payload_json",
        "json",
        "  batch_size: 3
  payload:
    member: { profile_id: '{{ profile_id }}', whole: '{{ traits | default({}) }}', fine: '{{ traits.fine }}', text: 'n={{ traits.id }}' }",
    )
    .await;
    let traits = r#"{"id":9007199254740993,"fine":0.12345678901234567890,"deep":[[1.10]]}"#;
    site.sql(&format!(
        "alter table people add column traits json default '{traits}'"
    ))
    .await;
    let path = site.path().join("campaigns/hello.yaml");
    let campaign = std::fs::read_to_string(path).unwrap();
    let campaign = campaign.replace("big, first_name", "big, first_name, traits");
    site.write("campaigns/hello.yaml", &campaign);
    run(&site).await;
    oracle::check(&site).await;
    for request in site.receiver.requests() {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let expect = format!(
            "\"whole\":{traits},\"fine\":0.12345678901234567890,\"text\":\"n=9007199254740993\""
        );
        assert!(body.contains(&expect), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strange_value_of_postgres_arrives_exact() {
    strange_values(World::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strange_value_through_the_redshift_gate_arrives_exact() {
    strange_values(World::Redshift).await;
}

async fn strange_values(world: World) {
    let site = Site::of(world, "payload_values").await;
    let digits = "12345678901234567890123456789012345678";
    let decimal = format!("{digits}::numeric");
    let columns = [
        (
            "E'q\" \\\\ \\n\u{1f98a}'::text",
            json!("q\" \\ \n\u{1f98a}"),
        ),
        ("9223372036854775807::bigint", json!("9223372036854775807")),
        (
            "(-9223372036854775808)::bigint",
            json!("-9223372036854775808"),
        ),
        (&decimal, json!(digits)),
        ("'NaN'::numeric", Value::Null),
        ("'-Infinity'::float8", Value::Null),
        ("'infinity'::timestamp", Value::Null),
        ("'-infinity'::timestamptz", Value::Null),
        ("'infinity'::date", Value::Null),
        ("'2026-01-02'::date", json!("2026-01-02")),
        ("'infinity'::text", json!("infinity")),
        ("'0044-03-15 BC'::date", json!("0044-03-15 BC")),
        (
            "'0044-03-15 12:00 BC'::timestamp",
            json!("0044-03-15 12:00:00 BC"),
        ),
        (
            "'{\"a\": [1, null, \"\u{e9}\"]}'::jsonb",
            json!({"a": [1, null, "\u{e9}"]}),
        ),
        ("repeat('x', 1000000)", json!("x".repeat(1_000_000))),
        ("null::int", Value::Null),
    ];
    values(&site, &columns).await;
}
