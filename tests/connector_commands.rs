//! `campaignd connector list` and `test`: what somebody who has to answer for
//! a connector is told.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use serde_json::Value;
use support::psql::Client;
use support::site::{Site, World};

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '0 9 * * *', timezone: UTC }
audience:
  key: profile_id
  sql: select profile_id, email from shared.active_people
activation: { destination: sink }
";

/// A site whose connector logs in as `app`, who may do what the bootstrap
/// grants, and `more`.
async fn site(world: World, name: &str, more: &str) -> Site {
    let site = Site::of(world, name).await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let text = site.settings();
    let (before, rest) = text.split_once("user: ").unwrap();
    let end = rest.find([',', ' ']).unwrap();
    site.write(
        "campaignd.yaml",
        &format!("{before}user: app{}", &rest[end..]),
    );
    site.sql("create role app login").await;
    for sql in [
        "create table people (profile_id varchar(64), email varchar(200))",
        "insert into people values ('p-1', 'a@example.com'), ('p-2', 'b@example.com'), \
         ('p-2', 'b@example.org'), (null, 'c@example.com')",
        "create schema shared",
        "create view shared.active_people as select profile_id, email from people",
        "grant usage on schema shared to app",
        "grant select on shared.active_people to app",
        "create schema campaignd authorization app",
    ] {
        site.sql(sql).await;
    }
    if !more.is_empty() {
        site.sql(more).await;
    }
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

/// What a person sees, without what is another each time.
async fn shown(site: &Site, args: &[&str]) -> String {
    let output = site.campaignd(args).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first() {
            Some(&"address") => "  address     …".to_owned(),
            Some(&"took") => "  took        …".to_owned(),
            Some(&"server") => format!("  server      {} …", words[1]),
            Some(&"logged") => {
                let (who, _) = line.split_once(" in database").unwrap_or((line, ""));
                who.to_owned()
            }
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_connector_has_nothing_to_put_right() {
    for (world, name) in [(World::Postgres, "good_one"), (World::Redshift, "good_two")] {
        let site = site(world, name, "").await;
        if world == World::Redshift {
            site.sql(
                "insert into pg_catalog.redshift_shared values \
                 ('sales', 'sales_db', 'schema', 'public'), \
                 ('sales', 'sales_db', 'table', 'public.orders'), \
                 ('sales', 'sales_db', 'late binding view', 'public.recent_orders')",
            )
            .await;
        }
        let shown = shown(&site, &["connector", "test", "warehouse"]).await;
        insta::assert_snapshot!(format!("good_{world:?}"), shown);
        let found: Value = site.json(&["connector", "test", "warehouse"]).await;
        assert_eq!(found["reachable"], true);
        assert_eq!(found["report"]["findings"], serde_json::json!([]));
        let columns = &found["report"]["relations"][0]["columns"];
        assert_eq!(columns[1]["name"], "email");
        let keys = &found["report"]["relations"][0]["keys"];
        let counted = serde_json::json!(
            [{ "column": "profile_id", "rows": 4, "nulls": 1, "duplicates": 1 }]
        );
        assert_eq!(*keys, counted);
        let relation = &found["report"]["relations"][0];
        assert_eq!(relation["privileges"], serde_json::json!(["select"]));
        let used = serde_json::json!(
            [{ "campaign": "hello", "columns": ["profile_id", "email"] }]
        );
        assert_eq!(relation["used_by"], used);
        let held = &found["report"]["privileges"];
        assert_eq!(held["attributes"], serde_json::json!([]));
        assert_eq!(held["roles_are_visible"], true);
        let own = serde_json::json!({ "name": "campaignd", "privileges": ["usage", "create"] });
        assert_eq!(held["schemas"][0], own);
        site.check_gate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_beyond_need_are_findings() {
    for (world, name) in [(World::Postgres, "much_one"), (World::Redshift, "much_two")] {
        let more = "alter role app createdb; grant all on shared.active_people to app; \
            grant create on schema public to app; create schema elsewhere; \
            grant usage, create on schema elsewhere to app; \
            create table drop_box (note varchar(9)); grant insert on drop_box to app; \
            create role analysts; grant analysts to app";
        let site = site(world, name, more).await;
        site.sql(match world {
            World::Redshift => "create role \"sys:operator\"; grant \"sys:operator\" to analysts",
            _ => {
                "create role chief createrole bypassrls; grant chief to analysts; \
                  grant pg_read_all_data to app"
            }
        })
        .await;
        let report = shown(&site, &["connector", "test", "warehouse"]).await;
        insta::assert_snapshot!(format!("over_privileged_{world:?}"), report);
        site.sql("alter role app superuser").await;
        let report = shown(&site, &["connector", "test", "warehouse"]).await;
        insta::assert_snapshot!(format!("superuser_{world:?}"), report);
        site.check_gate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_instead_of_a_view_and_a_missing_table_of_ours_are_findings() {
    for (world, name) in [
        (World::Postgres, "table_one"),
        (World::Redshift, "table_two"),
    ] {
        let site = site(world, name, "grant select on people to app").await;
        site.sql("create view shared.no_key as select email from people")
            .await;
        site.sql("grant select on shared.no_key to app").await;
        site.write(
            "campaigns/phones.yaml",
            &CAMPAIGN
                .replace("hello", "phones")
                .replace("email from", "email, phone from"),
        );
        let suppressing = "policy: { suppress: [ shared.no_key ] }\n";
        let suppressing = format!("{}{suppressing}", CAMPAIGN.replace("hello", "suppressing"));
        site.write("campaigns/suppressing.yaml", &suppressing);
        site.sql("drop table campaignd.open_runs").await;
        site.sql("alter table campaignd.deliveries drop column attempts")
            .await;
        let shown = shown(&site, &["connector", "test", "warehouse"]).await;
        insta::assert_snapshot!(format!("tables_{world:?}"), shown);
        site.check_gate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_bound_late_is_told_of_with_all_it_will_share() {
    let site = site(World::Redshift, "bound_late", "").await;
    let administrator = Client::of(site.gate(), site.database());
    let made = "
        create view shared.late as select * from public.people with no schema binding;
        create view shared.named as select profile_id from public.people with no schema binding;
        create view shared.bound as select * from public.people;
        grant select on shared.late to app;
        grant select on shared.named to app;
        grant select on shared.bound to app;";
    assert_eq!(administrator.script(made).await, "");
    let found: Value = site.json(&["connector", "test", "warehouse"]).await;
    let relations = found["report"]["relations"].as_array().unwrap();
    let kind = |name: &str| {
        let found = relations.iter().find(|one| one["name"] == name);
        found.unwrap()["kind"].as_str().unwrap()
    };
    assert_eq!(kind("shared.late"), "late-binding view");
    assert_eq!(kind("shared.named"), "late-binding view");
    assert_eq!(kind("shared.bound"), "view");
    assert_eq!(kind("shared.active_people"), "view");
    let late = relations.iter().find(|one| one["name"] == "shared.late");
    let late = late.unwrap();
    assert_eq!(late["columns"].as_array().unwrap().len(), 2);
    assert_eq!(late["keys"][0]["duplicates"], 1);
    let star = "the view `shared.late` shares every column there will be (`select *`); name its \
                columns";
    assert_eq!(found["report"]["findings"], serde_json::json!([star]));
    site.check_gate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_is_not_reached_says_why_and_ends_with_5() {
    let site = Site::new("not_reached").await;
    let text = site
        .settings()
        .replace("database: not_reached", "database: nowhere");
    site.write("campaignd.yaml", &text);
    let output = site
        .campaignd(&["connector", "test", "warehouse", "--format", "json"])
        .await;
    assert_eq!(output.status.code(), Some(5));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["reachable"], false);
    let why = found["error"].as_str().unwrap();
    assert!(
        why.ends_with("correct `database` of the connector"),
        "{why}"
    );
    let output = site.campaignd(&["connector", "test", "nobody"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_reported_too_and_not_made_by_asking() {
    let site = Site::sqlite().await;
    let found = site.json(&["connector", "test", "warehouse"]).await;
    let finding = found["report"]["findings"][0].as_str().unwrap();
    assert!(
        finding.ends_with("it is made at the first run"),
        "{finding}"
    );
    assert!(!site.path().join("warehouse.db").exists());
    site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    site.sql("create table people (profile_id text, email text)")
        .await;
    let found = site.json(&["connector", "test", "warehouse"]).await;
    assert_eq!(found["report"]["findings"], serde_json::json!([]));
    let names = found["report"]["relations"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"people"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_each_connector_and_no_secret() {
    let site = Site::on_redshift("listed").await;
    let output = site.campaignd(&["connector", "list"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("warehouse") && text.contains("redshift"),
        "{text}"
    );
    assert!(text.contains(", password"), "{text}");
    assert!(!text.contains(support::redshift_gate::PASSWORD), "{text}");
    let views = site.json(&["connector", "list"]).await;
    assert_eq!(views[0]["kind"], "redshift");
    assert_eq!(views[0]["tls"], "disable");
}
