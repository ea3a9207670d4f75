//! Campaigns that fire at once under a frequency cap of one contact: whoever
//! comes first, nobody is contacted twice.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::audience::{FrequencyCap, TableNames};
use campaignd::history::{BatchStatus, RunFacts, RunStatus};
use campaignd::run::{Funnel, Registration, Warehouse, WarehouseError};
use campaignd::warehouse::open;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::oracle;
use support::place::{PEOPLE, Place, closing, facts_of, outcome, settlement};
use support::site::Site;

/// How often each race is run.
const ROUNDS: u32 = 6;

/// Repeats `step` while its error's class allows, as the engine does.
async fn patiently<T, F>(step: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, WarehouseError>>,
{
    for _ in 0..20 {
        match step().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
    panic!("still refused after twenty tries");
}

/// A campaign that nobody may hear of who has been contacted on `channel`.
fn capped(name: &str, channel: Option<&str>) -> RunFacts {
    let mut facts = facts_of(name, PEOPLE);
    facts.policy.frequency_cap = vec![FrequencyCap {
        contacts: 1,
        within_secs: 3_600,
        channel: channel.map(str::to_owned),
    }];
    facts
}

async fn frozen(warehouse: &Arc<dyn Warehouse>, facts: &RunFacts) {
    let ours = patiently(|| warehouse.register(facts)).await;
    assert_eq!(ours, Registration::Ours);
    patiently(|| warehouse.freeze(facts)).await;
}

async fn admitted(warehouse: &Arc<dyn Warehouse>, facts: &RunFacts) -> Funnel {
    let funnel = patiently(|| warehouse.admit(facts)).await;
    patiently(|| warehouse.lay_out(facts)).await;
    funnel
}

/// Settles and closes a run, everybody in it delivered.
async fn delivered(warehouse: &Arc<dyn Warehouse>, facts: &RunFacts, funnel: Funnel) {
    let batches = (1..).zip((0..funnel.planned).step_by(3));
    let outcomes = batches.map(|(batch, before)| {
        let members = u32::try_from((funnel.planned - before).min(3)).unwrap();
        let mut outcome = outcome(facts, batch, members, BatchStatus::Delivered);
        outcome.first_attempt_at = None;
        outcome
    });
    let settled = [settlement(facts, funnel, outcomes.collect())];
    let tally = patiently(|| warehouse.settle(&settled)).await;
    assert_eq!(tally[0].delivered, funnel.planned);
    let end = closing(facts, funnel, RunStatus::Finished);
    patiently(|| warehouse.close(&end)).await;
}

/// How many of the runs that are open contact each member.
async fn contacts(place: &mut Place, runs: &[&RunFacts]) -> BTreeMap<String, u32> {
    let mut contacts = BTreeMap::new();
    for facts in runs {
        let run = TableNames::of(&facts.run).run;
        let sql = format!("select cd_key from campaignd.{run} where cd_seq is not null");
        for key in place.rows(&sql).await {
            *contacts.entry(key).or_default() += 1;
        }
    }
    contacts
}

async fn nobody_is_contacted_twice(mut place: Place, isolation: &str) {
    let database = place.rows("select current_database()").await.remove(0);
    let set = format!("alter database {database} set default_transaction_isolation");
    place.run(&format!("{set} = '{isolation}'")).await;
    // Connections of their own, made after that.
    let daemon = || open(place.options.clone()).unwrap();
    let (here, there) = (daemon(), daemon());
    for round in 0..ROUNDS {
        place.run("delete from campaignd.contact_history").await;
        let one = capped(&format!("one-{round}"), None);
        let other = capped(&format!("other-{round}"), Some("email"));
        tokio::join!(frozen(&here, &one), frozen(&there, &other));
        // Each may find the other numbered, laid out, or in between.
        let (first, second) = tokio::join!(admitted(&here, &one), admitted(&there, &other));
        assert_eq!(first.planned + second.planned, 7, "{first:?} {second:?}");
        assert_eq!(first.capped + second.capped, 7);
        let found = contacts(&mut place, &[&one, &other]).await;
        assert_eq!(found.len(), 7);
        assert!(found.values().all(|&count| count == 1), "{found:?}");

        // A third comes while the two end: in `open_runs` or in history.
        let third = capped(&format!("third-{round}"), None);
        frozen(&here, &third).await;
        let (_, _, last) = tokio::join!(
            delivered(&here, &one, first),
            delivered(&there, &other, second),
            admitted(&place.warehouse, &third),
        );
        assert_eq!((last.planned, last.capped), (0, 7));
        let end = closing(&third, last, RunStatus::Finished);
        patiently(|| here.close(&end)).await;
        let rows = "select count(*), count(distinct profile_id) from campaignd.contact_history
                    where counts_as_contact";
        assert_eq!(place.rows(rows).await, ["7|7"]);
        assert_eq!(
            place.rows("select * from campaignd.open_runs").await,
            [""; 0]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_campaigns_at_once_keep_a_cap_of_one_under_read_committed() {
    nobody_is_contacted_twice(Place::postgres().await, "read committed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_campaigns_at_once_keep_a_cap_of_one_under_repeatable_read() {
    nobody_is_contacted_twice(Place::postgres().await, "repeatable read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_campaigns_at_once_keep_a_cap_of_one_under_serializable() {
    nobody_is_contacted_twice(Place::postgres().await, "serializable").await;
}

// What a Redshift database is set to: SNAPSHOT, which PostgreSQL calls
// repeatable read, or SERIALIZABLE.

#[tokio::test(flavor = "multi_thread")]
async fn two_campaigns_at_once_keep_a_cap_of_one_through_the_gate_under_snapshot() {
    nobody_is_contacted_twice(Place::redshift().await, "repeatable read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_campaigns_at_once_keep_a_cap_of_one_through_the_gate_under_serializable() {
    nobody_is_contacted_twice(Place::redshift().await, "serializable").await;
}

/// Runs the daemon while three campaigns fire every two seconds, and asserts
/// that each person hears of one of them, once.
async fn campaigns_that_fire_at_once_share_the_cap(site: Site) {
    site.sql(
        "create table people as
         with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 200)
         select 'p-' || n as profile_id, n from numbers",
    )
    .await;
    // One has everybody, one a part, and one somebody without a key.
    let queries = [
        "select profile_id from people",
        "select profile_id, n from people where n <= 120",
        "select case when n > 1 then profile_id end as profile_id from people",
    ];
    for (number, sql) in queries.iter().enumerate() {
        let text = format!(
            "name: campaign-{number}
connector: warehouse
schedule: {{ cron: '*/2 * * * * *', timezone: UTC }}
audience: {{ key: profile_id, sql: '{sql}' }}
policy: {{ frequency_cap: {{ contacts: 1, within: 1d }} }}
activation: {{ destination: sink, batch_size: 10 }}
"
        );
        site.write(&format!("campaigns/campaign-{number}.yaml"), &text);
    }
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    let mut daemon = site.serve();
    site.wait_for_row(
        "select count(*) from campaignd.runs where status = 'finished' having count(*) >= 9",
    )
    .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0));

    oracle::check(&site).await;
    let mut heard: BTreeMap<String, u32> = BTreeMap::new();
    for member in site.receiver.members() {
        let key = member["profile_id"].as_str().unwrap().to_owned();
        *heard.entry(key).or_default() += 1;
    }
    assert_eq!(heard.len(), 200);
    assert!(heard.values().all(|&times| times == 1), "{heard:?}");
    let capped = "select count(*) as n from campaignd.contact_history where status = 'capped'";
    let capped = site.sql(capped).await[0]["n"].clone().unwrap();
    assert!(capped.parse::<u32>().unwrap() > 200, "{capped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_due_in_the_same_second_keep_a_cap_of_one_on_postgresql() {
    campaigns_that_fire_at_once_share_the_cap(Site::new("same_second").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_due_in_the_same_second_keep_a_cap_of_one_on_sqlite() {
    campaigns_that_fire_at_once_share_the_cap(Site::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_due_in_the_same_second_keep_a_cap_of_one_through_the_gate() {
    for isolation in ["repeatable read", "serializable"] {
        let site = Site::on_redshift("same_second_gate").await;
        let database = site.sql("select current_database() as it").await;
        let set = format!(
            "alter database {} set default_transaction_isolation = '{isolation}'",
            database[0]["it"].clone().unwrap()
        );
        site.sql(&set).await;
        campaigns_that_fire_at_once_share_the_cap(site).await;
    }
}
