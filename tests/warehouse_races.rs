//! Two daemons at one warehouse at the same instant, on a real PostgreSQL
//! under each of its isolation levels: the numbers add up and history has
//! everybody once, whoever comes first.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::history::{BatchStatus, RunFacts, RunStatus, Settlement, Tally};
use campaignd::run::{Funnel, Registration, Warehouse, WarehouseError};
use campaignd::warehouse::open;
use std::sync::Arc;
use support::place::{PEOPLE, Place, closing, facts_of, outcome, settlement};

/// How often each race is run.
const ROUNDS: u32 = 6;

/// A warehouse under an isolation level, and two daemons at it that share
/// nothing but the warehouse.
struct Race {
    place: Place,
    here: Arc<dyn Warehouse>,
    there: Arc<dyn Warehouse>,
}

impl Race {
    async fn under(mut place: Place, isolation: &str) -> Self {
        let database = place.rows("select current_database()").await.remove(0);
        place
            .run(&format!(
                "alter database {database} set default_transaction_isolation = '{isolation}'"
            ))
            .await;
        // Connections of their own, made after that.
        let daemon = || open(place.options.clone()).unwrap();
        let (here, there) = (daemon(), daemon());
        place.warehouse = daemon();
        Self { place, here, there }
    }

    /// The identities, over all runs.
    async fn check(&mut self) {
        let off = "select run_id from campaignd.runs where audience <> no_key + bad_key + duplicate
                   + suppressed + capped + cooling_down + held_out + over_limit + planned
                   or planned <> delivered + rejected + failed + unknown + cancelled + still_open";
        assert_eq!(self.place.rows(off).await, [""; 0]);
        let twice = "select run_id from campaignd.contact_history
                     group by run_id, id having count(*) > 1";
        let twice = twice.replace("id having", "profile_id having");
        assert_eq!(self.place.rows(&twice).await, [""; 0]);
        let twice = "select run_id from campaignd.deliveries
                     group by run_id, batch, part having count(*) > 1";
        assert_eq!(self.place.rows(twice).await, [""; 0]);
        let twice = "select run_id from campaignd.runs group by run_id having count(*) > 1";
        assert_eq!(self.place.rows(twice).await, [""; 0]);
        let off = "select r.run_id from campaignd.runs r where r.delivered <>
                   (select count(*) from campaignd.contact_history h
                    where h.run_id = r.run_id and h.status = 'delivered')";
        assert_eq!(self.place.rows(off).await, [""; 0]);
    }
}

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

async fn settle(warehouse: &Arc<dyn Warehouse>, settlement: &Settlement) -> Tally {
    let tallies = patiently(|| warehouse.settle(std::slice::from_ref(settlement))).await;
    tallies[0]
}

fn delivered(
    facts: &RunFacts,
    funnel: Funnel,
    batches: std::ops::RangeInclusive<u32>,
) -> Settlement {
    let outcomes = batches.map(|batch| {
        let members = if batch == 3 { 1 } else { 3 };
        outcome(facts, batch, members, BatchStatus::Delivered)
    });
    settlement(facts, funnel, outcomes.collect())
}

async fn two_settlers_of_one_run_write_everybody_once(race: &mut Race) {
    for round in 0..ROUNDS {
        let facts = facts_of(&format!("settlers-{round}"), PEOPLE);
        let funnel = race.place.laid_out(&facts).await;
        // They know different things, and one thing both.
        let (one, other) = (
            delivered(&facts, funnel, 1..=2),
            delivered(&facts, funnel, 2..=3),
        );
        tokio::join!(settle(&race.here, &one), settle(&race.there, &other));
        let tally = settle(&race.here, &one).await;
        assert_eq!((tally.delivered, tally.still_open), (7, 0));
        race.check().await;
    }
}

async fn a_settle_repeated_after_its_reply_was_lost_writes_nothing(race: &mut Race) {
    for round in 0..ROUNDS {
        let facts = facts_of(&format!("repeated-{round}"), PEOPLE);
        let funnel = race.place.laid_out(&facts).await;
        let all = delivered(&facts, funnel, 1..=3);
        // The first is still under way when the second comes.
        let both = tokio::join!(settle(&race.here, &all), settle(&race.there, &all));
        assert_eq!(both.0, both.1);
        let rows = "select count(*) from campaignd.contact_history where campaign =";
        let rows = format!("{rows} 'repeated-{round}'");
        assert_eq!(race.place.rows(&rows).await, ["7"]);
        race.check().await;
    }
}

async fn two_admits_of_one_run_number_its_members_once(race: &mut Race) {
    for round in 0..ROUNDS {
        let facts = facts_of(&format!("admits-{round}"), PEOPLE);
        let ours = race.place.warehouse.register(&facts).await.unwrap();
        assert_eq!(ours, Registration::Ours);
        race.place.warehouse.freeze(&facts).await.unwrap();
        let (here, there) = tokio::join!(
            patiently(|| race.here.admit(&facts)),
            patiently(|| race.there.admit(&facts))
        );
        assert_eq!(here, there);
        tokio::join!(
            patiently(|| race.here.lay_out(&facts)),
            patiently(|| race.there.lay_out(&facts))
        );
        let page = race
            .place
            .warehouse
            .page(&facts, (1, 7), usize::MAX)
            .await
            .unwrap();
        assert_eq!(page.len(), 7);
        assert_eq!(race.place.tables_of(&facts).await, ["run"]);
        race.check().await;
    }
}

async fn two_freezes_of_one_run_leave_one_stage(race: &mut Race) {
    for round in 0..ROUNDS {
        let facts = facts_of(&format!("freezes-{round}"), PEOPLE);
        race.place.warehouse.register(&facts).await.unwrap();
        tokio::join!(
            patiently(|| race.here.freeze(&facts)),
            patiently(|| race.there.freeze(&facts))
        );
        assert_eq!(race.place.tables_of(&facts).await, ["stage"]);
        assert_eq!(race.place.laid_out(&facts).await.planned, 7);
    }
}

async fn a_run_that_closes_lets_others_register_and_admit_meanwhile(race: &mut Race) {
    for round in 0..ROUNDS {
        let old = facts_of(&format!("old-{round}"), PEOPLE);
        let new = facts_of(&format!("new-{round}"), PEOPLE);
        let more = facts_of(&format!("more-{round}"), PEOPLE);
        let funnel = race.place.laid_out(&old).await;
        settle(&race.here, &delivered(&old, funnel, 1..=3)).await;
        race.place.warehouse.register(&new).await.unwrap();
        race.place.warehouse.freeze(&new).await.unwrap();
        let end = closing(&old, funnel, RunStatus::Finished);
        let (closed, admitted, registered) = tokio::join!(
            patiently(|| race.here.close(&end)),
            patiently(|| race.there.admit(&new)),
            patiently(|| race.place.warehouse.register(&more)),
        );
        assert_eq!((closed.delivered, closed.still_open), (7, 0));
        assert_eq!(admitted.planned, 7);
        assert_eq!(registered, Registration::Ours);
        let open = "select campaign from campaignd.open_runs order by campaign";
        let expected = |name: &str| format!("{name}-{round}");
        let found = race.place.rows(open).await;
        assert!(found.contains(&expected("new")) && found.contains(&expected("more")));
        assert!(!found.contains(&expected("old")), "{found:?}");
        race.check().await;
    }
}

async fn a_run_closed_while_it_is_registered_again_ends_once(race: &mut Race) {
    for round in 0..ROUNDS {
        let facts = facts_of(&format!("again-{round}"), PEOPLE);
        let funnel = race.place.laid_out(&facts).await;
        settle(&race.here, &delivered(&facts, funnel, 1..=3)).await;
        let end = closing(&facts, funnel, RunStatus::Finished);
        tokio::join!(
            patiently(|| race.here.close(&end)),
            patiently(|| race.there.register(&facts)),
        );
        let after = patiently(|| race.there.register(&facts)).await;
        assert!(matches!(after, Registration::Taken { .. }), "{after:?}");
        let rows = format!(
            "select status, delivered from campaignd.runs where campaign = 'again-{round}'"
        );
        assert_eq!(race.place.rows(&rows).await, ["finished|7"]);
        race.check().await;
    }
}

/// Runs every race under each isolation level.
macro_rules! under_each {
    ($($level:ident $isolation:literal)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $level() {
                let place = super::Place::postgres().await;
                super::every_race(super::Race::under(place, $isolation).await).await;
            })*
        }
        mod redshift {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $level() {
                let place = super::Place::redshift().await;
                super::every_race(super::Race::under(place, $isolation).await).await;
            })*
        }
    };
}

async fn every_race(mut race: Race) {
    two_settlers_of_one_run_write_everybody_once(&mut race).await;
    a_settle_repeated_after_its_reply_was_lost_writes_nothing(&mut race).await;
    two_freezes_of_one_run_leave_one_stage(&mut race).await;
    two_admits_of_one_run_number_its_members_once(&mut race).await;
    a_run_that_closes_lets_others_register_and_admit_meanwhile(&mut race).await;
    a_run_closed_while_it_is_registered_again_ends_once(&mut race).await;
}

under_each! {
    two_daemons_at_once_keep_the_numbers_under_read_committed "read committed"
    two_daemons_at_once_keep_the_numbers_under_repeatable_read "repeatable read"
    two_daemons_at_once_keep_the_numbers_under_serializable "serializable"
}
