//! A receiver that parses nothing: it finds where a body ends, and says 200.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Bodies, where they are wanted.
type Bodies = Arc<Mutex<Option<Vec<Vec<u8>>>>>;

/// A receiver on a free loopback port, until it is dropped.
pub(crate) struct Receiver {
    port: u16,
    bodies: Bodies,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let bodies = Bodies::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&bodies)));
        Self {
            port,
            bodies,
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

    /// The bodies kept, and no more are.
    pub(crate) fn recorded(&self) -> Vec<Vec<u8>> {
        let mut bodies = self.bodies.lock().expect("nobody panicked");
        bodies.take().unwrap_or_default()
    }
}

async fn accept(listener: TcpListener, bodies: Bodies) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, Arc::clone(&bodies)));
    }
}

/// Answers the requests of one connection until it is closed.
async fn answer(mut stream: TcpStream, bodies: Bodies) {
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
        if let Some(bodies) = bodies.lock().expect("nobody panicked").as_mut() {
            bodies.push(buffer[head..end].to_vec());
        }
        buffer.drain(..end);
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
