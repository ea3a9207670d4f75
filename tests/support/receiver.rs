//! A webhook receiver that remembers everything and misbehaves on request.
//! Written on the bare socket and sharing nothing with the daemon, so that
//! neither can cover for the other.

use serde_json::{Value, json};
use socket2::SockRef;
use standardwebhooks::Webhook;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a test waits for requests before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Which one, from 1, in the order their heads arrived.
    pub number: usize,
    /// When its head arrived.
    pub at: SystemTime,
    /// `POST /path HTTP/1.1`.
    pub request_line: String,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// Empty where the script does not read it.
    pub body: Vec<u8>,
    /// The status it is answered with; 0 for an answer that is none.
    pub answered: u16,
}

impl Recorded {
    /// The value of a header that must occur at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice");
        value
    }

    /// The `webhook-id`; empty where it has none.
    pub fn id(&self) -> &str {
        self.header("webhook-id").unwrap_or_default()
    }

    /// The body, parsed.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The run it is of, as its format says: a form must have a field for it.
    pub fn run_id(&self) -> String {
        let id = match self.header("content-type") {
            Some("application/x-ndjson") => self.header("campaignd-run-id").map(Into::into),
            Some("application/x-www-form-urlencoded") => Some(self.form()["run_id"].clone()),
            _ => Some(self.json()["data"]["run_id"].clone()),
        };
        id.and_then(|id: Value| id.as_str().map(str::to_owned))
            .expect("the request names its run")
    }

    /// Which part of its batch it is; empty for a whole one.
    pub fn part(&self) -> String {
        match self.header("content-type") {
            Some("application/x-ndjson") => self.header("campaignd-part").unwrap_or("").to_owned(),
            Some("application/x-www-form-urlencoded") => String::new(),
            _ => self.json()["data"]["part"]
                .as_str()
                .unwrap_or("")
                .to_owned(),
        }
    }

    /// The body's fields, each a text.
    fn form(&self) -> Value {
        let fields = url::form_urlencoded::parse(&self.body);
        fields
            .map(|(name, text)| (name.into_owned(), Value::from(text)))
            .collect()
    }

    /// The batch's members.
    pub fn members(&self) -> Vec<Value> {
        match self.header("content-type") {
            Some("application/x-ndjson") => {
                let lines = self.body.strip_suffix(b"\n").expect("every line ends");
                let lines = lines.split(|byte| *byte == b'\n');
                return lines
                    .map(|line| serde_json::from_slice(line).expect("each line is JSON"))
                    .collect();
            }
            Some("application/x-www-form-urlencoded") => return vec![self.form()],
            _ => {}
        }
        let members = &self.json()["data"]["members"];
        members.as_array().expect("members are a list").clone()
    }

    /// Whether one of its signatures is made with `secret`, by another
    /// implementation than the daemon's. The timestamp may be any.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let timestamp = self.header("webhook-timestamp").map(str::parse);
        let (Some(Ok(timestamp)), Ok(webhook)) = (timestamp, Webhook::new(secret)) else {
            return false;
        };
        let Ok(expected) = webhook.sign(self.id(), timestamp, &self.body) else {
            return false;
        };
        let signatures = self.header("webhook-signature").unwrap_or_default();
        signatures.split(' ').any(|given| given == expected)
    }
}

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub struct Answer {
    delay: Duration,
    reads_body: bool,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    /// These bytes, then the next request.
    Reply(Vec<u8>),
    /// These bytes one at a time, so long apart.
    Dribble(Vec<u8>, Duration),
    /// These bytes, then FIN.
    Close(Vec<u8>),
    /// These bytes, and no more.
    Stall(Vec<u8>),
    /// RST.
    Reset,
    /// Nothing, with the connection left open.
    Hang,
    /// A head that does not end.
    EndlessHeaders,
    /// 200, and a body of so many bytes.
    HugeBody(u64),
}

impl Act {
    fn status(&self) -> u16 {
        let Self::Reply(bytes) = self else {
            return 0;
        };
        let code = bytes
            .get("HTTP/1.1 ".len()..)
            .and_then(|rest| rest.get(..3));
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

impl Answer {
    fn new(act: Act) -> Self {
        Self {
            delay: Duration::ZERO,
            reads_body: true,
            act,
        }
    }

    /// A status and no body.
    pub fn status(status: u16) -> Self {
        Self::reply(status, &[], "")
    }

    /// A status, headers and a body.
    pub fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        Self::new(Act::Reply(text.into_bytes()))
    }

    /// These bytes, whatever they are, then FIN.
    pub fn raw(bytes: &[u8]) -> Self {
        Self::new(Act::Close(bytes.to_vec()))
    }

    /// These bytes, and then nothing, with the connection left open.
    pub fn stalling(bytes: &[u8]) -> Self {
        Self::new(Act::Stall(bytes.to_vec()))
    }

    /// FIN without a byte.
    pub fn close() -> Self {
        Self::raw(b"")
    }

    /// `HTTP/1.1 20`, then FIN.
    pub fn half_a_status_line() -> Self {
        Self::raw(b"HTTP/1.1 20")
    }

    /// RST without a byte.
    pub fn reset() -> Self {
        Self::new(Act::Reset)
    }

    /// No answer, ever.
    pub fn hang() -> Self {
        Self::new(Act::Hang)
    }

    /// 200, byte by byte, `pause` apart.
    pub fn dribble(pause: Duration) -> Self {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        Self::new(Act::Dribble(text.to_vec(), pause))
    }

    /// 200, and headers without end.
    pub fn endless_headers() -> Self {
        Self::new(Act::EndlessHeaders)
    }

    /// 200, and a body of `bytes` bytes.
    pub fn huge_body(bytes: u64) -> Self {
        Self::new(Act::HugeBody(bytes))
    }

    /// The same, `delay` later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same, with the request's body left unread.
    #[must_use]
    pub fn before_the_body(self) -> Self {
        Self {
            reads_body: false,
            ..self
        }
    }
}

type Rule = Box<dyn Fn(&Recorded) -> Answer + Send + Sync>;

struct Shared {
    scripted: Mutex<VecDeque<Answer>>,
    rule: Mutex<Rule>,
    recorded: Mutex<Vec<Recorded>>,
    journal: Mutex<Option<File>>,
    heads: AtomicUsize,
    connections: AtomicUsize,
    sent: AtomicU64,
    count: watch::Sender<usize>,
}

/// The receiver; it ends when this is dropped.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: CancellationToken,
}

impl Receiver {
    /// Listens on a free loopback port and answers 200 until told otherwise.
    pub async fn start() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(any_port).await
    }

    /// The same at a given address, where an earlier one has been.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .expect("a loopback port can be had");
        let shared = Arc::new(Shared {
            scripted: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Answer::status(200))),
            recorded: Mutex::default(),
            journal: Mutex::default(),
            heads: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            count: watch::Sender::new(0),
        });
        let receiver = Self {
            address: listener.local_addr().expect("a bound port has an address"),
            shared: shared.clone(),
            end: CancellationToken::new(),
        };
        let tasks = TaskTracker::new();
        let end = receiver.end.clone();
        tasks.clone().spawn(async move {
            end.run_until_cancelled(accept(listener, shared, tasks, end.clone()))
                .await
        });
        receiver
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL that leads here.
    pub fn url(&self) -> String {
        format!("http://{}/activate", self.address)
    }

    /// What the next requests get, one each; afterwards the rule again.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.scripted.lock().unwrap().extend(answers);
    }

    /// What every request gets that no script is for.
    pub fn rule(&self, rule: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// From now on each request is in this file, on the disk, before it is
    /// answered: a JSON object a line.
    pub fn record_to(&self, path: &Path) {
        let file = File::options().create(true).append(true).open(path);
        *self.shared.journal.lock().unwrap() = Some(file.expect("the journal can be opened"));
    }

    /// Takes over what an earlier one at the same address has got.
    pub fn remember(&self, earlier: Vec<Recorded>) {
        self.shared.recorded.lock().unwrap().splice(0..0, earlier);
    }

    /// What has arrived.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorded.lock().unwrap().clone()
    }

    /// How many have arrived.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// The members of all requests, repeated ones too.
    pub fn members(&self) -> Vec<Value> {
        let requests = self.requests();
        requests.iter().flat_map(Recorded::members).collect()
    }

    /// Connections accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes of endless and huge answers that were taken off our hands.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Returns once `n` requests are recorded.
    pub async fn wait_for(&self, n: usize) -> Vec<Recorded> {
        let mut count = self.shared.count.subscribe();
        let arrived = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= n)).await;
        if arrived.is_err() {
            panic!("{} of {n} requests have arrived", self.count());
        }
        self.requests()
    }
}

impl Drop for Receiver {
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
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (shared, end) = (shared.clone(), end.clone());
        // A connection that breaks is what many tests are about.
        tasks.spawn(async move {
            end.run_until_cancelled(converse(stream, &shared)).await;
        });
    }
}

async fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_head(&mut stream, shared).await? {
        let scripted = shared.scripted.lock().unwrap().pop_front();
        let reads_body = scripted.as_ref().is_none_or(|answer| answer.reads_body);
        if reads_body {
            read_body(&mut stream, &mut request).await?;
        }
        let answer = scripted.unwrap_or_else(|| shared.rule.lock().unwrap()(&request));
        request.answered = answer.act.status();
        record(shared, request)?;
        tokio::time::sleep(answer.delay).await;
        if !act(&mut stream, answer.act, shared).await? {
            return Ok(());
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the receiver has its own clock, as a real one has"
)]
async fn read_head(
    stream: &mut BufReader<TcpStream>,
    shared: &Shared,
) -> io::Result<Option<Recorded>> {
    let mut request_line = String::new();
    if stream.read_line(&mut request_line).await? == 0 {
        return Ok(None);
    }
    let number = shared.heads.fetch_add(1, Ordering::SeqCst) + 1;
    let at = SystemTime::now();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').expect("a header has a colon");
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    Ok(Some(Recorded {
        number,
        at,
        request_line: request_line.trim_end().to_owned(),
        headers,
        body: Vec::new(),
        answered: 0,
    }))
}

async fn read_body(stream: &mut BufReader<TcpStream>, request: &mut Recorded) -> io::Result<()> {
    let length = request.header("content-length").unwrap_or("0");
    let length: usize = length.parse().expect("a length is a number");
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body).await?;
    Ok(())
}

fn record(shared: &Shared, request: Recorded) -> io::Result<()> {
    if let Some(journal) = shared.journal.lock().unwrap().as_mut() {
        let line = json!({
            "number": request.number,
            "headers": request.headers,
            "body": String::from_utf8_lossy(&request.body),
            "answered": request.answered,
        });
        writeln!(journal, "{line}")?;
        journal.sync_data()?;
    }
    shared.recorded.lock().unwrap().push(request);
    shared.count.send_modify(|count| *count += 1);
    Ok(())
}

/// Returns whether the connection takes another request.
async fn act(stream: &mut BufReader<TcpStream>, act: Act, shared: &Shared) -> io::Result<bool> {
    match act {
        Act::Reply(bytes) => {
            stream.write_all(&bytes).await?;
            return Ok(true);
        }
        Act::Dribble(bytes, pause) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(pause).await;
            }
            return Ok(true);
        }
        Act::Close(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            // Unread bytes would turn our FIN into an RST.
            tokio::io::copy(stream, &mut tokio::io::sink()).await?;
        }
        Act::Reset => SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO))?,
        Act::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            std::future::pending().await
        }
        Act::Hang => std::future::pending().await,
        Act::EndlessHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                pour(stream, b"x-filler: and another one\r\n", shared).await?;
            }
        }
        Act::HugeBody(bytes) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let piece = [b'x'; 16 * 1024];
            for _ in 0..bytes / 16 / 1024 {
                pour(stream, &piece, shared).await?;
            }
        }
    }
    Ok(false)
}

async fn pour(stream: &mut BufReader<TcpStream>, piece: &[u8], shared: &Shared) -> io::Result<()> {
    stream.write_all(piece).await?;
    shared.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    Ok(())
}
