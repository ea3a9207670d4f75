//! A way to the server that notices when nobody is there any more. The driver
//! sets no keepalive and cannot be told to; balancers forget a flow that is
//! silent for some minutes, and a long statement is silent. So the driver
//! speaks to a Unix socket of this process, and a pipe carries its bytes to a
//! socket of ours. TLS, inside the pipe, still checks the server's real name.

use super::Keepalive;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::copy;
use tokio::net::{TcpStream, UnixListener, UnixStream, lookup_host};
use tokio_util::task::TaskTracker;

/// How long an address of a host is alone in being tried: a quarter of a second
/// is what [RFC 8305](https://www.rfc-editor.org/rfc/rfc8305#section-5) says.
const HEAD_START: Duration = Duration::from_millis(250);
/// The most addresses of a host that are tried: the last has begun after four
/// seconds, well within the time a connection has.
const MAX_ADDRESSES: usize = 16;

/// The driver comes by a socket in a folder of its own, and there is no place
/// for it.
#[derive(Debug, thiserror::Error)]
#[error("no socket can be made in the folder for temporary files ({0})")]
pub(super) struct NoSocket(io::Error);

/// A connection to the server that waits for the driver to come and use it.
pub(super) struct Forwarder {
    server: TcpStream,
    listener: UnixListener,
    /// Readable by this user alone; gone once the driver has come.
    folder: TempDir,
}

impl Forwarder {
    /// Connects to the server; the driver finds it by [`Self::folder`].
    ///
    /// # Errors
    ///
    /// The host is not known, or nobody answers there; or the folder for
    /// temporary files cannot hold a socket, which is a matter of set-up.
    pub(super) async fn open(
        host: &str,
        port: u16,
        patience: Keepalive,
    ) -> Result<Self, sqlx::Error> {
        let server = dial(host, port).await?;
        keep_alive(&server, patience)?;
        let no_socket = |error| sqlx::Error::Configuration(Box::new(NoSocket(error)));
        let folder = tempfile::Builder::new().prefix("campaignd").tempdir();
        let folder = folder.map_err(no_socket)?;
        let socket = folder.path().join(format!(".s.PGSQL.{port}"));
        let listener = UnixListener::bind(socket).map_err(no_socket)?;
        Ok(Self {
            server,
            listener,
            folder,
        })
    }

    /// Where the driver finds it.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits for the driver, and carries bytes in a task of `tasks` until
    /// either side closes.
    pub(super) async fn serve(self, tasks: &TaskTracker) -> io::Result<()> {
        let (driver, _) = self.listener.accept().await?;
        let server = self.server;
        tasks.spawn(carry(driver, server));
        Ok(())
    }
}

/// Connects to `host` at whichever of its addresses answers first.
///
/// # Errors
///
/// The host is not known, or nobody answers at any of them; if nobody says
/// anything at all, it is the caller's time that ends it.
pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    first_to_answer(lookup_host((host, port)).await?).await
}

/// Tries the addresses in their order, each a little after the one before or
/// as soon as that one is refused, and goes on with all until one answers: an
/// address that is silent takes no time from the others.
async fn first_to_answer(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.take(MAX_ADDRESSES).peekable();
    let mut trying = FuturesUnordered::new();
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        trying.extend(waiting.next().map(TcpStream::connect));
        let ended = match waiting.peek() {
            Some(_) => tokio::time::timeout(HEAD_START, trying.next()).await,
            None => Ok(trying.next().await),
        };
        match ended {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => refused = error,
            Ok(None) => return Err(refused),
            Err(_) => {}
        }
    }
}

/// Whoever closes first closes both: what the driver has dropped is of no use
/// to anybody, and what the server has said to the end is with the driver.
async fn carry(mut driver: UnixStream, mut server: TcpStream) {
    let (mut from_driver, mut to_driver) = driver.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        _ = copy(&mut from_driver, &mut to_server) => {}
        _ = copy(&mut from_server, &mut to_driver) => {}
    }
}

fn keep_alive(stream: &TcpStream, patience: Keepalive) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let seconds = |count: u16| Duration::from_secs(count.into());
    let keepalive = TcpKeepalive::new()
        .with_time(seconds(patience.silence_secs))
        .with_interval(seconds(patience.interval_secs))
        .with_retries(patience.questions.into());
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(seconds(patience.unacknowledged_secs)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_way_out_is_kept_alive_and_both_sides_close_together() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let forwarder = Forwarder::open("localhost", port, Keepalive::default())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&forwarder.server);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(15)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        let path = forwarder.folder().join(format!(".s.PGSQL.{port}"));
        let folder = forwarder.folder().to_owned();
        let tasks = TaskTracker::new();
        let (driver, served) = tokio::join!(UnixStream::connect(path), forwarder.serve(&tasks));
        served.unwrap();
        assert!(!folder.exists(), "only one finds it");
        let mut driver = driver.unwrap();
        driver.write_all(b"question").await.unwrap();
        let mut heard = [0; 8];
        server.read_exact(&mut heard).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        driver.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        tasks.close();
        tasks.wait().await;
    }

    /// An address where nobody answers, for as long as what comes with it is
    /// kept: its queue of connections is full, and the kernel drops packets.
    fn silent_address() -> (SocketAddr, impl Sized) {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        let patience = Duration::from_millis(100);
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, patience) {
            queued.push(stream);
            assert!(queued.len() < 100, "the queue of connections is never full");
        }
        (address, (socket, queued))
    }

    /// An address that refuses.
    fn refusing_address() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_dead_address_does_not_keep_a_host_from_being_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let (silent, _kept) = silent_address();
        let refusing = refusing_address();
        for addresses in [
            vec![silent, good],
            vec![refusing, good],
            vec![silent, refusing, silent, good],
            vec![good, silent],
        ] {
            let found = first_to_answer(addresses.clone().into_iter()).await;
            assert_eq!(found.unwrap().peer_addr().unwrap(), good, "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn a_host_none_of_whose_addresses_answers_says_why() {
        let refused = first_to_answer([refusing_address(); 2].into_iter()).await;
        let kind = refused.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::ConnectionRefused);
        let nowhere = first_to_answer(std::iter::empty()).await;
        let kind = nowhere.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::AddrNotAvailable);
    }
}
