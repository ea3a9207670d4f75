//! Batches that wait for over a minute: their bodies are given back, the
//! others go on, and each is read again and sent once its time has come. The
//! clock is the machine's, and is moved on.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::run_carrier::Stand;
use crate::support;

use async_trait::async_trait;
use campaignd::audience::TableNames;
use campaignd::id::CampaignName;
use campaignd::run::{
    Carrier, Clock, Ledger as _, Limit, Memory, PauseScope, Pauses, Place as RunPlace, Reporter,
    RunError, RunState, SystemClock, Throttle, ThrottleOptions, Turns,
};
use campaignd::schedule::Standing;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::night::{self, NEVER, furnish, ledger, start_run};
use support::place::{PEOPLE, Place, at};
use support::receiver::{Answer, Recorded};
use support::site::Site;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The machine's clock, so far ahead.
struct Ahead(watch::Sender<Duration>);

impl Ahead {
    fn by(&self, more: u64) {
        self.0
            .send_modify(|ahead| *ahead += Duration::from_secs(more));
    }
}

#[async_trait]
impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::try_from(*self.0.borrow()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed() + *self.0.borrow()
    }

    async fn sleep(&self, delay: Duration) {
        let until = self.elapsed() + delay;
        let mut moved = self.0.subscribe();
        while self.elapsed() < until {
            tokio::select! {
                () = SystemClock.sleep(until - self.elapsed()) => {}
                _ = moved.changed() => {}
            }
        }
    }
}

/// A run under way, at the only place there is.
struct UnderWay {
    stand: Stand,
    clock: Arc<Ahead>,
    pauses: watch::Sender<BTreeSet<PauseScope>>,
    places: Turns,
    cancel: CancellationToken,
    stop: CancellationToken,
    carrying: JoinHandle<Result<RunState, RunError>>,
}

/// So many people on PostgreSQL, in batches of three.
fn people(count: u32) -> String {
    format!("select 'p-' || n as id from generate_series(1, {count}) n")
}

impl UnderWay {
    /// A run of `sql` to a receiver that answers by `rule`, at so many requests
    /// a minute where it is limited.
    async fn new(
        sql: &str,
        a_minute: Option<u32>,
        rule: impl Fn(&Recorded) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let mut stand = Stand::on(Place::postgres().await, sql).await;
        stand.receiver.rule(rule);
        let clock = Arc::new(Ahead(watch::Sender::new(Duration::ZERO)));
        let pauses = watch::Sender::new(BTreeSet::new());
        stand.kit.clock = clock.clone();
        stand.kit.pauses = Pauses::new(pauses.clone());
        stand.kit.memory = Memory::new(1 << 20);
        stand.kit.throttle = Throttle::new(
            ThrottleOptions {
                name: "sink".parse().unwrap(),
                max_in_flight: 8,
                rate_limit: a_minute.map(|rate| format!("{rate}/min").parse().unwrap()),
            },
            clock.clone(),
            Limit::new(8),
        );
        let places = Turns::new(1, clock.clone());
        let standing = Standing {
            under_way: false,
            priority: 50,
            fire_time: at("2026-11-22T14:00:00Z"),
        };
        let turn = places.take(standing).await;
        let ending = CancellationToken::new();
        let place = RunPlace::new(places.clone(), turn, standing, ending);
        let record = stand.ledger.run(&stand.run).await.unwrap().unwrap();
        let (cancel, stop) = (CancellationToken::new(), CancellationToken::new());
        let (reporter, _) = Reporter::new(record.state);
        let carrier = Carrier::new(&record, stand.kit.clone(), reporter, stop.clone()).unwrap();
        let carrier = carrier.until_cancelled(cancel.clone()).at(place);
        let carrying = TaskTracker::new().spawn(carrier.carry());
        Self {
            stand,
            clock,
            pauses,
            places,
            cancel,
            stop,
            carrying,
        }
    }

    /// Waits until nothing of the run is held, neither members nor its place.
    async fn has_let_go(&self) {
        let (memory, places) = (&self.stand.kit.memory, &self.places);
        self.until("let go", || memory.held() == 0 && places.in_use() == 0)
            .await;
    }

    /// Lets minutes pass until it is so.
    async fn minutes_pass_until(&self, what: &str, is_so: impl Fn() -> bool) {
        self.until(what, || {
            self.clock.by(61);
            is_so()
        })
        .await;
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..1_000 {
            if is_so() {
                return;
            }
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
        let (memory, count) = (&self.stand.kit.memory, self.stand.receiver.count());
        panic!("not {what}: {memory:?} after {count} requests");
    }

    /// How the run has ended, and the place to look at.
    async fn ended(self) -> (Result<RunState, RunError>, Stand) {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.carrying);
        let state = ended.await.expect("it ends in 30 s").unwrap();
        assert_eq!(self.stand.kit.memory.held(), 0);
        (state, self.stand)
    }
}

fn batch(request: &Recorded) -> u64 {
    request.json()["data"]["batch"].as_u64().unwrap()
}

/// Puts off the first request of each batch that `is_put_off`, by two minutes.
fn puts_off(
    status: u16,
    is_put_off: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> impl Fn(&Recorded) -> Answer + Send + Sync + 'static {
    let known = Mutex::new(BTreeSet::new());
    move |request| {
        let batch = batch(request);
        match is_put_off(batch) && known.lock().unwrap().insert(batch) {
            true => Answer::reply(status, &[("retry-after", "120")], ""),
            false => Answer::status(200),
        }
    }
}

/// Everyone is in history once, as delivered.
async fn all_are_delivered(stand: &mut Stand, members: u32) {
    let rows = "select status, count(*), count(distinct profile_id)
                from campaignd.contact_history group by status";
    let expected = format!("delivered|{members}|{members}");
    assert_eq!(stand.place.rows(rows).await, [expected]);
}

/// The bodies that came under each id, in their order.
fn by_id(requests: &[Recorded]) -> BTreeMap<&str, Vec<&[u8]>> {
    let mut bodies: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for request in requests {
        bodies.entry(request.id()).or_default().push(&request.body);
    }
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_for_long_holds_no_members_and_the_others_go_on() {
    // Half of 400 batches: more than are ever under way beside each other.
    let run = UnderWay::new(&people(1_200), None, puts_off(429, |batch| batch % 2 == 0)).await;
    let receiver = &run.stand.receiver;
    run.until("all begun", || receiver.count() == 400).await;
    run.has_let_go().await;
    assert!(run.stand.kit.memory.most_held() > 0);
    let open = run.stand.ledger.run(&run.stand.run).await.unwrap().unwrap();
    assert_eq!(open.state, RunState::Sending);

    run.clock.by(121);
    let (state, mut stand) = run.ended().await;
    assert_eq!(state.unwrap(), RunState::Finished);
    let requests = stand.receiver.requests();
    assert_eq!(requests.len(), 600);
    assert!(stand.pages() > 200, "{} pages", stand.pages());
    let bodies = by_id(&requests);
    assert_eq!(bodies.len(), 400);
    let again: Vec<_> = bodies.values().filter(|bodies| bodies.len() > 1).collect();
    assert_eq!(again.len(), 200);
    assert!(again.iter().all(|bodies| bodies[0] == bodies[1]));
    all_are_delivered(&mut stand, 1_200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_another_when_it_is_read_again_is_parked() {
    let mut run = UnderWay::new(PEOPLE, None, puts_off(429, |batch| batch == 1)).await;
    let receiver = &run.stand.receiver;
    run.until("all begun", || receiver.count() == 3).await;
    run.has_let_go().await;
    let table = TableNames::of(&run.stand.run).run;
    let change = format!("update campaignd.{table} set email = 'another' where cd_seq = 1");
    run.stand.place.run(&change).await;
    run.clock.by(121);
    let (state, mut stand) = run.ended().await;
    assert_eq!(state.unwrap(), RunState::Incomplete);
    assert_eq!(stand.receiver.count(), 3, "it was not sent again");
    let rows = "select status, reason from campaignd.contact_history where batch = 1 limit 1";
    let rows = stand.place.rows(rows).await;
    assert!(rows[0].starts_with("unknown"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_puts_off_everything_is_not_sent_everything_and_the_run_can_be_cancelled() {
    let run = UnderWay::new(&people(3_000), None, puts_off(429, |_| true)).await;
    let receiver = &run.stand.receiver;
    run.until("begun", || receiver.count() > 0).await;
    run.has_let_go().await;
    let asked = receiver.count();
    assert!((2..500).contains(&asked), "{asked} of 1,000 batches");
    run.cancel.cancel();
    let (state, mut stand) = run.ended().await;
    assert_eq!(state.unwrap(), RunState::Cancelled);
    assert_eq!(stand.receiver.count(), asked);
    let rows = "select status, count(*), count(distinct profile_id)
                from campaignd.contact_history group by status";
    assert_eq!(stand.place.rows(rows).await, ["cancelled|3000|3000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pause_holds_no_members_and_afterwards_each_batch_is_sent_once() {
    let (told, mut first) = watch::channel(false);
    let run = UnderWay::new(&people(120), None, move |_| {
        told.send_replace(true);
        Answer::status(200).after(Duration::from_millis(50))
    })
    .await;
    first.wait_for(|told| *told).await.unwrap();
    let campaign: CampaignName = "winback".parse().unwrap();
    let pause = PauseScope::Campaign(campaign);
    run.pauses.send_modify(|paused| {
        paused.insert(pause);
    });
    let (memory, places) = (&run.stand.kit.memory, &run.places);
    run.minutes_pass_until("let go", || memory.held() == 0 && places.in_use() == 0)
        .await;
    let sent = run.stand.receiver.count();
    assert!(sent < 40, "it was paused in the middle");
    run.pauses.send_modify(BTreeSet::clear);
    let (state, mut stand) = run.ended().await;
    assert_eq!(state.unwrap(), RunState::Finished);
    assert_eq!(by_id(&stand.receiver.requests()).len(), 40);
    assert_eq!(stand.receiver.count(), 40);
    all_are_delivered(&mut stand, 120).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_turn_for_long_is_read_again_and_sent_once() {
    let run = UnderWay::new(&people(30), Some(1), |_| Answer::status(200)).await;
    let receiver = &run.stand.receiver;
    run.minutes_pass_until("all sent", || receiver.count() == 10)
        .await;
    let (state, mut stand) = run.ended().await;
    assert_eq!(state.unwrap(), RunState::Finished);
    assert_eq!(by_id(&stand.receiver.requests()).len(), 10);
    assert_eq!(stand.receiver.count(), 10);
    assert!(stand.pages() > 1, "what waited was not read again");
    all_are_delivered(&mut stand, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_while_a_batch_waits_leaves_it_to_the_next() {
    let run = UnderWay::new(PEOPLE, None, puts_off(503, |batch| batch == 2)).await;
    let receiver = &run.stand.receiver;
    run.until("all begun", || receiver.count() == 3).await;
    run.has_let_go().await;
    run.stop.cancel();
    let clock = Arc::clone(&run.clock);
    let (state, mut stand) = run.ended().await;
    assert!(matches!(state, Err(RunError::Interrupted)), "{state:?}");
    assert_eq!(stand.receiver.count(), 3);
    clock.by(121);
    assert_eq!(stand.carry().await.unwrap(), RunState::Finished);
    let requests = stand.receiver.requests();
    assert_eq!((requests.len(), by_id(&requests).len()), (4, 3));
    all_are_delivered(&mut stand, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_when_the_process_was_killed_is_sent_with_the_same_body() {
    let site = Site::new("killed_waiting").await;
    furnish(&site, 70, NEVER).await;
    site.receiver.rule(puts_off(503, |batch| batch == 1));
    let run = start_run(&site);
    let waits = "select batch from batches_now where state = 'ambiguous' and next_at > 0
                 and (select count(*) from batches_now where state = 'accepted') = 9";
    site.receiver.wait_for(10).await;
    for _ in 0..600 {
        if !ledger(&site, waits).await.is_empty() {
            break;
        }
        SystemClock.sleep(Duration::from_millis(50)).await;
    }
    night::kill(run).await;
    assert_eq!(ledger(&site, waits).await.len(), 1);
    assert_eq!(site.receiver.count(), 10);
    // As if its two minutes had passed.
    ledger(&site, "update batches set next_at = next_at - 120000000").await;
    night::finish(&site).await;
    let requests = site.receiver.requests();
    assert_eq!(requests.len(), 11);
    let put_off: Vec<_> = requests.iter().filter(|r| batch(r) == 1).collect();
    assert_eq!(put_off[0].id(), put_off[1].id());
    assert_eq!(put_off[0].body, put_off[1].body);
}
