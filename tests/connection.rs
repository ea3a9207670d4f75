//! How the daemon shows itself to a warehouse, and how it lets go of it.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::audience::TableNames;
use campaignd::id::RunId;
use campaignd::run::WarehouseErrorClass;
use campaignd::warehouse::{ConnectorOptions, ServerOptions, Tls, open, report};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::oracle;
use support::place::{Place, facts};
use support::psql::Client;
use support::receiver::Answer;
use support::site::{Site, World};
use support::tls::{Authority, self_signed};
use tokio::time::Instant;

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
    let (hash, named) = label.split_once('_').unwrap();
    assert!(named.starts_with("who-is-asking_"), "{label}");
    assert!(named.ends_with("-manual-1"), "{label}");
    let runs = site.sql("select run_id from campaignd.runs").await;
    let run: RunId = runs[0]["run_id"].as_ref().unwrap().parse().unwrap();
    assert!(TableNames::of(&run).run.contains(hash), "{label}");

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
    // What infosec finds in the warehouse's own log, by the label alone.
    let infosec = Client::of(site.gate(), site.database());
    let filed_under = async |label: &str| {
        let ask = format!(
            "select distinct substring(query_text, 1, 90) from sys_query_history \
             where query_label = '{label}' and status = 'success'"
        );
        infosec.says(&ask).await
    };
    let filed = filed_under(label).await;
    for step in ["register", "freeze", "page", "close"] {
        let comment = format!("/* campaignd {step} {run} */");
        assert!(filed.contains(&comment), "{step}: {filed}");
    }
    // What settles may be for several runs.
    let filed = filed_under("campaignd_batches").await;
    assert!(filed.contains("/* campaignd settle "), "{filed}");
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

/// The place's connector by name, with another `tls`, and what it trusts.
fn encrypted(place: &Place, tls: Tls, tls_ca_file: Option<PathBuf>) -> ConnectorOptions {
    let ConnectorOptions::Server(server) = place.options.clone() else {
        panic!("it is a server");
    };
    ConnectorOptions::Server(ServerOptions {
        host: "localhost".to_owned(),
        tls,
        tls_ca_file,
        ..server
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_checked_by_the_servers_real_name() {
    let place = Place::redshift().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &authority.cert).unwrap();
    let give = "give the issuer's certificate as `tls_ca_file` of the connector";
    let year = 2999;
    for (own, trusts, said) in [
        (authority.sign("localhost", year), true, ""),
        (
            authority.sign("elsewhere.example", year),
            true,
            "set `host` of the connector to the name in the certificate",
        ),
        (authority.sign("localhost", year), false, give),
        (self_signed("localhost"), true, give),
        (
            authority.sign("localhost", 2001),
            true,
            "renew the certificate of the server",
        ),
    ] {
        place.gate().offer_tls(&own);
        let trusted = trusts.then(|| root.clone());
        let warehouse = open(encrypted(&place, Tls::VerifyFull, trusted));
        match warehouse.unwrap().ping().await {
            Ok(()) => assert_eq!(said, ""),
            Err(failed) => {
                assert!(
                    failed.message.ends_with(said) && !said.is_empty(),
                    "{failed:?}"
                );
                assert_eq!(failed.class, WarehouseErrorClass::Configuration);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_is_believed_where_no_check_is_asked_for() {
    let mut place = Place::redshift().await;
    place.gate().offer_tls(&self_signed("elsewhere.example"));
    for (tls, is_encrypted) in [(Tls::Require, true), (Tls::Disable, false)] {
        let warehouse = open(encrypted(&place, tls, None)).unwrap();
        warehouse.ping().await.unwrap();
        let last = place.gate().log().pop().unwrap();
        assert_eq!(last.session.is_encrypted, is_encrypted, "{tls:?}");
    }
    // A whole run, encrypted.
    let warehouse = open(encrypted(&place, Tls::Require, None)).unwrap();
    place.warehouse = warehouse;
    let facts = facts("select id, email from people");
    assert_eq!(place.laid_out(&facts).await.planned, 7);
    let page = place
        .warehouse
        .page(&facts, (1, 7), usize::MAX)
        .await
        .unwrap();
    assert_eq!(page.len(), 7);
    assert!(place.gate().log().pop().unwrap().session.is_encrypted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_names_the_certificate_and_what_speaks_no_tls() {
    let place = Place::redshift().await;
    let own = Authority::new().sign("warehouse.example", 2999);
    place.gate().offer_tls(&own);
    let found = report(encrypted(&place, Tls::Require, None), &[]);
    let found = found.await.unwrap();
    let tls = found.tls.unwrap();
    assert_eq!(tls.version, "1.3");
    assert!(tls.issuer.contains("root "), "{tls:?}");
    assert_eq!(tls.expires.strftime("%Y-%m-%d").to_string(), "2999-12-31");
    assert_eq!(found.tls_error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_spoken_to_in_the_clear() {
    let place = Place::redshift().await;
    let warehouse = open(encrypted(&place, Tls::Require, None)).unwrap();
    let failed = warehouse.ping().await.unwrap_err();
    assert!(failed.message.ends_with("turn TLS on there"), "{failed:?}");
}

#[tokio::test]
async fn a_session_nobody_uses_is_closed_after_a_minute_without_being_asked_for() {
    let mut place = Place::postgres().await;
    let sessions = "select count(*)::text from pg_stat_activity
        where application_name like 'campaignd/%'";
    wait_for(&mut place, sessions, "1").await;
    pass(Duration::from_secs(58)).await;
    wait_for(&mut place, sessions, "1").await;
    pass(Duration::from_secs(2)).await;
    wait_for(&mut place, sessions, "0").await;
    place.warehouse.ping().await.unwrap();
    wait_for(&mut place, sessions, "1").await;
}

/// Lets time pass for the program, and none for the server.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_nobody_waits_for_is_cancelled_at_the_server() {
    let mut place = Place::redshift().await;
    place
        .run("create view slow as select p.* from people p, (select pg_sleep(600)) s")
        .await;
    let slow = facts("select id from slow");
    place.warehouse.register(&slow).await.unwrap();
    let warehouse = Arc::clone(&place.warehouse);
    let freezing = async {
        let (never, ()) = tokio::join!(warehouse.freeze(&slow), std::future::pending::<()>());
        never.unwrap();
    };
    let at_work = "select count(*)::text from pg_stat_activity
        where state = 'active' and query like '%campaignd freeze%' and pid <> pg_backend_pid()";
    tokio::select! {
        () = freezing => unreachable!("it takes ten minutes"),
        () = wait_for(&mut place, at_work, "1") => {}
    }
    wait_for(&mut place, at_work, "0").await;
    place.warehouse.ping().await.unwrap();
}

/// Returns once `sql` finds `wanted`.
async fn wait_for(place: &mut Place, sql: &str, wanted: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while place.rows(sql).await != [wanted] {
        assert!(Instant::now() < end, "it never becomes {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
