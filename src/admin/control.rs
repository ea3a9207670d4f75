//! The control socket: a Unix socket beside the state store that members of
//! its group may write to. A connection carries one request.

use super::message::{Reply, Request};
use super::user::user_name;
use async_trait::async_trait;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The longest request: a scope is the longest thing said.
const MAX_LINE: u64 = 64 * 1024;

/// How long one request may take, both ways.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for the beginning of a run, which waits for its warehouse.
const PATIENCE_TO_BEGIN: Duration = Duration::from_secs(100);

/// The same for what the warehouse must work out.
const PATIENCE_TO_READ: Duration = Duration::from_mins(10);

/// The longest answer: a plan with two members and the statement.
const MAX_ANSWER: u64 = 8 * 1024 * 1024;

/// How long the door rests after it could not be opened, and how long a
/// conversation may outlast the daemon.
const REST: Duration = Duration::from_millis(500);

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 8;

/// Does what is asked.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers `request` of the operating system's user `by`.
    async fn answer(&self, request: Request, by: &str) -> Reply;
}

/// Why the daemon cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens there.
    #[error("no daemon answers at {path}")]
    NobodyThere {
        /// The socket.
        path: String,
    },
    /// One does, and the conversation broke off.
    #[error("the daemon at {path} did not answer: {reason}")]
    BrokenOff {
        /// The socket.
        path: String,
        /// What happened.
        reason: String,
    },
}

/// Listens at `path` until `stop`. A socket that a dead process left there is
/// replaced; one at which somebody answers is not.
pub async fn serve(
    path: &Path,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
) -> io::Result<()> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let why = "something that is no socket is there; name another `control`";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        if let Some(why) = is_alive(path).await {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
    }
    let listener = bind(path)?;
    let ours = identity(path);
    let tasks = TaskTracker::new();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&connections).acquire_owned() => permit,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("a control request could not be taken: {error}");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            },
        };
        let handler = Arc::clone(&handler);
        tasks.spawn(async move {
            let _permit = permit;
            if let Err(error) = converse(stream, handler.as_ref()).await {
                tracing::warn!("a control request broke off: {error}");
            }
        });
    }
    tasks.close();
    // Who is silent now is not waited for.
    drop(tokio::time::timeout(REST, tasks.wait()).await);
    match identity(path) == ours {
        true => std::fs::remove_file(path),
        // Another has taken its place.
        false => Ok(()),
    }
}

/// Why the socket at `path` is not to be replaced, if it is not: nobody
/// listens at one that a dead process has left.
async fn is_alive(path: &Path) -> Option<&'static str> {
    match UnixStream::connect(path).await {
        Ok(_) => {
            Some("a daemon or a run in the foreground listens there; give each its own `control`")
        }
        Err(error) if is_nobody(&error) => None,
        Err(_) => Some(
            "a socket is there that may not be asked whether somebody listens; remove it, or name another `control`",
        ),
    }
}

/// Which file is at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Binds a socket at `path`, in place of what a dead process left there. It is
/// made in a folder that only we may enter, so that nobody connects before it
/// has its mode.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let beside = path.parent().filter(|parent| *parent != Path::new(""));
    // Short names: the path of a socket has hardly over a hundred bytes.
    let private = tempfile::Builder::new()
        .prefix(".c")
        .rand_bytes(4)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(beside.unwrap_or(Path::new(".")))?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, Permissions::from_mode(0o660))?;
    std::fs::rename(&made, path)?;
    Ok(listener)
}

async fn converse(stream: UnixStream, handler: &dyn Handler) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let by = tokio::task::spawn_blocking(move || user_name(uid)).await?;
    let (reading, mut writing) = stream.into_split();
    let line = tokio::time::timeout(PATIENCE, read_line(reading, MAX_LINE)).await??;
    let reply = match serde_json::from_str::<Request>(&line) {
        Ok(request) => {
            let patience = patience(&request);
            tokio::time::timeout(patience, handler.answer(request, &by)).await?
        }
        Err(error) => Reply::Refused(format!("the request is not understood: {error}")),
    };
    let mut line = serde_json::to_string(&reply)?;
    line.push('\n');
    tokio::time::timeout(PATIENCE, writing.write_all(line.as_bytes())).await?
}

/// How long the answer to `request` may take.
fn patience(request: &Request) -> Duration {
    match request {
        Request::Run { .. } | Request::RunMissed { .. } => PATIENCE_TO_BEGIN,
        Request::Plan { .. } | Request::Count { .. } => PATIENCE_TO_READ,
        _ => PATIENCE,
    }
}

/// Asks the daemon that listens at `path`.
pub async fn ask(path: &Path, request: &Request) -> Result<Reply, ControlError> {
    let shown = path.display().to_string();
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Err(ControlError::NobodyThere { path: shown }),
        Err(error) => {
            let reason = error.to_string();
            return Err(ControlError::BrokenOff {
                path: shown,
                reason,
            });
        }
    };
    let conversation = async {
        let (reading, mut writing) = stream.into_split();
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        writing.write_all(line.as_bytes()).await?;
        Ok::<Reply, io::Error>(serde_json::from_str(
            &read_line(reading, MAX_ANSWER).await?,
        )?)
    };
    let broken_off = |reason: String| ControlError::BrokenOff {
        path: shown.clone(),
        reason,
    };
    let patience = PATIENCE + patience(request);
    match tokio::time::timeout(patience, conversation).await {
        Ok(Ok(Reply::NobodyThere)) => Err(ControlError::NobodyThere { path: shown }),
        Ok(answered) => answered.map_err(|error| broken_off(error.to_string())),
        Err(_) => Err(broken_off(format!("nothing came within {patience:?}"))),
    }
}

/// Whether there is no socket, or one that a dead process has left.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    matches!(error.kind(), ConnectionRefused | NotFound | NotADirectory)
}

async fn read_line(from: impl tokio::io::AsyncRead + Unpin, most: u64) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(from.take(most)).read_line(&mut line).await?;
    Ok(line)
}
