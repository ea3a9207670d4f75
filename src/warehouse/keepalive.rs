//! A way to the server that notices when nobody is there any more. The driver
//! sets no keepalive and cannot be told to; balancers forget a flow that is
//! silent for some minutes, and a long statement is silent. So the driver
//! speaks to a Unix socket of this process, and a pipe carries its bytes to a
//! socket of ours. TLS, inside the pipe, still checks the server's real name.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::copy;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

/// How long a connection is silent before it is asked after.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(15);
/// Unanswered questions until it is given up.
const QUESTIONS: u32 = 4;
/// How long sent bytes may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

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
    pub(super) async fn open(host: &str, port: u16) -> Result<Self, sqlx::Error> {
        let server = TcpStream::connect((host, port)).await?;
        keep_alive(&server)?;
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

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(INTERVAL)
        .with_retries(QUESTIONS);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_way_out_is_kept_alive_and_both_sides_close_together() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let forwarder = Forwarder::open("localhost", port).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&forwarder.server);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENCE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), QUESTIONS);
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
}
