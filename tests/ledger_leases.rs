//! What a ledger promises of leases: one list, run on every database, and
//! what two hosts of one ledger can rely on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use campaignd::id::BatchPath;
use campaignd::ledger::{PostgresLedger, SqliteLedger};
use campaignd::run::{
    AttemptBegun, BatchChange, BatchState, BatchStatus, Ledger, LedgerError, RunChange, RunState,
};
use std::time::Duration;
use support::postgres::{ConnDetails, Postgres};
use support::records::{
    attempt, campaign, claim, cursor, ends, manual, minute, moves, new_run, queued, refused,
    some_run,
};

macro_rules! promises {
    ($($promise:ident)*) => {
        mod on_sqlite {
            use super::SqliteLedger;

            $(#[tokio::test]
            async fn $promise() {
                let folder = tempfile::tempdir().unwrap();
                let ledger = SqliteLedger::open(&folder.path().join("state.db")).await.unwrap();
                super::$promise(&ledger).await;
                ledger.close().await;
            })*
        }

        mod on_postgres {
            use super::support::postgres::Postgres;

            $(#[tokio::test]
            async fn $promise() {
                let server = Postgres::start();
                let ledger = super::support::ledger::open(&server.database("ledger")).await;
                super::$promise(&ledger).await;
                ledger.close().await;
            })*
        }
    };
}

promises! {
    a_lease_taken_again_has_a_higher_term
    a_late_host_cannot_renew_an_old_term
    a_transition_of_an_old_term_is_refused
    a_run_that_is_not_there_cannot_be_leased
}

const MINUTE: Duration = Duration::from_secs(60);

async fn a_lease_taken_again_has_a_higher_term(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    assert_eq!(ledger.run(&run).await.unwrap().unwrap().term, 0);
    for term in 1..=3 {
        let lease = ledger.take_lease(&run, MINUTE).await.unwrap().unwrap();
        assert_eq!(lease.term, term);
        assert_eq!(ledger.run(&run).await.unwrap().unwrap().term, term);
        let renewed = ledger.renew_lease(&run, term, MINUTE).await.unwrap();
        assert_eq!(renewed.term, term);
        ledger.release_lease(&run, term).await.unwrap();
    }
    let free = ledger.runs_to_take_up().await.unwrap();
    assert_eq!(free.len(), 1);
}

async fn a_late_host_cannot_renew_an_old_term(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    let old = ledger.take_lease(&run, MINUTE).await.unwrap().unwrap();
    let new = ledger.take_lease(&run, MINUTE).await.unwrap().unwrap();
    refused(ledger.renew_lease(&run, old.term, MINUTE).await);
    // Nor does giving it back take it from the new one.
    ledger.release_lease(&run, old.term).await.unwrap();
    ledger.renew_lease(&run, new.term, MINUTE).await.unwrap();
}

async fn a_transition_of_an_old_term_is_refused(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    ledger.take_lease(&run, MINUTE).await.unwrap().unwrap();
    let under = |term| AttemptBegun {
        term,
        ..attempt("1", 1)
    };
    refused(ledger.begin_attempt(under(0)).await);
    ledger.begin_attempt(under(1)).await.unwrap();
    ledger.take_lease(&run, MINUTE).await.unwrap().unwrap();
    for (term, is_refused) in [(1, true), (3, true), (2, false)] {
        let waiting = BatchChange {
            term,
            ..ends("1", 1, BatchState::Waiting)
        };
        let staging = RunChange {
            term,
            ..moves(&run, RunState::Queued, RunState::Staging)
        };
        let again = AttemptBegun {
            term,
            ..attempt("1", 2)
        };
        let answers = [
            ledger.change_run(staging).await,
            ledger.change_batch(waiting).await,
            ledger.begin_attempt(again).await,
            ledger
                .mark_settled(
                    &run,
                    term,
                    vec![(BatchPath::whole(1), BatchStatus::Delivered)],
                )
                .await,
        ];
        for answer in answers {
            match is_refused {
                true => refused(answer),
                false => answer.unwrap(),
            }
        }
    }
}

async fn a_run_that_is_not_there_cannot_be_leased(ledger: &dyn Ledger) {
    refused(ledger.take_lease(&some_run(), MINUTE).await);
    refused(ledger.renew_lease(&some_run(), 1, MINUTE).await);
}

/// Two hosts of one ledger.
struct Hosts {
    one: PostgresLedger,
    other: PostgresLedger,
    database: ConnDetails,
    _server: Postgres,
}

impl Hosts {
    /// Both start at the same moment, on a database without tables.
    async fn start() -> Self {
        let server = Postgres::start();
        let database = server.database("ledger");
        let (one, other) = tokio::join!(
            support::ledger::open(&database),
            support::ledger::open(&database)
        );
        Self {
            one,
            other,
            database,
            _server: server,
        }
    }

    async fn close(self) {
        self.one.close().await;
        self.other.close().await;
    }
}

#[tokio::test]
async fn all_hosts_of_a_ledger_are_one_installation() {
    let hosts = Hosts::start().await;
    assert_eq!(hosts.one.installation(), hosts.other.installation());
    let reader = PostgresLedger::open_read_only(&support::ledger::options(&hosts.database)).await;
    let reader = reader.unwrap().unwrap();
    assert_eq!(hosts.one.installation(), reader.installation());
    reader
        .claim_manual(manual(minute(0)), minute(0))
        .await
        .unwrap_err();
    reader.close().await;
    hosts.close().await;
}

#[tokio::test]
async fn a_lease_in_force_is_not_given_to_another_host() {
    let hosts = Hosts::start().await;
    let run = queued(&hosts.one, minute(0)).await;
    assert_eq!(hosts.other.runs_to_take_up().await.unwrap().len(), 1);
    let lease = hosts.one.take_lease(&run, MINUTE).await.unwrap().unwrap();
    assert!(lease.trusted_until.is_some());
    assert_eq!(hosts.other.take_lease(&run, MINUTE).await.unwrap(), None);
    refused(hosts.other.renew_lease(&run, lease.term, MINUTE).await);
    hosts.other.release_lease(&run, lease.term).await.unwrap();
    assert_eq!(hosts.other.runs_to_take_up().await.unwrap(), []);
    assert_eq!(hosts.other.open_runs().await.unwrap().len(), 1);
    hosts.one.release_lease(&run, lease.term).await.unwrap();
    let next = hosts.other.take_lease(&run, MINUTE).await.unwrap().unwrap();
    assert_eq!(next.term, lease.term + 1);
    hosts.close().await;
}

#[tokio::test]
async fn of_two_hosts_that_ask_at_once_one_gets_the_lease() {
    let hosts = Hosts::start().await;
    let run = queued(&hosts.one, minute(0)).await;
    let (one, other) = tokio::join!(
        hosts.one.take_lease(&run, MINUTE),
        hosts.other.take_lease(&run, MINUTE)
    );
    assert!(one.unwrap().is_some() != other.unwrap().is_some());
    hosts.close().await;
}

#[tokio::test]
async fn a_lapsed_lease_is_taken_over_under_a_higher_term() {
    let hosts = Hosts::start().await;
    let run = queued(&hosts.one, minute(0)).await;
    let short = Duration::from_millis(300);
    let old = hosts.one.take_lease(&run, short).await.unwrap().unwrap();
    let taken = async {
        loop {
            if let Some(lease) = hosts.other.take_lease(&run, MINUTE).await.unwrap() {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let new = tokio::time::timeout(MINUTE, taken).await.unwrap();
    assert_eq!(new.term, old.term + 1);
    refused(hosts.one.renew_lease(&run, old.term, MINUTE).await);
    let late = AttemptBegun {
        term: old.term,
        ..attempt("1", 1)
    };
    refused(hosts.one.begin_attempt(late).await);
    assert_eq!(hosts.one.take_lease(&run, MINUTE).await.unwrap(), None);
    hosts.close().await;
}

#[tokio::test]
async fn a_lapsed_lease_that_nobody_took_is_renewed() {
    let hosts = Hosts::start().await;
    let run = queued(&hosts.one, minute(0)).await;
    let at_once = Duration::ZERO;
    let lease = hosts.one.take_lease(&run, at_once).await.unwrap().unwrap();
    hosts
        .one
        .renew_lease(&run, lease.term, MINUTE)
        .await
        .unwrap();
    assert_eq!(hosts.other.take_lease(&run, MINUTE).await.unwrap(), None);
    hosts.close().await;
}

#[tokio::test]
async fn a_fire_time_claimed_by_two_hosts_at_once_is_one_run() {
    let hosts = Hosts::start().await;
    for n in 0..20 {
        let runs = vec![new_run(minute(n), RunState::Queued)];
        let claim = claim((n > 0).then(|| minute(n - 1)), minute(n), runs);
        let (one, other) = tokio::join!(hosts.one.claim(claim.clone()), hosts.other.claim(claim));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
    let seen = hosts.one.cursor(&campaign()).await.unwrap();
    assert_eq!(seen, Some(cursor(minute(19))));
    assert_eq!(hosts.one.runs(None, 99).await.unwrap().len(), 20);
    hosts.close().await;
}

#[tokio::test]
async fn of_two_manual_runs_on_two_hosts_one_is_refused() {
    let hosts = Hosts::start().await;
    let (one, other) = tokio::join!(
        hosts.one.claim_manual(manual(minute(0)), minute(0)),
        hosts.other.claim_manual(manual(minute(0)), minute(0)),
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    hosts.close().await;
}

#[tokio::test]
async fn a_lost_connection_costs_the_writes_that_wait_and_no_others() {
    let hosts = Hosts::start().await;
    let run = queued(&hosts.one, minute(0)).await;
    let ended = support::site::postgres_rows(
        &hosts.database,
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    assert!(ended.len() >= 2);
    let first = hosts.one.take_lease(&run, MINUTE).await;
    assert!(
        matches!(first, Err(LedgerError::Unusable { .. })),
        "{first:?}"
    );
    let lease = hosts.one.take_lease(&run, MINUTE).await.unwrap().unwrap();
    assert_eq!(lease.term, 1);
    assert_eq!(hosts.one.open_runs().await.unwrap().len(), 1);
    hosts.close().await;
}

#[tokio::test]
async fn a_ledger_that_is_not_there_yet_is_read_as_none() {
    let server = Postgres::start();
    let options = support::ledger::options(&server.database("ledger"));
    assert!(
        PostgresLedger::open_read_only(&options)
            .await
            .unwrap()
            .is_none()
    );
    let nowhere = campaignd::ledger::PostgresOptions {
        database: "nowhere".to_owned(),
        ..options
    };
    let error = PostgresLedger::open(nowhere).await.unwrap_err();
    assert!(error.to_string().contains("make the database"), "{error}");
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let hosts = Hosts::start().await;
    support::site::postgres_rows(
        &hosts.database,
        "insert into campaignd_ledger._sqlx_migrations \
         (version, description, success, checksum, execution_time) values (99, 'x', true, '', 0)",
    )
    .await;
    let options = support::ledger::options(&hosts.database);
    let error = PostgresLedger::open(options).await.unwrap_err();
    assert!(error.to_string().contains("newer campaignd"), "{error}");
    hosts.close().await;
}
