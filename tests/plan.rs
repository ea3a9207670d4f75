//! What a person sees before a run, with the built program on SQLite and on a
//! real PostgreSQL: it must be what the run then does, and change nothing.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::run::{Clock as _, SystemClock};
use serde_json::json;
use support::oracle;
use support::site::Site;

/// 1,000 people with a good key, some of whom fall out for every reason.
const PEOPLE: &[&str] = &[
    "create table shoppers (profile_id varchar(300), email text, visits integer, spent numeric, seen_at timestamp)",
    "insert into shoppers select 'p-' || n, 'p' || n || '@example.com', n, n * 1.5, '2026-01-02 03:04:05' \
     from (with recursive c(n) as (select 1 union all select n + 1 from c where n < 1000) select n from c) as numbers",
    "insert into shoppers values (null, 'nobody@example.com', 0, 0, null), (null, 'no@example.com', 0, 0, null), \
     ('p-7', 'again@example.com', 0, 0, null), ('p-7', 'again@example.com', 0, 0, null)",
    "create table never (profile_id text)",
    "insert into never select profile_id from shoppers where visits % 10 = 0",
];

const POLICY: &str = "policy:
  suppress: [ never ]
  frequency_cap: [ { contacts: 1, within: 7d, channel: email } ]
  holdout: { percent: 10 }
  limit: 300
  order_by: spent desc
";

/// Three quarters through the people: who has had two contacts is capped, and
/// who has had one from this campaign is cooling down.
const AGAIN: &str = "policy:
  suppress: [ never ]
  frequency_cap: [ { contacts: 2, within: 7d, channel: email }, { contacts: 5, within: 30d } ]
  cooldown: 30d
  holdout: { percent: 10, salt: again }
  limit: 250
";

fn campaign(name: &str, condition: &str, policy: &str) -> String {
    format!(
        "name: {name}
connector: warehouse
schedule: {{ cron: '30 1 * * *', timezone: America/New_York }}
audience:
  key: profile_id
  sql: |
    select profile_id, email, visits, spent, seen_at
    from shoppers where {condition}
activation: {{ destination: sink, batch_size: 70 }}
{policy}"
    )
}

async fn prepared(site: &Site) {
    for sql in PEOPLE {
        site.sql(sql).await;
    }
    let long = "k".repeat(257);
    site.sql(&format!(
        "insert into shoppers values ('{long}', 'k@example.com', 0, 0, null)"
    ))
    .await;
    let first = campaign("first-contact", "visits between 1 and 200", "");
    site.write("campaigns/first-contact.yaml", &first);
    let all = campaign("everybody", "true", POLICY);
    site.write("campaigns/everybody.yaml", &all);
    let again = campaign("again", "true", AGAIN);
    site.write("campaigns/again.yaml", &again);
}

async fn bootstrapped(name: &str) -> Site {
    bootstrap(Site::new(name).await).await
}

async fn bootstrap(site: Site) -> Site {
    prepared(&site).await;
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site
}

/// What `plan` and `count` say before the run is what the run does; nothing is
/// written or sent for them. Nobody falls out for the reasons `without`.
async fn agrees(site: &Site, name: &str, tables: &str, without: &[&str]) {
    let (before, sent) = (site.sql(tables).await, site.receiver.count());
    let plan = site.json(&["plan", name]).await;
    let count = site.json(&["count", name]).await;
    assert_eq!(site.sql(tables).await, before);
    assert_eq!(site.receiver.count(), sent);

    let run = site.json(&["run", name]).await;
    for (reason, members) in plan["funnel"].as_object().unwrap() {
        assert_eq!(*members, run[reason], "{reason}: {plan:#} {run:#}");
        let is_none = *members == json!(0);
        assert_eq!(is_none, without.contains(&&**reason), "{reason}: {plan:#}");
    }
    assert_eq!(count["audience"], run["audience"]);
    assert_eq!(plan["batches"], json!(site.receiver.count() - sent));
    assert_eq!(plan["campaign_version"], run["campaign_version"]);
}

async fn plan_and_run_agree(site: &Site, tables: &str) {
    site.json(&["run", "first-contact"]).await;
    agrees(site, "everybody", tables, &["cooling_down"]).await;
    agrees(site, "again", tables, &["capped", "cooling_down"]).await;
    agrees(site, "again", tables, &[]).await;
    oracle::check(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_plan_and_the_run_that_follows_agree_on_every_count() {
    let site = Site::sqlite().await;
    prepared(&site).await;
    plan_and_run_agree(&site, "select name, type from sqlite_master").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_plan_and_the_run_that_follows_agree_on_every_count() {
    let site = bootstrapped("plan_agrees").await;
    let tables = "select relname::text, relkind::text from pg_class order by 1, 2";
    plan_and_run_agree(&site, tables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_redshift_gate_a_plan_and_the_run_that_follows_agree_on_every_count() {
    let site = bootstrap(Site::on_redshift("plan_agrees").await).await;
    let tables = "select relname::text, relkind::text from pg_class order by 1, 2";
    plan_and_run_agree(&site, tables).await;
    site.check_gate();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_payload_is_the_one_that_is_sent_and_masked_unless_it_is_asked_for() {
    let site = bootstrapped("plan_payload").await;
    let masked = site.json(&["plan", "first-contact"]).await;
    let member = &masked["first_payload"]["data"]["members"][0];
    assert_eq!(
        *member,
        json!({"profile_id": "x-x", "email": "xx@xxxxxxx.xxx", "visits": "x", "spent": "x.x",
               "seen_at": "xxxx-xx-xx xx:xx:xx"})
    );
    let shown = site.json(&["plan", "first-contact", "--show-values"]).await;
    site.json(&["run", "first-contact"]).await;
    let requests = site.receiver.requests();
    // Side by side with others, it need not be the first to arrive.
    let first = requests
        .iter()
        .find(|request| request.json()["data"]["batch"] == 1);
    let sent = first.expect("the first batch was sent").json();
    let members = shown["first_payload"]["data"]["members"]
        .as_array()
        .unwrap();
    assert_eq!(
        members[..],
        sent["data"]["members"].as_array().unwrap()[..2]
    );
    assert_eq!(
        shown["first_payload"]["data"]["batches"],
        sent["data"]["batches"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_people_has_the_funnel_the_fire_times_the_sql_and_how_it_is_run() {
    let site = Site::sqlite().await;
    prepared(&site).await;
    let output = site
        .campaignd(&["plan", "everybody", "--sql", "--explain"])
        .await;
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "everybody would now plan 300 members in 5 batches of up to 70 to sink",
        "- suppressed",
        "next fire times",
        "01:30:00 E",
        "values masked",
        "with cd_stage as (",
        "EXPLAIN\n",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains("@example.com"), "{text}");
    // Nothing was begun: neither a state store nor a table.
    assert!(!site.path().join("state.db").exists());
    let tables = site.sql("select name from sqlite_master order by 1").await;
    assert_eq!(tables.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_warehouse_has_against_the_sql_has_its_place() {
    let site = bootstrapped("plan_refused").await;
    let broken = campaign("first-contact", "visit > 1", "");
    site.write("campaigns/first-contact.yaml", &broken);
    for command in ["plan", "count"] {
        let output = site.campaignd(&[command, "first-contact"]).await;
        assert_eq!(output.status.code(), Some(3));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("audience.sql, line 2, column 21"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_file_that_is_not_there_is_not_made() {
    let site = Site::sqlite().await;
    let first = campaign("first-contact", "true", "");
    site.write("campaigns/first-contact.yaml", &first);
    let output = site.campaignd(&["plan", "first-contact"]).await;
    assert_eq!(output.status.code(), Some(5));
    assert!(!site.path().join("warehouse.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_that_calculate_are_shown_masked_as_they_will_be_sent() {
    let site = Site::sqlite().await;
    prepared(&site).await;
    let first = campaign("first-contact", "visits between 1 and 200", "").replace(
        "batch_size: 70",
        "batch_size: 70, payload: { member: { profile_id: '{{ profile_id }}', next: '{{ visits + 1 }}', \
         mail: 'to {{ email }}', run: '{{ run_id }}', kind: 'shopper', half: '{{ spent | round }}' } }",
    );
    site.write("campaigns/first-contact.yaml", &first);
    let plan = site.json(&["plan", "first-contact"]).await;
    let run = &plan["first_payload"]["data"]["run_id"];
    assert_eq!(
        plan["first_payload"]["data"]["members"][0],
        json!({"profile_id": "x-x", "next": "x", "mail": "xx xx@xxxxxxx.xxx", "run": run,
               "kind": "shopper", "half": "x"})
    );
    let shown = site.json(&["plan", "first-contact", "--show-values"]).await;
    assert_eq!(shown["first_payload"]["data"]["members"][0]["next"], 2);
}

/// Every file of the site's warehouse, byte by byte.
fn warehouse_files(site: &Site) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(site.path()).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("warehouse.db")
        })
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_leaves_a_warehouse_file_as_it_is_its_journal_mode_included() {
    let site = Site::sqlite().await;
    prepared(&site).await;
    for mode in ["delete", "wal"] {
        site.sql(&format!("pragma journal_mode = {mode}")).await;
        let before = warehouse_files(&site);
        for args in [
            &["plan", "everybody", "--explain"][..],
            &["count", "everybody"],
            &["check", "--online"],
            &["connector", "test", "warehouse"],
        ] {
            let output = site.campaignd(args).await;
            assert!(output.status.success(), "{args:?}: {output:?}");
            assert!(warehouse_files(&site) == before, "{args:?} with {mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_which_fire_times_are_skipped_and_what_the_age_of_the_data_means() {
    let site = Site::sqlite().await;
    prepared(&site).await;
    site.sql("create table loads (at timestamp)").await;
    site.sql("insert into loads values (datetime('now', '-2 hours'))")
        .await;
    let today = SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |days| today.checked_add(jiff::Span::new().days(days)).unwrap();
    let with = |sql: &str, wait: &str| {
        campaign("first-contact", "visits < 20", "").replace(
            "schedule: { cron: '30 1 * * *', timezone: America/New_York }",
            &format!(
                "schedule: {{ cron: '0 12 * * *', timezone: UTC, blackout: [ {{ from: {}, to: {} }} ] }}
fresh_when: {{ sql: \"{sql}\", max_age: 1h{wait} }}",
                day(2),
                day(4)
            ),
        )
    };
    let told = async |text: &str| {
        site.write("campaigns/first-contact.yaml", text);
        let output = site.campaignd(&["plan", "first-contact"]).await;
        assert!(output.status.success(), "{output:?}");
        let plan = site.json(&["plan", "first-contact"]).await;
        (String::from_utf8(output.stdout).unwrap(), plan)
    };
    let (text, plan) = told(&with("select max(at) from loads", ", wait: 10m")).await;
    for part in [
        "its data is stale: ",
        "a run would wait up to 10m for newer",
        "skipped, and 2 after it: lies in the blackout",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert_eq!(plan["freshness"]["verdict"], "stale");
    let age = plan["freshness"]["age_secs"].as_u64().unwrap();
    assert!((7_200..7_300).contains(&age), "{age}");
    let times = plan["fire_times"].as_array().unwrap();
    let skipped: Vec<_> = times
        .iter()
        .filter(|time| !time["skipped"].is_null())
        .collect();
    assert_eq!((times.len(), skipped.len()), (6, 1));
    assert_eq!(skipped[0]["likewise"], 2);

    let (text, plan) = told(&with("select datetime('now')", "")).await;
    assert!(text.contains("its data is fresh: "), "{text}");
    assert_eq!(plan["freshness"]["verdict"], "fresh");
    let (text, plan) = told(&with("select at from nowhere", "")).await;
    let says = "cannot be asked, so a run would fail: fresh_when.sql";
    assert!(text.contains(says), "{text}");
    assert_eq!(plan["freshness"]["verdict"], "error");

    let blacked_out =
        with("select datetime('now')", "").replace(&day(2).to_string(), &day(-1).to_string());
    let (_, plan) = told(&blacked_out).await;
    let status = site.json(&["status", "first-contact"]).await;
    let times = plan["fire_times"].as_array().unwrap();
    let runs = times.iter().find(|time| time["skipped"].is_null()).unwrap();
    assert_eq!(status[0]["next_fire_time"], runs["at"]);
}

/// Names that a warehouse takes in double quotes only, everywhere that a
/// campaign names something.
const QUOTED: &str = r#"name: hello
connector: warehouse
schedule: { cron: '0 9 1 1 *', timezone: UTC }
audience:
  key: Prof Id
  sql: select "Prof Id", "a b" from "Every Body"
policy:
  suppress: [ '"Do not.""Contact"' ]
  order_by: [ '"a b" desc' ]
  limit: 2
activation: { destination: sink }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn names_in_double_quotes_are_taken_as_they_are() {
    for site in [Site::sqlite().await, Site::new("quoted").await] {
        for sql in [
            r#"create table "Every Body" ("Prof Id" varchar(9), "a b" integer)"#,
            r#"insert into "Every Body" values ('p-1', 1), ('p-2', 2), ('p-3', 3), ('p-4', 4), ('p-5', 5)"#,
            r#"create table "Do not.""Contact" ("Prof Id" varchar(9))"#,
            r#"insert into "Do not.""Contact" values ('p-5')"#,
        ] {
            site.sql(sql).await;
        }
        site.write("campaigns/hello.yaml", QUOTED);
        let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
        assert!(output.status.success(), "{output:?}");
        let run = site.json(&["run", "hello"]).await;
        let funnel = ["audience", "suppressed", "over_limit", "delivered"];
        assert_eq!(
            funnel.map(|count| run[count].as_u64()),
            [5, 1, 2, 2].map(Some),
            "{run:#}"
        );
        let request = &site.receiver.requests()[0];
        let members = &request.json()["data"]["members"];
        assert_eq!(
            [&members[0]["Prof Id"], &members[1]["Prof Id"]],
            ["p-4", "p-3"]
        );
    }
}
