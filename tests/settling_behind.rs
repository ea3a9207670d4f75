//! History falls behind while the receiver is fine: sending stops at the
//! bound, and goes on once history has caught up.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::campaign::{RunSpec, Source, compile};
use campaignd::daemon::World as Assembled;
use campaignd::daemon::settings::{self, Secrets};
use campaignd::id::{RunId, Trigger};
use campaignd::ledger::SqliteLedger;
use campaignd::run::{
    BatchRecord, Carrier, Clock as _, Guards, Ledger, NewRun, Reporter, RunRecord, RunState,
    SystemClock,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, World};
use tokio_util::sync::CancellationToken;

crate::in_both_worlds! {
    Postgres
    a_warehouse_that_is_down_stops_sending_at_the_bound_and_it_goes_on_when_it_is_back
    sending_stops_while_history_is_behind_and_goes_on_when_it_has_caught_up
}

const CAMPAIGN: &str = "name: hello
connector: warehouse
schedule: { cron: '0 9 * * *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
activation: { destination: sink, batch_size: 1 }
";

/// How old the oldest unsettled outcome may be here.
const BEHIND_AFTER: Duration = Duration::from_secs(2);

/// The site's settings and campaign, assembled in this process: the bound
/// cannot be set from outside.
async fn assemble(site: &Site) -> (Assembled, RunRecord) {
    let text = site.settings();
    let name = "campaignd.yaml";
    let file = settings::compile(&Source { name, text: &text }).unwrap();
    let settings = file.resolve_paths(site.path());
    let source = Source {
        name: "hello.yaml",
        text: CAMPAIGN,
    };
    let (campaign, _) = compile(&source, &settings.known()).unwrap();
    let ledger = SqliteLedger::open(Path::new(settings.state.path())).await;
    let ledger: Arc<dyn Ledger> = Arc::new(ledger.unwrap());
    let secrets = Secrets::from_process();
    let clock = Arc::new(SystemClock);
    let mut world = Assembled::assemble(&settings, &secrets, clock, Arc::clone(&ledger)).unwrap();
    world.guards = Guards {
        behind_after: BEHIND_AFTER,
        settle_every: Duration::from_millis(200),
        ..Guards::default()
    };
    let terms = world.terms(&campaign.activation.destination).unwrap();
    let spec = RunSpec::of(&campaign, terms);
    let now = SystemClock.now();
    let new = NewRun {
        run: RunId::manual(&campaign.name, now, 1),
        campaign: campaign.name.clone(),
        connector: campaign.connector.clone(),
        fire_time: now,
        trigger: Trigger::Manual,
        campaign_version: spec.version(),
        spec: spec.to_json().into(),
        state: RunState::Queued,
        error: None,
    };
    let run = ledger.claim_manual(new, now).await.unwrap();
    let record = ledger.run(&run).await.unwrap().unwrap();
    (world, record)
}

/// Sends as many batches as there are `people`, with `trouble` once so many
/// have gone, which returns what the ledger had before the warehouse was well
/// again.
async fn sent_through(
    site: &Site,
    (people, gone): (usize, usize),
    trouble: impl AsyncFnOnce(&Arc<dyn Ledger>, &RunId) -> Vec<BatchRecord>,
) {
    site.sql(&format!(
        "create table people as
         select 'p-' || n as profile_id, n from generate_series(1, {people}) n"
    ))
    .await;
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(10)));
    let (world, record) = assemble(site).await;
    let spec = RunSpec::from_json(&record.spec).unwrap();
    let (reporter, _) = Reporter::new(record.state);
    let stop = CancellationToken::new();
    let kit = world.kit(&record, &spec).await.unwrap().unwrap();
    let carrier = Carrier::new(&record, kit, reporter, stop).unwrap();
    let ledger = Arc::clone(&world.ledger);

    let run = record.run.clone();
    let in_the_middle = async {
        site.receiver.wait_for(gone).await;
        trouble(&ledger, &run).await
    };
    let carry = tokio::time::timeout(Duration::from_secs(100), carrier.carry());
    let (batches, ended) = tokio::join!(in_the_middle, carry);
    assert_eq!(ended.unwrap().unwrap(), RunState::Finished);

    let unsettled = batches.iter().filter(|batch| !batch.settled);
    let oldest = unsettled.filter_map(|batch| batch.ended_at).min().unwrap();
    let last_begun = batches.iter().map(|batch| batch.first_sending_at).max();
    let begun_after = last_begun.unwrap().duration_since(oldest).unsigned_abs();
    // Batches on their way when the bound is met are still begun.
    assert!(begun_after < 2 * BEHIND_AFTER, "{begun_after:?}");
    assert!(batches.len() < people, "it stopped before the end");
    assert_eq!(site.receiver.count(), people);
    world.close().await;
    oracle::check(site).await;
}

async fn a_warehouse_that_is_down_stops_sending_at_the_bound_and_it_goes_on_when_it_is_back(
    world: World,
) {
    let site = Site::of(world, "warehouse_down").await;
    // The second page has been read by then, and is all of the rest: nothing
    // but the bound stops sending.
    sent_through(&site, (4_000, 1_200), async |ledger, run| {
        site.server().crash();
        // Sending stops by itself: it is looked until nothing more is begun.
        let (mut batches, mut still) = (Vec::new(), 0);
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = ledger.batches(run).await.unwrap();
            still = if now.len() == batches.len() {
                still + 1
            } else {
                0
            };
            batches = now;
            if still >= 20 {
                break;
            }
        }
        assert!(still >= 20, "it still sends: {}", batches.len());
        site.server().start_again();
        batches
    })
    .await;
}

async fn sending_stops_while_history_is_behind_and_goes_on_when_it_has_caught_up(world: World) {
    let site = Site::of(world, "settling_behind").await;
    sent_through(&site, (3_000, 20), async |ledger, run| {
        site.sql("begin; lock table campaignd.settle_lock; select pg_sleep(8)")
            .await;
        ledger.batches(run).await.unwrap()
    })
    .await;
}
