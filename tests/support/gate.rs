//! A door in front of the tests' PostgreSQL that misbehaves on request: it
//! speaks the wire protocol frame by frame, and every fault leaves the
//! server's own transaction as honest as it is.

use super::postgres::ConnDetails;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
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
}

/// An error in the warehouse's words.
#[derive(Debug, Clone)]
pub struct Refusal {
    code: &'static str,
    message: &'static str,
    detail: &'static str,
    /// Whether the session ends with it.
    is_fatal: bool,
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
            message,
            detail,
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
    commit_time: Mutex<Option<Duration>>,
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
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let shared = Arc::new(Shared {
            server: Path::new(&database.host).join(format!(".s.PGSQL.{}", database.port)),
            rule: Mutex::new(Box::new(|_| Act::Pass)),
            steps: Mutex::default(),
            log: watch::Sender::default(),
            commits: tokio::sync::Mutex::default(),
            commit_time: Mutex::default(),
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
        *self.shared.commit_time.lock().unwrap() = Some(time);
    }

    /// The statements that have ended.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.log.borrow().1.clone()
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

/// One message: its kind, and all of it, kind and length included.
struct Frame {
    kind: u8,
    bytes: Bytes,
}

impl Frame {
    /// What is behind kind and length.
    fn body(&self) -> &[u8] {
        &self.bytes[5..]
    }

    fn new(kind: u8, body: &[u8]) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        bytes.put_u32(u32::try_from(body.len()).unwrap() + 4);
        bytes.put_slice(body);
        Self {
            kind,
            bytes: bytes.freeze(),
        }
    }
}

/// One side of a connection, read frame by frame. A read that is given up
/// loses nothing.
struct Side<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> Side<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// The next message behind the handshake.
    async fn frame(&mut self) -> io::Result<Frame> {
        self.fill(5).await?;
        let kind = self.buffer[0];
        let length = usize::try_from((&self.buffer[1..5]).get_u32()).unwrap() + 1;
        self.fill(length).await?;
        let bytes = self.buffer.split_to(length).freeze();
        Ok(Frame { kind, bytes })
    }

    /// The first message, which has no kind.
    async fn opening(&mut self) -> io::Result<Bytes> {
        self.fill(4).await?;
        let length = usize::try_from((&self.buffer[..4]).get_u32()).unwrap();
        self.fill(length).await?;
        Ok(self.buffer.split_to(length).freeze())
    }
}

/// A client and its session at the server.
struct Talk<'a> {
    shared: &'a Shared,
    client: Side<TcpStream>,
    server: Side<UnixStream>,
    transaction: Vec<String>,
}

impl<'a> Talk<'a> {
    async fn begin(client: TcpStream, shared: &'a Shared) -> io::Result<Self> {
        client.set_nodelay(true)?;
        let mut client = Side::new(client);
        let mut server = Side::new(UnixStream::connect(&shared.server).await?);
        let opening = client.opening().await?;
        server.stream.write_all(&opening).await?;
        loop {
            let frame = server.frame().await?;
            client.stream.write_all(&frame.bytes).await?;
            if frame.kind == b'Z' {
                break;
            }
        }
        Ok(Self {
            shared,
            client,
            server,
            transaction: Vec::new(),
        })
    }

    /// Question and answer in turn: the client waits for each answer's end
    /// before it asks again.
    async fn relay(mut self) -> io::Result<()> {
        loop {
            let frame = tokio::select! {
                frame = self.client.frame() => frame?,
                // The server speaks unasked: it ends the session.
                notice = self.server.frame() => {
                    self.client.stream.write_all(&notice?.bytes).await?;
                    continue;
                }
            };
            match frame.kind {
                b'Q' => self.statement(frame).await?,
                b'S' => {
                    self.server.stream.write_all(&frame.bytes).await?;
                    self.answer(&mut Logged::of(&Passing::default(), Act::Pass))
                        .await?;
                }
                _ => self.server.stream.write_all(&frame.bytes).await?,
            }
        }
    }

    async fn statement(&mut self, frame: Frame) -> io::Result<()> {
        let passing = self.passing(&frame);
        let act = (self.shared.rule.lock().unwrap())(&passing);
        let mut logged = Logged::of(&passing, act.clone());
        self.shared
            .log
            .send_modify(|log| log.0.push(passing.clone()));
        let commit_time = *self.shared.commit_time.lock().unwrap();
        let turn = match commit_time.filter(|_| passing.step == "commit") {
            Some(time) => {
                let turn = self.shared.commits.lock().await;
                tokio::time::sleep(time).await;
                Some(turn)
            }
            None => None,
        };
        let done = self.act(frame, act, &mut logged).await;
        drop(turn);
        self.shared.log.send_modify(|log| log.1.push(logged));
        done
    }

    async fn act(&mut self, frame: Frame, act: Act, logged: &mut Logged) -> io::Result<()> {
        match act {
            Act::Pass => {}
            Act::Delay(time) => tokio::time::sleep(time).await,
            Act::CutBefore => return self.cut(),
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

    /// Passes on the answer to its end.
    async fn answer(&mut self, logged: &mut Logged) -> io::Result<()> {
        let mut reaches_client = true;
        loop {
            let frame = self.server.frame().await?;
            logged.rows += usize::from(frame.kind == b'D');
            // A client that has died meanwhile changes nothing for the
            // statement it sent.
            if reaches_client {
                reaches_client = self.client.stream.write_all(&frame.bytes).await.is_ok();
            }
            match frame.kind {
                b'C' => logged.is_done = true,
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn answer_rows(&mut self, rows: usize, logged: &mut Logged) -> io::Result<()> {
        while logged.rows < rows {
            let frame = self.server.frame().await?;
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
            let frame = self.server.frame().await?;
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
        }
    }
}

impl Refusal {
    fn frame(&self) -> Frame {
        let severity = if self.is_fatal { "FATAL" } else { "ERROR" };
        let mut body = Vec::new();
        for (field, text) in [
            (b'S', severity),
            (b'V', severity),
            (b'C', self.code),
            (b'M', self.message),
            (b'D', self.detail),
        ] {
            body.push(field);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        Frame::new(b'E', &body)
    }
}
