//! A door in front of the tests' PostgreSQL that misbehaves on request: it
//! speaks the wire protocol frame by frame, and every fault leaves the
//! server's own transaction as honest as it is.

use super::gate_wire::{Frame, Refusal, Side};
use super::postgres::ConnDetails;
use super::redshift_gate::{Manners, Redshift, open_session};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a test waits for a statement before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a refused statement becomes, so that the server refuses it itself and
/// its transaction is as aborted as the client is told.
const REFUSED: &[u8] = b"select the_gate_refuses_this_statement()\0";

/// A statement that is about to be forwarded.
#[derive(Debug, Clone, Default)]
pub struct Passing {
    /// The first word behind `campaignd` in its leading comment, `settle`,
    /// `commit`; empty where it has none.
    pub step: String,
    /// Which of its step it is, from 1, over all connections.
    pub number: usize,
    /// The steps before it in the same transaction.
    pub transaction: Vec<String>,
}

impl Passing {
    /// Whether it commits a transaction that has done `step`.
    pub fn commits(&self, step: &str) -> bool {
        self.step == "commit" && self.transaction.iter().any(|done| done == step)
    }
}

/// What the gate does with a statement.
#[derive(Debug, Clone)]
pub enum Act {
    /// Forwards it.
    Pass,
    /// Forwards it so much later, whether the client is still there or not.
    Delay(Duration),
    /// Never forwards it, and cuts the connection.
    CutBefore,
    /// Forwards it, waits until the server has done it, and cuts the
    /// connection without a word of that.
    CutAfter,
    /// Passes on so many rows of the answer, and cuts the connection.
    CutAfterRows(usize),
    /// Refuses it with this error.
    Refuse(Refusal),
    /// Neither forwards nor answers it, nor says anything ever again.
    Vanish,
}

impl Act {
    /// Redshift: two transactions cannot be put in an order.
    pub fn error_1023() -> Self {
        let detail = "Serializable isolation violation on table in the cluster";
        Self::refuse("XX000", "1023", detail, false)
    }

    /// Redshift: two transactions met.
    pub fn conflict() -> Self {
        let message = "could not complete because of conflict with concurrent transaction";
        Self::refuse("XX000", message, "", false)
    }

    /// Cancelled by an administrator or a time limit.
    pub fn cancelled() -> Self {
        let message = "canceling statement due to statement timeout";
        Self::refuse("57014", message, "", false)
    }

    /// The administrator ends the session.
    pub fn shut_down() -> Self {
        let message = "terminating connection due to administrator command";
        Self::refuse("57P01", message, "", true)
    }

    fn refuse(
        code: &'static str,
        message: &'static str,
        detail: &'static str,
        is_fatal: bool,
    ) -> Self {
        Self::Refuse(Refusal {
            code,
            message: message.to_owned(),
            detail: detail.to_owned(),
            is_fatal,
        })
    }
}

/// A statement that came to its end, one way or the other.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The statement.
    pub passing: Passing,
    /// Rows in its answer.
    pub rows: usize,
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
    /// How long it took, queues included.
    pub time: Duration,
    /// From its first row to its last, which is as long as Redshift keeps a
    /// slot for its answer.
    pub slot_held: Duration,
}

type Rule = Box<dyn Fn(&Passing) -> Act + Send + Sync>;

struct Shared {
    server: PathBuf,
    rule: Mutex<Rule>,
    steps: Mutex<Vec<String>>,
    /// How many statements the rule has been asked about, and what became of
    /// those that have ended.
    log: watch::Sender<(Vec<Passing>, Vec<Logged>)>,
    /// How long a commit takes at least; they wait for each other.
    commits: tokio::sync::Mutex<()>,
    slowness: Mutex<Slowness>,
    redshift: Option<Redshift>,
    /// What was refused because Redshift refuses it, and why.
    refused: Mutex<Vec<(String, Refusal)>>,
}

/// What takes time besides the work itself.
#[derive(Clone, Default)]
struct Slowness {
    /// How long a commit takes at least.
    commit: Option<Duration>,
    /// How long an `insert` takes at least.
    insert: Duration,
    /// How long a session may be idle.
    idle: Option<Duration>,
    /// How many statements run at a time; the others wait.
    slots: Option<Arc<Semaphore>>,
    /// Sessions begun before this many others hear nothing any more.
    vanished: usize,
    /// How many sessions have begun.
    sessions: usize,
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
            redshift,
            refused: Mutex::default(),
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

    /// From now on so many statements run at a time, transaction control and
    /// locks aside.
    pub fn queue(&self, slots: usize) {
        self.shared.slowness.lock().unwrap().slots = Some(Arc::new(Semaphore::new(slots)));
    }

    /// The sessions there are hear nothing any more, and are not closed.
    pub fn vanish(&self) {
        let mut slowness = self.shared.slowness.lock().unwrap();
        slowness.vanished = slowness.sessions;
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

/// A session between the client and the server as they want it.
async fn pass_on_session(
    client: &mut Side<TcpStream>,
    server: &Path,
) -> io::Result<Side<UnixStream>> {
    let mut server = Side::new(UnixStream::connect(server).await?);
    let opening = client.opening().await?;
    server.stream.write_all(&opening).await?;
    loop {
        let frame = server.frame().await?;
        client.stream.write_all(&frame.bytes).await?;
        if frame.kind == b'Z' {
            return Ok(server);
        }
    }
}

/// A client and its session at the server.
struct Talk<'a> {
    shared: &'a Shared,
    client: Side<TcpStream>,
    server: Side<UnixStream>,
    transaction: Vec<String>,
    manners: Manners,
    /// Which session it is.
    number: usize,
}

impl<'a> Talk<'a> {
    async fn begin(client: TcpStream, shared: &'a Shared) -> io::Result<Self> {
        client.set_nodelay(true)?;
        let mut client = Side::new(client);
        let server = match shared.redshift {
            Some(_) => open_session(&mut client, &shared.server).await?,
            None => pass_on_session(&mut client, &shared.server).await?,
        };
        let number = {
            let mut slowness = shared.slowness.lock().unwrap();
            slowness.sessions += 1;
            slowness.sessions
        };
        Ok(Self {
            shared,
            client,
            server,
            transaction: Vec::new(),
            manners: Manners::default(),
            number,
        })
    }

    /// Question and answer in turn: the client waits for each answer's end
    /// before it asks again.
    async fn relay(mut self) -> io::Result<()> {
        let mut refused = None;
        loop {
            let slowness = self.shared.slowness.lock().unwrap().clone();
            let idle = slowness.idle.unwrap_or(Duration::MAX);
            let frame = tokio::select! {
                frame = self.client.frame() => frame?,
                // The server speaks unasked: it ends the session.
                notice = self.server.frame() => {
                    self.client.stream.write_all(&notice?.bytes).await?;
                    continue;
                }
                () = tokio::time::sleep(idle) => return self.cut(),
            };
            if self.number <= self.shared.slowness.lock().unwrap().vanished {
                return self.vanish().await;
            }
            match (frame.kind, &self.shared.redshift) {
                (b'Q', _) => self.statement(frame).await?,
                (b'S', _) => {
                    self.server.stream.write_all(&frame.bytes).await?;
                    let mut logged = Logged::of(&Passing::default(), Act::Pass);
                    match refused.take() {
                        Some(refusal) => self.refuse(&refusal).await?,
                        None => self.answer(&mut logged).await?,
                    }
                }
                (_, Some(world)) => {
                    let (frame, refusal) = self.manners.extended(frame, world)?;
                    refused = refused.or(refusal);
                    self.server.stream.write_all(&frame.bytes).await?;
                }
                _ => self.server.stream.write_all(&frame.bytes).await?,
            }
        }
    }

    /// Waits until the client has given up, and the server a little longer.
    async fn vanish(&mut self) -> io::Result<()> {
        while self.client.frame().await.is_ok() {}
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    async fn statement(&mut self, frame: Frame) -> io::Result<()> {
        let began = Instant::now();
        let passing = self.passing(&frame);
        let mut act = (self.shared.rule.lock().unwrap())(&passing);
        let sql = String::from_utf8_lossy(frame.body()).into_owned();
        let mut frame = frame;
        if self.shared.redshift.is_some() {
            match self.manners.query(&frame) {
                Ok(rewritten) => frame = rewritten,
                Err(refusal) => {
                    let refused = (sql.clone(), refusal.clone());
                    self.shared.refused.lock().unwrap().push(refused);
                    act = Act::Refuse(refusal);
                }
            }
        }
        let mut logged = Logged::of(&passing, act.clone());
        let label = sql.split_once(" */").map(|(label, _)| label.to_owned());
        logged.label = label.unwrap_or_default();
        logged.sql.clone_from(&sql);
        self.shared
            .log
            .send_modify(|log| log.0.push(passing.clone()));
        let slowness = self.shared.slowness.lock().unwrap().clone();
        let command = sql.split_once("*/ ").map_or(&*sql, |(_, rest)| rest);
        let word = command.split_whitespace().next().unwrap_or("");
        let needs_none = ["begin", "commit", "rollback", "lock", "set", "abort", "end"];
        let slot = match slowness.slots.filter(|_| !needs_none.contains(&word)) {
            Some(slots) => slots.acquire_owned().await.ok(),
            None => None,
        };
        logged.is_insert = word == "insert";
        if logged.is_insert {
            tokio::time::sleep(slowness.insert).await;
        }
        let turn = match slowness.commit.filter(|_| passing.step == "commit") {
            Some(time) => {
                let turn = self.shared.commits.lock().await;
                tokio::time::sleep(time).await;
                Some(turn)
            }
            None => None,
        };
        let done = self.act(frame, act, &mut logged).await;
        drop((turn, slot));
        logged.time = began.elapsed();
        self.shared.log.send_modify(|log| log.1.push(logged));
        done
    }

    async fn act(&mut self, frame: Frame, act: Act, logged: &mut Logged) -> io::Result<()> {
        match act {
            Act::Pass => {}
            Act::Delay(time) => tokio::time::sleep(time).await,
            Act::CutBefore => return self.cut(),
            Act::Vanish => return self.vanish().await,
            Act::CutAfter => {
                self.server.stream.write_all(&frame.bytes).await?;
                while self.server.frame().await?.kind != b'Z' {}
                logged.is_done = true;
                return self.cut();
            }
            Act::CutAfterRows(rows) => {
                self.server.stream.write_all(&frame.bytes).await?;
                return self.answer_rows(rows, logged).await;
            }
            Act::Refuse(refusal) => {
                let refused = Frame::new(b'Q', REFUSED);
                self.server.stream.write_all(&refused.bytes).await?;
                return self.refuse(&refusal).await;
            }
        }
        self.server.stream.write_all(&frame.bytes).await?;
        self.answer(logged).await
    }

    fn passing(&mut self, frame: &Frame) -> Passing {
        let text = String::from_utf8_lossy(frame.body());
        let comment = text.strip_prefix("/* campaignd ").unwrap_or("");
        let step = comment.split(' ').next().unwrap_or("").to_owned();
        let number = {
            let mut steps = self.shared.steps.lock().unwrap();
            steps.push(step.clone());
            steps.iter().filter(|earlier| **earlier == step).count()
        };
        if step == "begin" {
            self.transaction.clear();
        }
        let passing = Passing {
            step: step.clone(),
            number,
            transaction: self.transaction.clone(),
        };
        self.transaction.push(step);
        if passing.step == "commit" {
            self.transaction.clear();
        }
        passing
    }

    /// The server's next frame, as the client is to see it.
    async fn frame_for_client(&mut self) -> io::Result<Frame> {
        let frame = self.server.frame().await?;
        Ok(match &self.shared.redshift {
            Some(world) => self.manners.answer(frame, world),
            None => frame,
        })
    }

    /// Passes on the answer to its end.
    async fn answer(&mut self, logged: &mut Logged) -> io::Result<()> {
        let mut reaches_client = true;
        let mut first_row = None;
        loop {
            let frame = self.frame_for_client().await?;
            logged.rows += usize::from(frame.kind == b'D');
            // A client that has died meanwhile changes nothing for the
            // statement it sent.
            if reaches_client {
                reaches_client = self.client.stream.write_all(&frame.bytes).await.is_ok();
            }
            match frame.kind {
                b'D' => {
                    let first = *first_row.get_or_insert_with(Instant::now);
                    logged.slot_held = first.elapsed();
                }
                b'C' => logged.is_done = true,
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn answer_rows(&mut self, rows: usize, logged: &mut Logged) -> io::Result<()> {
        while logged.rows < rows {
            let frame = self.frame_for_client().await?;
            logged.rows += usize::from(frame.kind == b'D');
            self.client.stream.write_all(&frame.bytes).await?;
            if frame.kind == b'Z' {
                return Ok(());
            }
        }
        self.cut()
    }

    /// Waits for the server's own error and passes on another.
    async fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        loop {
            let frame = self.frame_for_client().await?;
            let frame = match frame.kind {
                b'E' => refusal.frame(),
                _ => frame,
            };
            self.client.stream.write_all(&frame.bytes).await?;
            match frame.kind {
                b'E' if refusal.is_fatal => return self.cut(),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// RST to the client; the server sees its client go.
    fn cut(&mut self) -> io::Result<()> {
        SockRef::from(&self.client.stream).set_linger(Some(Duration::ZERO))?;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Logged {
    fn of(passing: &Passing, act: Act) -> Self {
        Self {
            passing: passing.clone(),
            rows: 0,
            act,
            is_done: false,
            label: String::new(),
            sql: String::new(),
            is_insert: false,
            time: Duration::ZERO,
            slot_held: Duration::ZERO,
        }
    }
}
