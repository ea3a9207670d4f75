//! A receiver that parses nothing: it finds where a body ends, and says 200.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Bodies with when they came, where they are wanted.
type Bodies = Arc<Mutex<Option<Vec<(Instant, Vec<u8>)>>>>;

#[derive(Clone, Default)]
struct Counts {
    /// Milliseconds before an answer.
    delay: Arc<AtomicU64>,
    /// Requests that came since they were last asked for.
    requests: Arc<AtomicU64>,
}

/// A receiver on a free loopback port, until it is dropped.
pub(crate) struct Receiver {
    port: u16,
    bodies: Bodies,
    counts: Counts,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let bodies = Bodies::default();
        let mut tasks = JoinSet::new();
        let counts = Counts::default();
        tasks.spawn(accept(listener, Arc::clone(&bodies), counts.clone()));
        Self {
            port,
            bodies,
            counts,
            _tasks: tasks,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Keeps the bodies from now on.
    pub(crate) fn record(&self) {
        *self.bodies.lock().expect("nobody panicked") = Some(Vec::new());
    }

    /// Answers this much later from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).expect("a short delay");
        self.counts.delay.store(millis, Ordering::Relaxed);
    }

    /// Requests that came since they were last asked for.
    pub(crate) fn take_requests(&self) -> u64 {
        self.counts.requests.swap(0, Ordering::Relaxed)
    }

    /// Requests in a second, from the first that was kept to the last.
    pub(crate) fn rate(&self) -> f64 {
        let bodies = self.bodies.lock().expect("nobody panicked");
        let bodies = bodies.as_deref().unwrap_or_default();
        let (first, last) = (bodies.first(), bodies.last());
        let (first, last) = first.zip(last).expect("something came");
        bodies.len() as f64 / (last.0 - first.0).as_secs_f64()
    }

    /// The bodies kept, and no more are.
    pub(crate) fn recorded(&self) -> Vec<Vec<u8>> {
        let mut bodies = self.bodies.lock().expect("nobody panicked");
        let bodies = bodies.take().unwrap_or_default();
        bodies.into_iter().map(|(_, body)| body).collect()
    }
}

async fn accept(listener: TcpListener, bodies: Bodies, counts: Counts) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, Arc::clone(&bodies), counts.clone()));
    }
}

/// Answers the requests of one connection until it is closed.
async fn answer(mut stream: TcpStream, bodies: Bodies, counts: Counts) {
    stream.set_nodelay(true).expect("a TCP socket");
    let mut buffer = Vec::with_capacity(256 * 1024);
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        };
        let end = head + content_length(&buffer[..head]);
        while buffer.len() < end {
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        }
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(bodies) = bodies.lock().expect("nobody panicked").as_mut() {
            bodies.push((Instant::now(), buffer[head..end].to_vec()));
        }
        buffer.drain(..end);
        let delay = Duration::from_millis(counts.delay.load(Ordering::Relaxed));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
