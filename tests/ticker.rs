//! Fire times and the ledger between them and their runs, under a served
//! daemon with a real ledger and warehouse.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use async_trait::async_trait;
use campaignd::campaign::Source;
use campaignd::daemon::settings::{Secrets, Settings, compile};
use campaignd::daemon::{Reloaded, Service, Why, World, folder, serve};
use campaignd::id::{BatchPath, CampaignName, ConnectorName, RunId};
use campaignd::ledger::SqliteLedger;
use campaignd::run::{
    Action, Adopted, AttemptBegun, BatchChange, BatchRecord, BatchStatus, Claim, Cursor,
    Installation, Lease, Ledger, LedgerError, NewRun, PauseChange, PauseScope, RunChange,
    RunRecord, RunState, SystemClock,
};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use support::receiver::Receiver;
use support::site::SIGNING_SECRET;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A ledger that loses the answer of the next claim that brings a run.
struct Forgetful {
    inner: SqliteLedger,
    loses_answer: AtomicBool,
}

#[async_trait]
impl Ledger for Forgetful {
    fn installation(&self) -> &Installation {
        self.inner.installation()
    }

    async fn cursor(&self, campaign: &CampaignName) -> Result<Option<Cursor>, LedgerError> {
        self.inner.cursor(campaign).await
    }

    async fn claim_all(&self, claims: Vec<Claim>) -> Vec<Result<Vec<RunId>, LedgerError>> {
        let mut answers = self.inner.claim_all(claims).await;
        let brings_one =
            |answer: &Result<Vec<RunId>, _>| matches!(answer, Ok(runs) if !runs.is_empty());
        if answers.iter().any(brings_one) && self.loses_answer.swap(false, SeqCst) {
            let message = "told to fail".to_owned();
            answers.fill(Err(LedgerError::Unusable { message }));
        }
        answers
    }

    async fn claim_manual(&self, run: NewRun, at: Timestamp) -> Result<RunId, LedgerError> {
        self.inner.claim_manual(run, at).await
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>, LedgerError> {
        self.inner.run(run).await
    }

    async fn runs(
        &self,
        campaign: Option<&CampaignName>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, LedgerError> {
        self.inner.runs(campaign, limit).await
    }

    async fn open_runs(&self) -> Result<Vec<RunRecord>, LedgerError> {
        self.inner.open_runs().await
    }

    async fn take_lease(&self, run: &RunId, ttl: Duration) -> Result<Option<Lease>, LedgerError> {
        self.inner.take_lease(run, ttl).await
    }

    async fn renew_lease(
        &self,
        run: &RunId,
        term: i32,
        ttl: Duration,
    ) -> Result<Lease, LedgerError> {
        self.inner.renew_lease(run, term, ttl).await
    }

    async fn release_lease(&self, run: &RunId, term: i32) -> Result<(), LedgerError> {
        self.inner.release_lease(run, term).await
    }

    async fn change_run(&self, change: RunChange) -> Result<(), LedgerError> {
        self.inner.change_run(change).await
    }

    async fn begin_attempt(&self, attempt: AttemptBegun) -> Result<(), LedgerError> {
        self.inner.begin_attempt(attempt).await
    }

    async fn change_batch(&self, change: BatchChange) -> Result<(), LedgerError> {
        self.inner.change_batch(change).await
    }

    async fn batches(&self, run: &RunId) -> Result<Vec<BatchRecord>, LedgerError> {
        self.inner.batches(run).await
    }

    async fn unsettled(&self, run: &RunId, limit: u32) -> Result<Vec<BatchRecord>, LedgerError> {
        self.inner.unsettled(run, limit).await
    }

    async fn mark_settled(
        &self,
        run: &RunId,
        term: i32,
        settled: Vec<(BatchPath, BatchStatus)>,
    ) -> Result<(), LedgerError> {
        self.inner.mark_settled(run, term, settled).await
    }

    async fn adopt(&self, adopted: Adopted) -> Result<(), LedgerError> {
        self.inner.adopt(adopted).await
    }

    async fn unsettled_backlog(
        &self,
        run: &RunId,
    ) -> Result<(u64, Option<Timestamp>), LedgerError> {
        self.inner.unsettled_backlog(run).await
    }

    async fn newest_settled(
        &self,
        connector: &ConnectorName,
    ) -> Result<Option<RunId>, LedgerError> {
        self.inner.newest_settled(connector).await
    }

    async fn connector_alarms(&self) -> Result<Vec<(ConnectorName, String)>, LedgerError> {
        self.inner.connector_alarms().await
    }

    async fn set_connector_alarm(
        &self,
        connector: &ConnectorName,
        alarm: Option<String>,
    ) -> Result<(), LedgerError> {
        self.inner.set_connector_alarm(connector, alarm).await
    }

    async fn accept_connector(&self, connector: &ConnectorName) -> Result<(), LedgerError> {
        self.inner.accept_connector(connector).await
    }

    async fn pauses(&self) -> Result<BTreeSet<PauseScope>, LedgerError> {
        self.inner.pauses().await
    }

    async fn set_pause(&self, change: PauseChange) -> Result<(), LedgerError> {
        self.inner.set_pause(change).await
    }

    async fn cancel(&self, run: &RunId, by: &str, at: Timestamp) -> Result<(), LedgerError> {
        self.inner.cancel(run, by, at).await
    }

    async fn note_action(&self, action: Action) -> Result<(), LedgerError> {
        self.inner.note_action(action).await
    }

    async fn is_cancelled(&self, run: &RunId) -> Result<bool, LedgerError> {
        self.inner.is_cancelled(run).await
    }
}

/// Files, a receiver and a ledger for daemons that are started one after
/// another.
struct Host {
    dir: TempDir,
    _receiver: Receiver,
    settings: Settings,
    ledger: Arc<Forgetful>,
}

impl Host {
    async fn new() -> Self {
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
        let source = Source {
            name: "campaignd.yaml",
            text: &text,
        };
        let settings = compile(&source).unwrap().resolve_paths(dir.path());
        let ledger = SqliteLedger::open(settings.state.path()).await.unwrap();
        Self {
            dir,
            _receiver: receiver,
            settings,
            ledger: Arc::new(Forgetful {
                inner: ledger,
                loses_answer: AtomicBool::new(false),
            }),
        }
    }

    fn campaign(&self, cron: &str, enabled: bool) {
        let text = format!(
            "name: hello
connector: sandbox
enabled: {enabled}
schedule: {{ cron: '{cron}', timezone: UTC }}
audience: {{ key: id, sql: \"select 'p-1' as id\" }}
activation: {{ destination: sink }}
"
        );
        let path: &Path = &self.dir.path().join("campaigns/hello.yaml");
        std::fs::write(path, text).unwrap();
    }

    /// Serves until `stop`.
    async fn serve(&self, stop: CancellationToken) {
        let ledger: Arc<dyn Ledger> = self.ledger.clone();
        let secrets = Secrets::of([]);
        let world = World::assemble(&self.settings, &secrets, Arc::new(SystemClock), ledger);
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
        serve(service, reread, stop.cancelled_owned())
            .await
            .unwrap();
    }

    /// Serves until the ledger's runs are as `wanted`, 20 s at most, and
    /// returns them.
    async fn serve_until(&self, wanted: impl Fn(&[RunRecord]) -> bool) -> Vec<RunRecord> {
        let stop = CancellationToken::new();
        let watching = async {
            let mut runs = Vec::new();
            for _ in 0..200 {
                runs = self.ledger.runs(None, 100).await.unwrap();
                if wanted(&runs) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.cancel();
            runs
        };
        let (runs, ()) = tokio::join!(watching, self.serve(stop.clone()));
        runs
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_claim_was_made_although_its_answer_was_lost_is_carried() {
    let host = Host::new().await;
    host.campaign("* * * * * *", true);
    host.ledger.loses_answer.store(true, SeqCst);
    let runs = host
        .serve_until(|runs| {
            runs.iter()
                .filter(|run| run.state == RunState::Finished)
                .count()
                >= 3
        })
        .await;
    let first = runs.last().unwrap();
    assert!(!host.ledger.loses_answer.load(SeqCst));
    assert_eq!(first.state, RunState::Finished, "{:?}", first.run);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_spent_disabled_is_not_missed_although_the_daemon_was_started_anew() {
    let host = Host::new().await;
    host.campaign("* * * * * *", true);
    host.serve_until(|runs| !runs.is_empty()).await;
    host.campaign("* * * * * *", false);
    let name: CampaignName = "hello".parse().unwrap();
    let before = host.ledger.cursor(&name).await.unwrap().unwrap();
    let is_past = async || {
        let after = host.ledger.cursor(&name).await.unwrap().unwrap();
        after.seen_until.duration_since(before.seen_until).as_secs() >= 2
    };
    let stop = CancellationToken::new();
    let disabled_for_a_while = async {
        for _ in 0..200 {
            if is_past().await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.cancel();
    };
    tokio::join!(host.serve(stop.clone()), disabled_for_a_while);
    assert!(is_past().await, "the cursor moves on while it is disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_before_a_campaign_was_disabled_is_missed_although_nothing_ran() {
    let host = Host::new().await;
    host.campaign("* * * * * *", true);
    let runs = host.serve_until(|runs| !runs.is_empty()).await;
    let last = host.ledger.runs(None, 1).await.unwrap()[0].fire_time;
    assert!(runs.iter().all(|run| run.state != RunState::Missed));
    // Nothing is running for a while, then the campaign is disabled.
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    host.campaign("* * * * * *", false);
    let path = host.dir.path().join("campaigns/hello.yaml");
    let disabled: Timestamp = std::fs::metadata(path)
        .unwrap()
        .modified()
        .unwrap()
        .try_into()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let is_missed = |run: &&RunRecord| run.state == RunState::Missed;
    let runs = host
        .serve_until(|runs| runs.iter().any(|run| is_missed(&run)))
        .await;
    let mut missed: Vec<Timestamp> = runs
        .iter()
        .filter(is_missed)
        .map(|run| run.fire_time)
        .collect();
    missed.sort();
    let until = disabled.as_second();
    let expect: Vec<Timestamp> = (last.as_second() + 1..=until)
        .map(|second| Timestamp::from_second(second).unwrap())
        .collect();
    assert!(expect.len() >= 3, "{last} {disabled}");
    assert_eq!(
        missed, expect,
        "each of them, and none of the time disabled"
    );
    let newest = runs.iter().map(|run| run.fire_time).max();
    assert_eq!(newest, missed.last().copied(), "nothing fires");
    let reason = runs.iter().find(is_missed).unwrap().error.clone().unwrap();
    assert!(
        reason.ends_with("its campaign is disabled since"),
        "{reason}"
    );
}
