//! Audiences read in one database, history written in another: the main job,
//! what interrupts it, caps through what the share shows, and what commands
//! say of it.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use serde_json::Value;
use std::time::Duration;
use support::gate::{Act, Cut, Gate, Passing};
use support::night::{self, CAMPAIGN, NEVER, campaign, change_settings, number, start_run, text};
use support::receiver::Answer;
use support::site::{Site, World, sqlite_rows};

crate::in_both_worlds! {
    Gate
    members_are_read_here_and_recorded_there
    withheld_members_are_counts_only
    a_cap_counts_what_the_share_shows
    a_daemon_killed_while_it_settles_writes_each_member_once
    a_daemon_killed_at_any_step_leaves_no_table_behind
    a_batch_with_refused_members_is_recorded_member_by_member
    a_cancelled_run_has_a_row_for_each_member_it_did_not_get_to
    a_run_whose_ledger_is_lost_is_taken_over_by_who_can_see_its_table
    replies_lost_at_commits_on_either_side_cost_nothing
}

const PEOPLE: u32 = 60;

/// A site apart with people and a campaign of seven members a batch, and
/// `policy` in it.
async fn site(world: World, name: &str, policy: &str) -> Site {
    let site = Site::apart(world, name).await;
    site.sql(&format!(
        "create table people as select 'p-''\\\\' || n as profile_id, n \
         from generate_series(1, {PEOPLE}) n"
    ))
    .await;
    write_campaign(&site, policy);
    site
}

fn write_campaign(site: &Site, policy: &str) {
    let text = campaign(NEVER, 7) + policy;
    site.write("campaigns/hello.yaml", &text);
}

async fn tables_left(site: &Site) -> Vec<String> {
    let rows = site
        .sql("select tablename from pg_tables where schemaname = 'campaignd' order by 1")
        .await;
    rows.iter()
        .map(|row| text(row, "tablename").to_owned())
        .collect()
}

async fn run(site: &Site) -> Value {
    site.json(&["run", CAMPAIGN]).await
}

async fn members_are_read_here_and_recorded_there(world: World) {
    let site = site(world, "apart", "").await;
    assert_eq!(run(&site).await["status"], "finished");
    night::check(&site).await;
    let delivered = "select count(*) from campaignd.contact_history where status = 'delivered'";
    assert_eq!(number(&site, delivered).await, u64::from(PEOPLE));
    assert_eq!(tables_left(&site).await, [""; 0], "no table of ours here");
    let there = "select count(*) from campaignd.deliveries";
    assert_eq!(number(&site, there).await, 9);
}

async fn withheld_members_are_counts_only(world: World) {
    let policy = "policy: { limit: 20, suppress: blocked }\n";
    let site = site(world, "apart_withheld", policy).await;
    site.sql("create table blocked as select profile_id from people where n <= 10")
        .await;
    let result = run(&site).await;
    let runs = site.sql("select * from campaignd.runs").await;
    assert_eq!(text(&runs[0], "suppressed"), "10");
    assert_eq!(text(&runs[0], "over_limit"), "30");
    night::check(&site).await;
    let rows = "select count(*) from campaignd.contact_history";
    assert_eq!(
        number(&site, rows).await,
        result["delivered"].as_u64().unwrap()
    );
}

async fn a_cap_counts_what_the_share_shows(world: World) {
    let policy = "policy: { frequency_cap: { contacts: 1, within: 7d } }\n";
    let site = site(world, "apart_cap", policy).await;
    let checked = site.json(&["check"]).await;
    let note = checked["problems"][0]["message"].as_str().unwrap();
    assert!(note.contains("is not exact"), "{note}");
    assert_eq!(run(&site).await["delivered"], PEOPLE);
    site.sql("insert into people select 'new-' || n, n from generate_series(1, 5) n")
        .await;
    let plan = site.json(&["plan", CAMPAIGN]).await;
    assert_eq!(plan["funnel"]["capped"], PEOPLE);
    let second = run(&site).await;
    assert_eq!(second["delivered"], 5);
    night::check(&site).await;
    let runs = site
        .sql("select * from campaignd.runs order by started_at desc")
        .await;
    assert_eq!(text(&runs[0], "capped"), PEOPLE.to_string());
}

/// Which statement.
type Moment = fn(&Passing) -> bool;

/// Kills a run as the gate is asked for something that `when` knows, which is
/// then held back, and carries it to its end.
async fn kill_at(site: &Site, gate: &Gate, when: Moment) {
    gate.rule(move |passing| match when(passing) {
        true => Act::Delay(Duration::from_secs(1)),
        false => Act::Pass,
    });
    let daemon = start_run(site);
    gate.wait_for(when).await;
    night::kill(daemon).await;
    gate.rule(|_| Act::Pass);
    night::finish(site).await;
    let delivered = "select sum(delivered) from campaignd.runs";
    assert_eq!(number(site, delivered).await, u64::from(PEOPLE));
    let rows = "select count(distinct profile_id) from campaignd.contact_history";
    assert_eq!(number(site, rows).await, u64::from(PEOPLE));
    assert_eq!(tables_left(site).await, [""; 0], "no table of ours here");
}

async fn a_daemon_killed_while_it_settles_writes_each_member_once(world: World) {
    let moments: [(&str, Moment); 3] = [
        ("carried", |passing| passing.step == "carry"),
        ("settled", |passing| {
            passing.step == "settle" && passing.number > 3
        }),
        ("committed", |passing| passing.commits("settle")),
    ];
    for (name, when) in moments {
        let site = site(world, &format!("apart_{name}"), "").await;
        kill_at(&site, site.books_gate(), when).await;
    }
}

async fn a_daemon_killed_at_any_step_leaves_no_table_behind(world: World) {
    let moments: [(&str, Moment); 3] = [
        ("admit", |passing| passing.step == "admit"),
        ("lay_out", |passing| passing.step == "lay"),
        ("drop", |passing| passing.step == "drop"),
    ];
    for (name, when) in moments {
        let policy = "policy: { cooldown: 1d }\n";
        let site = site(world, &format!("apart_{name}"), policy).await;
        kill_at(&site, site.gate(), when).await;
    }
    let site = site(world, "apart_row", "").await;
    kill_at(&site, site.books_gate(), |passing| passing.commits("run")).await;
}

async fn a_batch_with_refused_members_is_recorded_member_by_member(world: World) {
    let site = site(world, "apart_refused", "").await;
    site.receiver.rule(|request| {
        let refused = request
            .members()
            .iter()
            .any(|member| member["n"].as_u64().unwrap() % 10 == 3);
        Answer::status(if refused { 422 } else { 200 })
    });
    site.campaignd(&["run", CAMPAIGN]).await;
    night::check(&site).await;
    let rejected = "select count(*) from campaignd.contact_history where status = 'rejected'";
    assert_eq!(number(&site, rejected).await, 6);
}

async fn a_cancelled_run_has_a_row_for_each_member_it_did_not_get_to(world: World) {
    let site = site(world, "apart_cancelled", "").await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 1");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(300)));
    let mut daemon = start_run(&site);
    site.receiver.wait_for(2).await;
    daemon.signal("TERM").await;
    daemon.ended().await;
    let runs = site.sql("select * from campaignd.runs").await;
    let run = text(&runs[0], "run_id").to_owned();
    let output = site.campaignd(&["cancel", &run]).await;
    assert!(output.status.success(), "{output:?}");
    night::finish(&site).await;
    let cancelled = "select count(*) from campaignd.contact_history where status = 'cancelled'";
    assert!(number(&site, cancelled).await >= 7);
    assert_eq!(tables_left(&site).await.len(), 1, "kept for a person");
    site.receiver.rule(|_| Answer::status(200));
    let output = site.campaignd(&["resume", &run]).await;
    assert!(output.status.success(), "{output:?}");
    night::finish(&site).await;
    assert_eq!(number(&site, cancelled).await, 0);
    assert_eq!(tables_left(&site).await, [""; 0]);
}

async fn a_run_whose_ledger_is_lost_is_taken_over_by_who_can_see_its_table(world: World) {
    let site = site(world, "apart_lost", "").await;
    let settings = site.settings() + "adopt_after: 5s\n";
    site.write("campaignd.yaml", &settings);
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(500)));
    let lost = start_run(&site);
    site.receiver.wait_for(2).await;
    night::kill(lost).await;
    std::fs::remove_file(site.path().join("state.db")).unwrap();
    drop(std::fs::remove_file(site.path().join("state.db-wal")));
    drop(std::fs::remove_file(site.path().join("state.db-shm")));
    let mut daemon = site.serve();
    let runs = site
        .wait_for_row("select * from campaignd.runs where status <> 'open'")
        .await;
    assert_eq!(text(&runs[0], "status"), "incomplete");
    assert_eq!(text(&runs[0], "unknown"), PEOPLE.to_string());
    night::wait_until_nothing_is_open(&site).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let ledger = sqlite_rows(&site.path().join("state.db"), "select * from runs").await;
    let spec = format!("{:?}", ledger[0]);
    assert!(
        spec.contains("warehouse"),
        "adopted through the reader: {spec}"
    );
    night::check(&site).await;
}

async fn replies_lost_at_commits_on_either_side_cost_nothing(world: World) {
    let site = site(world, "apart_replies", "policy: { cooldown: 1d }\n").await;
    for gate in [site.gate(), site.books_gate()] {
        gate.rule(|passing| match passing.number % 7 {
            1 if passing.step == "commit" => Act::CutAfter(Cut::Close),
            2 if passing.step == "admit" || passing.step == "freeze" => Act::CutAfter(Cut::Reset),
            3 if passing.step == "commit" => Act::CutBefore(Cut::Close),
            _ => Act::Pass,
        });
    }
    assert_eq!(run(&site).await["delivered"], PEOPLE);
    night::check(&site).await;
}

/// What a site's warehouse is asked for one run, times and ids painted over.
async fn asked(world: World, name: &str, history: &str) -> Vec<String> {
    let site = Site::of(world, name).await;
    let kind = format!("schema: campaignd{history} }}");
    change_settings(&site, "schema: campaignd }", &kind);
    night::furnish(&site, PEOPLE, NEVER).await;
    write_campaign(&site, "policy: { cooldown: 1d, limit: 50 }\n");
    let result = site.json(&["run", CAMPAIGN, "--fire-time", "2026-11-22T14:00:00Z"]);
    assert_eq!(result.await["delivered"], 50);
    let log = site.gate().log();
    assert!(log.iter().all(|ended| ended.passing.step != "carry"));
    // Who is alive is written as often as time goes by.
    let log = log
        .into_iter()
        .filter(|ended| !["touch", "session"].contains(&&*ended.passing.step));
    let plain = |c: char| match c.is_ascii_hexdigit() {
        true => '#',
        false => c,
    };
    log.map(|ended| ended.sql.chars().map(plain).collect())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_keeps_its_history_is_asked_what_it_was_always_asked() {
    for world in [World::Gate, World::Redshift] {
        let absent = asked(world, "alone", "").await;
        let own = asked(world, "alone", ", history: warehouse").await;
        assert_eq!(absent, own);
        assert!(own.len() > 30, "{}", own.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_on_redshift_has_its_history_in_a_file() {
    let site = site(World::Redshift, "apart_kinds", "").await;
    let settings = site.settings();
    let books = settings.find("  books: {").unwrap();
    let end = books + settings[books..].find('\n').unwrap();
    let in_file = "  books: { kind: sqlite, path: ./books.db }";
    let settings = settings.replace(&settings[books..end], in_file);
    site.write("campaignd.yaml", &settings);
    assert_eq!(run(&site).await["delivered"], PEOPLE);
    let history = "select * from contact_history where status = 'delivered'";
    let rows = sqlite_rows(&site.path().join("books.db"), history).await;
    assert_eq!(rows.len(), PEOPLE as usize);
    assert_eq!(tables_left(&site).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_know_which_connector_has_the_tables() {
    let site = site(
        World::Postgres,
        "apart_commands",
        "policy: { cooldown: 1d }\n",
    )
    .await;
    let printed = site.json(&["bootstrap", "warehouse"]).await;
    let sql = printed["sql"].as_str().unwrap();
    assert!(
        sql.contains("create schema") && !sql.contains("create table"),
        "{sql}"
    );
    let printed = site.json(&["bootstrap", "books"]).await;
    assert!(printed["sql"].as_str().unwrap().contains("contact_history"));
    let tested = site.json(&["connector", "test", "warehouse"]).await;
    assert_eq!(tested["history"], "books");
    assert_eq!(tested["report"]["tables"].as_array().unwrap().len(), 0);
    let findings = tested["report"]["findings"].to_string();
    assert!(!findings.contains("history_relation"), "{findings}");
    site.json(&["check", "--online"]).await;
    site.sql("drop schema share cascade").await;
    let tested = site.json(&["connector", "test", "warehouse"]).await;
    let findings = tested["report"]["findings"].to_string();
    assert!(
        findings.contains("`history_relation` share.contact_history"),
        "{findings}"
    );
    let output = site.campaignd(&["check", "--online"]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    change_settings(&site, ", history_relation: share.contact_history", "");
    let output = site.campaignd(&["check"]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3));
    assert!(said.contains("give it a `history_relation`"), "{said}");
}
