//! The wall clock is set while the daemon runs: the real ticker, ledger and
//! warehouse, and a clock that is moved.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use async_trait::async_trait;
use campaignd::campaign::Source;
use campaignd::daemon::settings::{Secrets, Settings, compile};
use campaignd::daemon::{Reloaded, Service, Why, World, folder, serve};
use campaignd::ledger::SqliteLedger;
use campaignd::run::{Clock, Ledger, RunRecord, RunState, SystemClock};
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::receiver::{Answer, Receiver};
use support::site::SIGNING_SECRET;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The machine's clock, shown another time.
struct SetClock {
    /// What it was set to, and when by the machine's.
    set: Mutex<(Timestamp, Duration)>,
    /// How often it was read.
    reads: AtomicUsize,
}

impl SetClock {
    fn set(&self, now: Timestamp) {
        *self.set.lock().unwrap() = (now, SystemClock.elapsed());
    }

    fn shows(&self) -> Timestamp {
        let (set, since) = *self.set.lock().unwrap();
        set + SignedDuration::try_from(SystemClock.elapsed() - since).unwrap()
    }
}

#[async_trait]
impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        self.reads.fetch_add(1, SeqCst);
        self.shows()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    async fn sleep(&self, delay: Duration) {
        SystemClock.sleep(delay).await;
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A daemon's files, and the daemon while a test goes on.
struct Host {
    dir: TempDir,
    receiver: Receiver,
    settings: Settings,
    ledger: Arc<SqliteLedger>,
    clock: Arc<SetClock>,
}

impl Host {
    /// A campaign each hour, with `terms` besides, at `now`.
    async fn new(terms: &str, now: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("campaigns")).unwrap();
        let receiver = Receiver::start().await;
        let text = format!(
            "campaigns: ./campaigns
state: {{ url: 'sqlite://./state.db' }}
connectors: {{ sandbox: {{ kind: sqlite, path: ./sandbox.db }} }}
destinations:
  sink:
    url: {}
    channel: email
    signing_secrets: [ '{SIGNING_SECRET}' ]
    allow_http: true
    allow_private_network: true
",
            receiver.url()
        );
        let campaign = format!(
            "name: hello
connector: sandbox
schedule: {{ cron: '0 * * * *', timezone: UTC{terms} }}
audience: {{ key: id, sql: \"select 'p-1' as id\" }}
activation: {{ destination: sink }}
"
        );
        std::fs::write(dir.path().join("campaigns/hello.yaml"), campaign).unwrap();
        let source = Source {
            name: "campaignd.yaml",
            text: &text,
        };
        let settings = compile(&source).unwrap().resolve_paths(dir.path());
        let ledger = SqliteLedger::open(settings.state.path()).await.unwrap();
        Self {
            dir,
            receiver,
            settings,
            ledger: Arc::new(ledger),
            clock: Arc::new(SetClock {
                set: Mutex::new((at(now), SystemClock.elapsed())),
                reads: AtomicUsize::new(0),
            }),
        }
    }

    /// Serves while `story` is told.
    async fn during(&self, story: impl Future<Output = ()>) {
        let stop = CancellationToken::new();
        let ledger: Arc<dyn Ledger> = self.ledger.clone();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let world = World::assemble(&self.settings, &Secrets::of([]), clock, ledger);
        let known = self.settings.known();
        let first = folder::load(&self.settings.campaigns, &known, folder::Folder::default());
        assert_eq!(first.problems, []);
        let service = Service {
            control: None,
            world: Arc::new(world.unwrap()),
            max_runs: 4,
            shutdown_grace: Duration::from_secs(10),
            folder: first,
            campaigns: self.settings.campaigns.clone(),
            hangup: signal(SignalKind::hangup()).unwrap(),
        };
        let reread = |_: Why, _: &World, folder| Reloaded {
            operator: None,
            folder,
        };
        let serving = serve(service, reread, stop.clone().cancelled_owned());
        let telling = async {
            story.await;
            stop.cancel();
        };
        let (served, ()) = tokio::join!(serving, telling);
        served.unwrap();
    }

    /// Waits until the schedule has been looked at some times more.
    async fn looked_at(&self) {
        let name = "hello".parse().unwrap();
        let reads = self.clock.reads.load(SeqCst) + 20;
        for _ in 0..600 {
            let is_known = self.ledger.cursor(&name).await.unwrap().is_some();
            if is_known && self.clock.reads.load(SeqCst) >= reads {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody looked at the clock");
    }

    /// Waits until the newest run is `fire_time`'s and none is open.
    async fn settled(&self, fire_time: &str) {
        for _ in 0..600 {
            let runs = self.runs().await;
            let is_there = runs
                .first()
                .is_some_and(|run| run.fire_time == at(fire_time));
            if is_there && runs.iter().all(|run| !run.state.is_open()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{fire_time} is not there: {:?}", self.fates().await);
    }

    /// Waits until the fire times have come to this.
    async fn fates_are(&self, expect: &[(Timestamp, RunState)]) {
        for _ in 0..600 {
            if self.fates().await == expect {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {expect:?}: {:?}", self.fates().await);
    }

    /// The newest first.
    async fn runs(&self) -> Vec<RunRecord> {
        self.ledger.runs(None, 1_000).await.unwrap()
    }

    /// The state of the run of each fire time, in their order.
    async fn fates(&self) -> Vec<(Timestamp, RunState)> {
        let runs = self.runs().await.into_iter().rev();
        runs.map(|run| (run.fire_time, run.state)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_two_hours_brings_no_second_run_and_goes_on_where_it_was() {
    let host = Host::new("", "2026-11-24T10:59:58Z").await;
    host.during(async {
        host.settled("2026-11-24T11:00:00Z").await;
        host.clock.set(at("2026-11-24T09:00:02Z"));
        host.looked_at().await;
        // The hours that come again are not run again.
        host.clock.set(at("2026-11-24T09:59:59Z"));
        host.looked_at().await;
        host.clock.set(at("2026-11-24T11:00:01Z"));
        host.looked_at().await;
        host.clock.set(at("2026-11-24T11:59:58Z"));
        host.settled("2026-11-24T12:00:00Z").await;
    })
    .await;
    let expect = ["2026-11-24T11:00:00Z", "2026-11-24T12:00:00Z"];
    let expect = expect.map(|time| (at(time), RunState::Finished));
    assert_eq!(host.fates().await, expect);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_two_hours_runs_the_newest_and_records_the_other_as_missed() {
    let host = Host::new("", "2026-11-24T10:30:00Z").await;
    host.during(async {
        host.looked_at().await;
        host.clock.set(at("2026-11-24T12:30:00Z"));
        host.settled("2026-11-24T12:00:00Z").await;
    })
    .await;
    let expect = [
        (at("2026-11-24T11:00:00Z"), RunState::Missed),
        (at("2026-11-24T12:00:00Z"), RunState::Finished),
    ];
    assert_eq!(host.fates().await, expect);
}

/// Sets the clock forward by two days, and asserts that each of the 48 fire
/// times is missed but the last, which is `last`.
async fn two_days_are_missed(terms: &str, last: RunState) {
    let host = Host::new(terms, "2026-11-24T10:30:00Z").await;
    host.during(async {
        host.looked_at().await;
        host.clock.set(at("2026-11-26T10:30:00Z"));
        host.settled("2026-11-26T10:00:00Z").await;
    })
    .await;
    let first = at("2026-11-24T11:00:00Z");
    let expect: Vec<_> = (0..48)
        .map(|hour| {
            let state = if hour == 47 { last } else { RunState::Missed };
            (first + SignedDuration::from_hours(hour), state)
        })
        .collect();
    assert_eq!(host.fates().await, expect);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_two_days_follows_the_catch_up_rule() {
    two_days_are_missed("", RunState::Finished).await;
    two_days_are_missed(", catch_up: none", RunState::Missed).await;
    two_days_are_missed(", catch_up: all, catch_up_within: 1h", RunState::Finished).await;
    two_days_are_missed(", catch_up_within: 20m", RunState::Missed).await;
}

/// A run that is not through when its window closes begins nothing more, one
/// that is claimed meanwhile waits in the line, and both go on when it opens.
#[tokio::test(flavor = "multi_thread")]
async fn requests_begin_within_the_send_window_only() {
    // Closed for five minutes.
    let terms = ", overlap: queue, send_window: { from: '12:10', to: '12:05' }";
    let host = Host::new(terms, "2026-11-24T11:30:00Z").await;
    let path = host.dir.path().join("campaigns/hello.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let many = "with recursive c(n) as (select 1 union all select n + 1 from c where n < 60) \
                select 'p-' || n as id from c";
    let text = text
        .replace("'0 * * * *'", "'0,6 12 * * *'")
        .replace("select 'p-1' as id", many)
        .replace("destination: sink", "destination: sink, batch_size: 1");
    std::fs::write(&path, text).unwrap();
    host.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(200)));
    let (first, second) = (at("2026-11-24T12:00:00Z"), at("2026-11-24T12:06:00Z"));
    host.during(async {
        host.looked_at().await;
        host.clock.set(at("2026-11-24T12:00:05Z"));
        host.receiver.wait_for(4).await;
        host.clock.set(at("2026-11-24T12:05:00Z"));
        // What is on the wire ends.
        let mut count = usize::MAX;
        while host.receiver.count() != count {
            count = host.receiver.count();
            host.looked_at().await;
        }
        assert!(count < 60, "{count} were sent before the window closed");
        host.clock.set(at("2026-11-24T12:06:05Z"));
        let expect = [(first, RunState::Sending), (second, RunState::Queued)];
        host.fates_are(&expect).await;
        host.looked_at().await;
        assert_eq!(host.receiver.count(), count, "nothing while it is closed");
        assert_eq!(host.fates().await, expect);
        host.receiver.rule(|_| Answer::status(200));
        host.clock.set(at("2026-11-24T12:10:00Z"));
        let expect = [first, second].map(|at| (at, RunState::Finished));
        host.fates_are(&expect).await;
    })
    .await;
    assert_eq!(host.receiver.count(), 120, "each batch of each run once");
}
