//! How the daemon shows itself to a warehouse, and how it lets go of it.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, World};

/// People, and with each what the session that reads them is called.
const PEOPLE: &str = "
    create view people as
    select 'p-' || n as profile_id,
           current_setting('application_name') as program,
           coalesce(current_setting('rs.query_group', true), '') as label
    from generate_series(1, 60) n";

const CAMPAIGN: &str = "name: who-is-asking
connector: warehouse
schedule: { cron: '0 9 * * *', timezone: UTC }
audience:
  key: profile_id
  sql: select profile_id, program, label from people
activation: { destination: sink, batch_size: 20 }
";

/// What libpq and its friends would take from the environment.
const STRAY: &[(&str, &str)] = &[
    ("PGHOST", "203.0.113.1"),
    ("PGHOSTADDR", "203.0.113.1"),
    ("PGPORT", "1"),
    ("PGUSER", "nobody"),
    ("PGPASSWORD", "stray"),
    ("PGPASSFILE", "/nonexistent"),
    ("PGDATABASE", "nowhere"),
    ("PGSSLMODE", "require"),
    ("PGAPPNAME", "stray"),
];

async fn site(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    site.sql(PEOPLE).await;
    site.write("campaigns/who-is-asking.yaml", CAMPAIGN);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

/// Runs the campaign once, and returns what one of its members was sent as.
async fn member(site: &Site) -> serde_json::Value {
    let mut run = site.command(&["run", "who-is-asking"]);
    let output = run.envs(STRAY.iter().copied()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    site.receiver.requests()[0].members()[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_says_what_it_is_for_and_redshift_files_it_under_its_run() {
    let site = site(World::Redshift, "attribution").await;
    let member = member(&site).await;
    let program = concat!("campaignd/", env!("CARGO_PKG_VERSION"));
    assert_eq!(member["program"], program);
    let label = member["label"].as_str().unwrap();
    assert!(label.starts_with("who-is-asking_"), "{label}");
    assert!(label.ends_with("m1") && label.len() <= 30, "{label}");

    let mut steps = BTreeSet::new();
    for ended in site.gate().log() {
        let purpose = ended.label.strip_prefix("/* campaignd ");
        let (step, what) = purpose.unwrap().split_once(' ').unwrap();
        assert!(!what.is_empty(), "{ended:?}");
        steps.insert(step.to_owned());
    }
    for step in [
        "session", "label", "register", "freeze", "page", "settle", "commit",
    ] {
        assert!(steps.contains(step), "{step} is not among {steps:?}");
    }
    site.check_gate();
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_connection_is_taken_from_the_environment() {
    let site = site(World::Postgres, "environment").await;
    let member = member(&site).await;
    let program = concat!("campaignd/", env!("CARGO_PKG_VERSION"));
    assert_eq!(member["program"], program);
    oracle::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_the_driver_would_heed_is_refused_by_name() {
    let site = site(World::Postgres, "refused_variable").await;
    let mut run = site.command(&["run", "who-is-asking"]);
    let output = run.env("PGOPTIONS", "-c search_path=nowhere").output();
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("unset PGOPTIONS"), "{said}");
    assert_eq!(site.receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_is_open_while_a_webhook_is_slow() {
    let site = site(World::Redshift, "slow_webhook").await;
    let slow = || Answer::status(200).after(Duration::from_millis(1_800));
    site.receiver.script([slow(), slow(), slow()]);
    let mut run = site.command(&["run", "who-is-asking"]).spawn().unwrap();
    site.receiver.wait_for(1).await;
    // A transaction that waits for the receiver would be there each time.
    let open = "select 1::text as one from pg_stat_activity where xact_start is not null
        and application_name like 'campaignd/%' and datname = current_database()";
    let end = Instant::now() + Duration::from_millis(1_500);
    while !site.sql(open).await.is_empty() {
        assert!(Instant::now() < end, "a transaction stays open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(run.try_wait().unwrap().is_none(), "it is still sending");
    let ended = run.wait_with_output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    oracle::check(&site).await;
}
