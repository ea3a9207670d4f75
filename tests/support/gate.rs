//! A door in front of the tests' PostgreSQL that misbehaves on request: it
//! speaks the wire protocol frame by frame, and every fault leaves the
//! server's own transaction as honest as it is.

pub use super::gate_acts::{Act, Cut, Passing};

use super::gate_talk::Talk;
use super::gate_wire::Refusal;
use super::gate_wlm::Wlm;
use super::postgres::ConnDetails;
use super::redshift_gate::Redshift;
use super::tls::{Pair, acceptor};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a test waits for a statement before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A statement that came to its end, one way or the other.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The statement.
    pub passing: Passing,
    /// Rows in its answer.
    pub rows: usize,
    /// Bytes of its answer.
    pub bytes: usize,
    /// What the gate did with it.
    pub act: Act,
    /// Whether the server has done it, as far as the gate has seen.
    pub is_done: bool,
    /// Its leading comment.
    pub label: String,
    /// All of it.
    pub sql: String,
    /// Whether it is an `insert`.
    pub is_insert: bool,
    /// When it came.
    pub began: SystemTime,
    /// How long it took, queues included.
    pub time: Duration,
    /// From its first row to its last, which is as long as Redshift keeps a
    /// slot for its answer.
    pub slot_held: Duration,
    /// Who asked, and what Redshift files it under.
    pub session: SessionFacts,
}

/// What the warehouse's own log says of a session.
#[derive(Debug, Clone, Default)]
pub struct SessionFacts {
    /// The server's number for it.
    pub pid: i32,
    pub user: String,
    /// Whether it came by TLS.
    pub is_encrypted: bool,
    /// What `query_group` was set to.
    pub query_group: Option<String>,
}

type Rule = Box<dyn Fn(&Passing) -> Act + Send + Sync>;

/// What all sessions of a gate have in common.
pub(super) struct Shared {
    pub(super) server: PathBuf,
    pub(super) rule: Mutex<Rule>,
    pub(super) steps: Mutex<Vec<String>>,
    /// How many statements the rule has been asked about, and what became of
    /// those that have ended.
    pub(super) log: watch::Sender<(Vec<Passing>, Vec<Logged>)>,
    /// How long a commit takes at least; they wait for each other.
    pub(super) commits: tokio::sync::Mutex<()>,
    pub(super) slowness: Mutex<Slowness>,
    /// Sessions begun before this many others are in a hole.
    pub(super) holes: watch::Sender<usize>,
    pub(super) redshift: Option<Redshift>,
    /// What was refused because Redshift refuses it, and why.
    pub(super) refused: Mutex<Vec<(String, Refusal)>>,
    /// What encrypts for who asks for it.
    pub(super) tls: Mutex<Option<TlsAcceptor>>,
}

/// What takes time besides the work itself.
#[derive(Clone, Default)]
pub(super) struct Slowness {
    /// How long a commit takes at least.
    pub(super) commit: Option<Duration>,
    /// How long an `insert` takes at least.
    pub(super) insert: Duration,
    /// How long a session may be idle.
    pub(super) idle: Option<Duration>,
    /// In which statements wait for each other.
    pub(super) queue: Option<Wlm>,
    /// How many sessions have begun.
    pub(super) sessions: usize,
}

/// The gate; it closes when this is dropped.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: CancellationToken,
}

impl Gate {
    /// Opens before `database`, on a free loopback port, and passes everything
    /// until told otherwise.
    pub async fn open(database: &ConnDetails) -> Self {
        Self::before(database, None).await
    }

    /// The same, and what is behind it is Redshift as far as a client can
    /// tell.
    pub async fn redshift(database: &ConnDetails) -> Self {
        let redshift = Redshift::found(database).await;
        Self::before(database, Some(redshift)).await
    }

    async fn before(database: &ConnDetails, redshift: Option<Redshift>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let shared = Arc::new(Shared {
            server: Path::new(&database.host).join(format!(".s.PGSQL.{}", database.port)),
            rule: Mutex::new(Box::new(|_| Act::Pass)),
            steps: Mutex::default(),
            log: watch::Sender::default(),
            commits: tokio::sync::Mutex::default(),
            slowness: Mutex::default(),
            holes: watch::Sender::default(),
            redshift,
            refused: Mutex::default(),
            tls: Mutex::default(),
        });
        let gate = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::clone(&shared),
            end: CancellationToken::new(),
        };
        let end = gate.end.clone();
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            let accepting = accept(listener, shared, tasks, end.clone());
            end.run_until_cancelled(accepting).await
        });
        gate
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on who asks for encryption gets it, by this certificate.
    pub fn offer_tls(&self, own: &Pair) {
        *self.shared.tls.lock().unwrap() = Some(acceptor(own, None));
    }

    /// From now on there is no encryption, as at first.
    pub fn refuse_tls(&self) {
        *self.shared.tls.lock().unwrap() = None;
    }

    /// What is done with each statement from now on.
    pub fn rule(&self, rule: impl Fn(&Passing) -> Act + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// From now on commits go one after the other, and each takes so long.
    pub fn slow_commits(&self, time: Duration) {
        self.shared.slowness.lock().unwrap().commit = Some(time);
    }

    /// From now on each `insert` takes so long at least.
    pub fn slow_inserts(&self, time: Duration) {
        self.shared.slowness.lock().unwrap().insert = time;
    }

    /// From now on a session that is idle for so long is cut.
    pub fn cut_idle(&self, after: Duration) {
        self.shared.slowness.lock().unwrap().idle = Some(after);
    }

    /// From now on so many statements that read or write rows run at a time.
    pub fn queue(&self, slots: usize) {
        self.shared.slowness.lock().unwrap().queue = Some(Wlm::new(slots, None));
    }

    /// The same, and who waits for longer than `patience` is refused. All the
    /// slots are somebody else's until what is returned is dropped.
    pub async fn queue_taken(&self, slots: u32, patience: Duration) -> OwnedSemaphorePermit {
        let queue = Wlm::new(usize::try_from(slots).unwrap(), Some(patience));
        let others = queue.occupy(slots).await;
        self.shared.slowness.lock().unwrap().queue = Some(queue);
        others
    }

    /// Of the sessions there are, every packet vanishes from now on, and of
    /// one that is busy from its next answer on.
    pub fn vanish(&self) {
        let sessions = self.shared.slowness.lock().unwrap().sessions;
        self.shared.holes.send_replace(sessions);
    }

    /// Whether what is behind it passes for Redshift.
    pub fn is_redshift(&self) -> bool {
        self.shared.redshift.is_some()
    }

    /// The statements refused because Redshift refuses them, not because a
    /// test wanted it.
    pub fn refused(&self) -> Vec<(String, Refusal)> {
        self.shared.refused.lock().unwrap().clone()
    }

    /// Named statements that clients have prepared and not closed.
    pub fn prepared(&self) -> usize {
        self.shared.redshift.as_ref().map_or(0, Redshift::prepared)
    }

    /// The statements that have ended.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.log.borrow().1.clone()
    }

    /// How many `insert`s have ended.
    pub fn inserts(&self) -> usize {
        let log = self.log();
        log.iter().filter(|ended| ended.is_insert).count()
    }

    /// Returns once a statement has come for which `wanted` holds; it may
    /// still be under way.
    pub async fn wait_for(&self, wanted: impl Fn(&Passing) -> bool) {
        let mut log = self.shared.log.subscribe();
        let seen = log.wait_for(|log| log.0.iter().any(&wanted));
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            panic!("no such statement came: {:?}", self.log());
        }
    }

    /// Returns once a statement has ended for which `wanted` holds.
    pub async fn wait_for_end(&self, wanted: impl Fn(&Logged) -> bool) {
        let mut log = self.shared.log.subscribe();
        let seen = log.wait_for(|log| log.1.iter().any(&wanted));
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            panic!("no such statement ended: {:?}", self.log());
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    end: CancellationToken,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (shared, end) = (Arc::clone(&shared), end.clone());
        // A connection that breaks is what the gate is for.
        tasks.spawn(async move {
            let talk = Talk::begin(client, &shared);
            end.run_until_cancelled(async { talk.await?.relay().await })
                .await;
        });
    }
}
