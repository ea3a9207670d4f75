//! One run carried by the engine, with a real ledger, warehouse and receiver,
//! and a fault between them.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use async_trait::async_trait;
use campaignd::audience::{Dialect, TableNames};
use campaignd::campaign::RunSpec;
use campaignd::delivery::{OnAmbiguous, Rules};
use campaignd::history::{Closing, RunFacts, Settlement, UnstartedRun};
use campaignd::id::{RunId, Trigger};
use campaignd::ledger::SqliteLedger;
use campaignd::run::{
    Carrier, Clock, DEFAULT_LEASE, Funnel, Guards, Kit, Ledger, Limit, Memory, NewRun, Page,
    Pauses, Registration, Reporter, RunError, RunState, Settler, SystemClock, Tally, Throttle,
    ThrottleOptions, Turns, Warehouse, WarehouseError, WarehouseErrorClass,
};
use campaignd::warehouse::{ConnectorOptions, Keepalive, open};
use campaignd::webhook::{DestinationOptions, HttpDestination};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::gate::Act;
use support::place::{PEOPLE, Place, at};
use support::receiver::{Answer, Receiver};
use support::site::SIGNING_SECRET;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The machine's clock, of which the time that passes is told by hand.
#[derive(Default)]
struct HandClock(Mutex<Duration>);

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, delay: Duration) {
        SystemClock.sleep(delay).await;
    }
}

/// A warehouse that fails to close as often as it is told to, and counts the
/// pages read.
struct Faulty {
    inner: Arc<dyn Warehouse>,
    at_close: Mutex<VecDeque<WarehouseErrorClass>>,
    pages: AtomicUsize,
}

#[async_trait]
impl Warehouse for Faulty {
    fn dialect(&self) -> Dialect {
        self.inner.dialect()
    }

    async fn ping(&self) -> Result<(), WarehouseError> {
        self.inner.ping().await
    }

    async fn register(&self, run: &RunFacts) -> Result<Registration, WarehouseError> {
        self.inner.register(run).await
    }

    async fn freeze(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.inner.freeze(run).await
    }

    async fn admit(&self, run: &RunFacts) -> Result<Funnel, WarehouseError> {
        self.inner.admit(run).await
    }

    async fn lay_out(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.inner.lay_out(run).await
    }

    async fn page(
        &self,
        run: &RunFacts,
        places: (u64, u64),
        most_bytes: usize,
    ) -> Result<Page, WarehouseError> {
        self.pages.fetch_add(1, Relaxed);
        self.inner.page(run, places, most_bytes).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Tally>, WarehouseError> {
        self.inner.settle(settlements).await
    }

    async fn close(&self, closing: &Closing) -> Result<Tally, WarehouseError> {
        let fault = self.at_close.lock().unwrap().pop_front();
        match fault {
            None => self.inner.close(closing).await,
            Some(class) => Err(WarehouseError {
                class,
                code: None,
                message: "told to fail".to_owned(),
                place: None,
            }),
        }
    }

    async fn record_unstarted(&self, runs: &[UnstartedRun]) -> Result<(), WarehouseError> {
        self.inner.record_unstarted(runs).await
    }
}

/// A run and all it is carried with.
pub(crate) struct Stand {
    pub(crate) place: Place,
    pub(crate) receiver: Receiver,
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) run: RunId,
    pub(crate) kit: Kit,
    faults: Arc<Faulty>,
    _folder: tempfile::TempDir,
}

impl Stand {
    /// A run of `sql` in batches of three, claimed and not yet begun.
    async fn new(sql: &str) -> Self {
        Self::on(Place::sqlite().await, sql).await
    }

    /// The same in another place.
    pub(crate) async fn on(place: Place, sql: &str) -> Self {
        let receiver = Receiver::start().await;
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("state.db")).await;
        let ledger = Arc::new(ledger.unwrap());
        let faults = Arc::new(Faulty {
            inner: Arc::clone(&place.warehouse),
            at_close: Mutex::default(),
            pages: AtomicUsize::new(0),
        });
        let run = claim(ledger.as_ref(), sql).await;
        let kit = kit(&receiver, ledger.clone(), faults.clone());
        Self {
            place,
            receiver,
            ledger,
            run,
            kit,
            faults,
            _folder: folder,
        }
    }

    /// How often members were read.
    pub(crate) fn pages(&self) -> usize {
        self.faults.pages.load(Relaxed)
    }

    /// Carries the run from where the ledger says it is.
    pub(crate) async fn carry(&self) -> Result<RunState, RunError> {
        let record = self.ledger.run(&self.run).await.unwrap().unwrap();
        let (reporter, _) = Reporter::new(record.state);
        let stop = CancellationToken::new();
        let carrier = Carrier::new(&record, self.kit.clone(), reporter, stop)?;
        let ended = tokio::time::timeout(Duration::from_secs(40), carrier.carry());
        ended.await.expect("it ends in 40 s")
    }
}

async fn claim(ledger: &dyn Ledger, sql: &str) -> RunId {
    let spec = serde_json::json!({
        "campaign": "winback", "connector": "warehouse", "priority": 50,
        "audience": {"key": "id", "sql": sql}, "batch_size": 3, "destination": "email-esp",
        "channel": "email", "max_body": 1_048_576, "attributes": {},
    });
    let spec = RunSpec::from_json(&spec.to_string()).unwrap();
    let fire_time = at("2026-11-22T14:00:00Z");
    let new = NewRun {
        run: RunId::manual(&spec.campaign, fire_time, 1),
        campaign: spec.campaign.clone(),
        connector: spec.connector.clone(),
        fire_time,
        trigger: Trigger::Manual,
        campaign_version: spec.version(),
        spec: spec.to_json().into(),
        state: RunState::Queued,
        error: None,
    };
    ledger.claim_manual(new, SystemClock.now()).await.unwrap()
}

fn kit(receiver: &Receiver, ledger: Arc<dyn Ledger>, warehouse: Arc<dyn Warehouse>) -> Kit {
    let destination = HttpDestination::new(DestinationOptions {
        url: receiver.url(),
        signing_secrets: vec![SIGNING_SECRET.into()],
        headers: Vec::new(),
        auth: None,
        tls_ca_file: None,
        client_certificate: None,
        timeout: Duration::from_secs(5),
        max_in_flight: 1,
        allow_private_network: true,
        allow_http: true,
    });
    Kit {
        clock: Arc::new(SystemClock),
        ledger,
        settler: Settler::start(Arc::clone(&warehouse), &TaskTracker::new()),
        warehouse,
        destination: Arc::new(destination.unwrap()),
        rules: Arc::new(Rules {
            timeout: Duration::from_secs(5),
            retry_initial: Duration::from_millis(20),
            retry_max: Duration::from_millis(100),
            give_up_after: Duration::from_secs(60),
            dedupe_window: Some(Duration::from_secs(3_600)),
            on_ambiguous: OnAmbiguous::Resend,
            not_processed: Vec::new(),
        }),
        queries: Turns::new(2, Arc::new(SystemClock)),
        throttle: Throttle::new(
            ThrottleOptions {
                name: "sink".parse().unwrap(),
                max_in_flight: 1,
                rate_limit: None,
            },
            Arc::new(SystemClock),
            Limit::new(1),
        ),
        memory: Memory::new(4 << 20),
        pauses: Pauses::default(),
        lease: DEFAULT_LEASE,
        give_up_on_warehouse: None,
        guards: Guards::default(),
    }
}

#[tokio::test]
async fn a_failed_run_leaves_open_runs_although_closing_it_failed_at_first() {
    let mut stand = Stand::new("select id, oops from people").await;
    let faults = [WarehouseErrorClass::Conflict, WarehouseErrorClass::Lost];
    stand.faults.at_close.lock().unwrap().extend(faults);
    assert_eq!(stand.carry().await.unwrap(), RunState::Failed);
    let open = stand.place.rows("select * from open_runs").await;
    assert_eq!(open, [""; 0]);
    let runs = stand.place.rows("select status from runs").await;
    assert_eq!(runs, ["failed"]);
}

#[tokio::test]
async fn a_run_stays_open_while_the_warehouse_cannot_be_told_that_it_failed() {
    let stand = Stand::new("select id, oops from people").await;
    let faults = [WarehouseErrorClass::Configuration];
    stand.faults.at_close.lock().unwrap().extend(faults);
    assert!(matches!(stand.carry().await, Err(RunError::Warehouse(_))));
    let record = stand.ledger.run(&stand.run).await.unwrap().unwrap();
    assert_eq!(record.state, RunState::Staging);
    assert_eq!(stand.carry().await.unwrap(), RunState::Failed);
}

#[tokio::test]
async fn a_batch_refused_after_it_may_have_arrived_is_unknown() {
    let mut stand = Stand::new(PEOPLE).await;
    let times = AtomicUsize::new(0);
    stand.receiver.rule(move |request| {
        let is_first = request.json()["data"]["batch"] == 1;
        Answer::status(match is_first.then(|| times.fetch_add(1, Relaxed)) {
            Some(0) => 503,
            Some(_) => 422,
            None => 200,
        })
    });
    assert_eq!(stand.carry().await.unwrap(), RunState::Incomplete);
    let rows = "select status, http_status, members from deliveries order by batch";
    assert_eq!(
        stand.place.rows(rows).await,
        ["unknown|422|3", "delivered|200|3", "delivered|200|1"]
    );
    let rows = "select count(*) from contact_history where counts_as_contact";
    assert_eq!(stand.place.rows(rows).await, ["7"]);
}

#[tokio::test]
async fn a_parked_batch_keeps_the_status_code_it_was_parked_for() {
    let mut stand = Stand::new(PEOPLE).await;
    let rules = Rules {
        on_ambiguous: OnAmbiguous::Park,
        ..(*stand.kit.rules).clone()
    };
    stand.kit.rules = Arc::new(rules);
    stand.receiver.script([Answer::status(503)]);
    assert_eq!(stand.carry().await.unwrap(), RunState::Incomplete);
    let rows = "select status, http_status from deliveries where batch = 1";
    assert_eq!(stand.place.rows(rows).await, ["unknown|503"]);
}

#[tokio::test]
async fn nothing_is_sent_from_a_run_table_that_has_lost_a_member() {
    let mut stand = Stand::new(PEOPLE).await;
    // Stops once the table is laid out and nothing is sent.
    stand.receiver.rule(|_| Answer::status(429));
    let record = stand.ledger.run(&stand.run).await.unwrap().unwrap();
    let (reporter, mut progress) = Reporter::new(record.state);
    let stop = CancellationToken::new();
    let carrier = Carrier::new(&record, stand.kit.clone(), reporter, stop.clone()).unwrap();
    let carrying = TaskTracker::new().spawn(carrier.carry());
    progress
        .wait_for(|now| now.state == RunState::Sending)
        .await
        .unwrap();
    stop.cancel();
    assert!(matches!(
        carrying.await.unwrap(),
        Err(RunError::Interrupted)
    ));
    let before = stand.receiver.count();
    let table = TableNames::of(&stand.run).run;
    stand
        .place
        .run(&format!("delete from {table} where cd_seq = 2"))
        .await;
    stand.receiver.rule(|_| Answer::status(200));
    let refused = stand.carry().await.unwrap_err();
    assert!(refused.to_string().contains("members"), "{refused}");
    assert_eq!(stand.receiver.count(), before);
}

/// A connection whose packets vanish in both directions, for good: what a
/// balancer does that has forgotten it. No clock of a test moves the kernel's,
/// so the daemon's two minutes are seconds here; that they are two minutes is
/// asserted where the socket is made. The statement's own time limit is longer
/// than this test may take, and has no part in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_packets_vanish_is_given_up_and_the_run_goes_on() {
    let soon = Keepalive {
        silence_secs: 1,
        interval_secs: 1,
        questions: 2,
        unacknowledged_secs: 3,
    };
    let mut place = Place::redshift().await;
    let ConnectorOptions::Server(server) = &mut place.options else {
        panic!("it is a server");
    };
    server.keepalive = soon;
    server.statement_timeout = Duration::from_secs(600);
    place.warehouse = open(place.options.clone()).unwrap();
    // Silent while the server works: on the freeze, which it does, and on a
    // settle's transaction, whose locks the lost session still holds. And not
    // heard at all: on a page, and on the commit of the close.
    let left = Mutex::new(vec!["freeze", "page", "settle", "close"]);
    place.gate().rule(move |passing| {
        let mut left = left.lock().unwrap();
        let at = left.iter().position(|step| match *step {
            "close" => passing.commits("close"),
            step => passing.step == step,
        });
        match at {
            None => Act::Pass,
            Some(at) => match left.remove(at) {
                "freeze" | "settle" => Act::VanishDone,
                _ => Act::Vanish,
            },
        }
    });
    let mut stand = Stand::on(place, PEOPLE).await;
    let began = tokio::time::Instant::now();
    assert_eq!(stand.carry().await.unwrap(), RunState::Finished);
    eprintln!("four holes cost {:?}", began.elapsed());
    let log = stand.place.gate().log();
    let holes = log
        .iter()
        .filter(|ended| matches!(ended.act, Act::Vanish | Act::VanishDone));
    assert_eq!(holes.count(), 4);
    let rows = "select status, members from campaignd.deliveries order by batch";
    let once = ["delivered|3", "delivered|3", "delivered|1"];
    assert_eq!(stand.place.rows(rows).await, once);
    assert_eq!(stand.receiver.count(), 3);
    let rows = "select count(*), count(distinct profile_id) from campaignd.contact_history \
                where status = 'delivered'";
    assert_eq!(stand.place.rows(rows).await, ["7|7"]);
    let rows = "select audience, planned, delivered, still_open from campaignd.runs";
    assert_eq!(stand.place.rows(rows).await, ["12|7|7|0"]);
    let open = "select count(*) from campaignd.open_runs";
    assert_eq!(stand.place.rows(open).await, ["0"]);
    assert_eq!(stand.place.gate().refused(), []);
}

/// Two dozen members of 100 KB each, in batches of three.
const LARGE: &str = "with recursive n(n) as (select 1 union all select n + 1 from n where n < 24)
    select 'p-' || n as id, printf('%.*c', 100000, 'x') as letter from n";

#[tokio::test(flavor = "multi_thread")]
async fn large_members_and_a_slow_receiver_stay_within_the_runs_share_of_memory() {
    let mut stand = Stand::new(LARGE).await;
    stand
        .receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(50)));
    // Of more than they would fill: all 24 at once in a page, and eight bodies.
    stand.kit.throttle = Throttle::new(
        ThrottleOptions {
            name: "sink".parse().unwrap(),
            max_in_flight: 8,
            rate_limit: None,
        },
        Arc::new(SystemClock),
        Limit::new(8),
    );
    stand.kit.memory = Memory::new(1_400_000);
    assert_eq!(stand.carry().await.unwrap(), RunState::Finished);
    assert_eq!(stand.receiver.count(), 8);
    let most = stand.kit.memory.most_held();
    assert!((800_000..=1_400_000).contains(&most), "{most}");
    assert_eq!(stand.kit.memory.held(), 0);
    let rows = "select status, count(*), count(distinct profile_id) from contact_history";
    assert_eq!(stand.place.rows(rows).await, ["delivered|24|24"]);
}

#[tokio::test]
async fn a_batch_that_is_larger_than_the_memory_allows_holds_the_run_until_there_is_more() {
    let mut stand = Stand::new(LARGE).await;
    stand.kit.memory = Memory::new(500_000);
    assert_eq!(stand.carry().await.unwrap(), RunState::Held);
    let run = stand.ledger.run(&stand.run).await.unwrap().unwrap();
    let why = run.error.unwrap();
    assert!(
        why.starts_with("batch 1: its members take over 244 KiB"),
        "{why}"
    );
    assert_eq!((stand.receiver.count(), stand.kit.memory.held()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_refuses_lowers_the_limit_and_minutes_without_bring_it_back() {
    let mut stand = Stand::on(Place::redshift().await, PEOPLE).await;
    let clock = Arc::new(HandClock::default());
    let queries = Turns::new(6, clock.clone());
    stand.kit.clock = clock.clone();
    stand.kit.queries = queries.clone();
    let patience = Duration::from_millis(50);
    let others = stand.place.gate().queue_taken(1, patience).await;
    let refused = async {
        let mut limits = vec![queries.limit()];
        for _ in 0..3_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if limits.last() != Some(&queries.limit()) {
                limits.push(queries.limit());
            }
            if limits.last() == Some(&1) {
                break;
            }
        }
        drop(others);
        limits
    };
    let (ended, limits) = tokio::join!(stand.carry(), refused);
    assert_eq!(ended.unwrap(), RunState::Finished);
    assert_eq!(limits, [6, 3, 1]);
    assert_eq!(queries.limit(), 1, "no time has passed");
    for (minutes, limit) in [(1, 2), (2, 3), (4, 5), (5, 6), (60, 6)] {
        *clock.0.lock().unwrap() = Duration::from_mins(minutes);
        assert_eq!(queries.limit(), limit, "after {minutes} minutes");
    }
}
