//! A few connections, shared. Ours rather than the driver's, because a
//! connection is handed back only by who has read its answer to the end, and
//! because a refused login is reported at once.

use super::ConnectorOptions;
use super::connect::{Connection, Rows, statement_limit};
use super::errors::{at_statement, error, too_slow};
use super::label::{label, purpose};
use super::login::Logins;
use crate::audience::{Column, Dialect, Statement};
use crate::run::{WarehouseError, WarehouseErrorClass};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long to wait for a connection to come free.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(30);
/// How long one may lie unused: Redshift Serverless bills what is open.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// How long one may be used: less than a temporary credential lives.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// After how long it is asked whether it is still there.
const TRUST: Duration = Duration::from_secs(2);
/// How long saying goodbye to the server may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How much longer than the warehouse itself we wait for it to give up.
const SLACK: Duration = Duration::from_secs(10);

/// The connections of one connector.
pub(super) struct Pool {
    options: ConnectorOptions,
    permits: Arc<Semaphore>,
    /// A blocking mutex: held for a push or a pop, never across an await.
    shelf: Mutex<Shelf>,
    /// What carries bytes, what cancels statements nobody waits for, and what
    /// closes connections nobody uses.
    tasks: TaskTracker,
    /// Ends the last of these with the pool.
    end: CancellationToken,
    logins: Logins,
    /// How many statements are being cancelled.
    cancelling: watch::Sender<usize>,
}

/// The connections that are not in use.
#[derive(Default)]
struct Shelf {
    idle: Vec<Idle>,
    /// Whether a task closes them when their time is over. There is one while
    /// there is anything here.
    is_watched: bool,
}

struct Idle {
    connection: Connection,
    born: Instant,
    since: Instant,
    label: String,
    /// The server's number for it.
    pid: Option<i32>,
}

impl Pool {
    /// Of at most `size` connections, none of them made yet.
    pub(super) fn new(options: ConnectorOptions, size: usize) -> Arc<Self> {
        Arc::new(Self {
            options,
            permits: Arc::new(Semaphore::new(size)),
            shelf: Mutex::default(),
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
            logins: Logins::default(),
            cancelling: watch::Sender::new(0),
        })
    }

    /// A connection for a sequence of statements.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Session, WarehouseError> {
        let permit = tokio::time::timeout(ACQUIRE_LIMIT, Arc::clone(&self.permits).acquire_owned());
        let Ok(Ok(permit)) = permit.await else {
            let message = "no connection to the warehouse came free in 30 s; raise `max_queries`";
            return Err(error(WarehouseErrorClass::Busy, message));
        };
        let idle = match self.reuse().await {
            Some(idle) => idle,
            None => self.connect().await?,
        };
        Ok(Session {
            born: idle.born,
            label: idle.label,
            pool: Arc::clone(self),
            flight: Flight {
                pool: Arc::clone(self),
                in_use: Some(InUse {
                    connection: idle.connection,
                    pid: idle.pid,
                    in_transaction: false,
                    _permit: permit,
                }),
                commits: false,
                is_under_way: false,
            },
        })
    }

    async fn connect(&self) -> Result<Idle, WarehouseError> {
        let mut connection = Connection::open(&self.options, &self.logins, &self.tasks).await?;
        let ask = Statement::new("session", "pid", "");
        let pid = in_time(SLACK, &ask, connection.pid()).await?;
        Ok(Idle {
            connection,
            born: Instant::now(),
            since: Instant::now(),
            label: String::new(),
            pid,
        })
    }

    /// Cancels, from a connection of its own, what the session `pid` is doing
    /// for nobody any more, and waits until its server has said that it is
    /// done. Where it fails, the time limit of the statement ends it.
    async fn cancel(self: Arc<Self>, mut abandoned: Abandoned) {
        let cancelling = async {
            let (Some(pid), how) = (abandoned.pid, abandoned.how()) else {
                return Ok(Rows::new());
            };
            let mut connection = Connection::open(&self.options, &self.logins, &self.tasks).await?;
            let cancel = Statement::new("cancel", "session", &format!("select {how}({pid})"));
            in_time(SLACK, &cancel, connection.rows(&cancel)).await
        };
        let cancelled = cancelling.await.is_ok();
        if cancelled {
            // Its answer, which is that it was cancelled, ends the connection.
            let ended = abandoned.connection.is_alive();
            drop(tokio::time::timeout(SLACK, ended).await);
        }
        drop(abandoned);
        self.cancelling.send_modify(|count| *count -= 1);
    }

    /// Waits, for a bounded time, until what was given up has ended: a table
    /// that is being made is not there to be dropped.
    pub(super) async fn none_given_up(&self) {
        let mut cancelling = self.cancelling.subscribe();
        let none = cancelling.wait_for(|count| *count == 0);
        drop(tokio::time::timeout(SLACK, none).await);
    }

    async fn reuse(&self) -> Option<Idle> {
        loop {
            let mut idle = self.youngest()?;
            if idle.since.elapsed() < TRUST {
                return Some(idle);
            }
            let alive = tokio::time::timeout(SLACK, idle.connection.is_alive()).await;
            if alive == Ok(true) {
                return Some(idle);
            }
        }
    }

    fn youngest(&self) -> Option<Idle> {
        let mut shelf = self.shelf();
        let now = Instant::now();
        // The task that closes them may be a little late.
        shelf.idle.retain(|idle| now < idle.until());
        shelf.idle.pop()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_by(self: &Arc<Self>, idle: Idle) {
        let mut shelf = self.shelf();
        shelf.idle.push(idle);
        if !std::mem::replace(&mut shelf.is_watched, true) {
            let watching = close_unused(Arc::downgrade(self), self.end.clone());
            self.tasks.spawn(watching);
        }
    }

    /// When the first of the unused connections is to be closed. None where
    /// there are none: then nobody watches any more.
    fn first_end(&self) -> Option<Instant> {
        let mut shelf = self.shelf();
        let first = shelf.idle.iter().map(Idle::until).min();
        shelf.is_watched = first.is_some();
        first
    }

    fn take_ended(&self) -> Vec<Idle> {
        let now = Instant::now();
        let mut shelf = self.shelf();
        shelf
            .idle
            .extract_if(.., |idle| idle.until() <= now)
            .collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Idle {
    /// When it is to be closed.
    fn until(&self) -> Instant {
        (self.since + IDLE_LIMIT).min(self.born + LIFETIME)
    }
}

/// Closes the connections of `pool` that nobody has used for long, each when
/// its time is over, until none are left or `end` is called.
async fn close_unused(pool: Weak<Pool>, end: CancellationToken) {
    while let Some(first) = pool.upgrade().and_then(|pool| pool.first_end()) {
        let waited = end.run_until_cancelled(tokio::time::sleep_until(first));
        if waited.await.is_none() {
            return;
        }
        let ended = pool.upgrade().map(|pool| pool.take_ended());
        for idle in ended.unwrap_or_default() {
            // Where the server does not hear it, closing the socket must do.
            drop(tokio::time::timeout(GOODBYE, idle.connection.close()).await);
        }
    }
}

/// A connection in use. Handed back, it is used again; dropped, it is closed,
/// and with it whatever was under way: after any error the server rolls back.
pub(super) struct Session {
    born: Instant,
    /// What Redshift files its statements under; empty: nothing yet.
    label: String,
    pool: Arc<Pool>,
    flight: Flight,
}

/// A connection and what it may be at.
struct InUse {
    connection: Connection,
    /// The server's number for it.
    pid: Option<i32>,
    /// Whether a transaction is open, as far as the server has said.
    in_transaction: bool,
    _permit: OwnedSemaphorePermit,
}

/// A connection that nobody waits for any more.
type Abandoned = InUse;

impl Abandoned {
    /// What ends it. Redshift cancels nothing within a transaction, and a
    /// server that has not heard that we are gone keeps it open, and what it
    /// has locked, when only its statement is ended.
    fn how(&self) -> &'static str {
        match self.in_transaction {
            true => "pg_terminate_backend",
            false => "pg_cancel_backend",
        }
    }
}

/// Whether the server may be at work for this session. Where it is when this
/// is dropped, the statement is cancelled: a server notices a closed
/// connection only when it has something to say.
struct Flight {
    pool: Arc<Pool>,
    /// None once it is handed back.
    in_use: Option<InUse>,
    /// Whether what is under way is the commit of its transaction.
    commits: bool,
    is_under_way: bool,
}

impl Flight {
    fn in_use(&mut self) -> &mut InUse {
        let in_use = self.in_use.as_mut();
        in_use.expect("a session that was handed back is gone")
    }

    fn connection(&mut self) -> &mut Connection {
        &mut self.in_use().connection
    }

    /// Notes how a statement ended: only what the server said itself tells
    /// that it is done.
    fn landed<T>(&mut self, result: Result<T, WarehouseError>) -> Result<T, WarehouseError> {
        self.is_under_way = matches!(&result, Err(error) if error.code.is_none());
        if self.commits && result.is_ok() {
            self.in_use().in_transaction = false;
        }
        result
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(abandoned) = self.in_use.take().filter(|_| self.is_under_way) else {
            return;
        };
        abandoned.connection.interrupt();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.pool.cancelling.send_modify(|count| *count += 1);
            let cancel = Arc::clone(&self.pool).cancel(abandoned);
            self.pool.tasks.spawn_on(cancel, &runtime);
        }
    }
}

impl Session {
    /// Runs a statement for its effect.
    pub(super) async fn run(&mut self, statement: &Statement) -> Result<(), WarehouseError> {
        self.announce(statement).await?;
        let limit = self.limit();
        self.flight.is_under_way = true;
        let done = in_time(limit, statement, self.flight.connection().run(statement)).await;
        self.flight.landed(done)
    }

    /// Runs statements for their effect, in order.
    pub(super) async fn run_all(&mut self, script: &[Statement]) -> Result<(), WarehouseError> {
        for statement in script {
            self.run(statement).await?;
        }
        Ok(())
    }

    /// Runs a statement for its few rows.
    pub(super) async fn rows(&mut self, statement: &Statement) -> Result<Rows, WarehouseError> {
        self.announce(statement).await?;
        let limit = self.limit();
        self.flight.is_under_way = true;
        let done = in_time(limit, statement, self.flight.connection().rows(statement)).await;
        self.flight.landed(done)
    }

    /// Runs a statement for its columns: see [`Connection::header`].
    pub(super) async fn header(
        &mut self,
        statement: &Statement,
    ) -> Result<Vec<Column>, WarehouseError> {
        self.announce(statement).await?;
        let limit = self.limit();
        self.flight.is_under_way = true;
        let done = in_time(limit, statement, self.flight.connection().header(statement)).await;
        self.flight.landed(done)
    }

    /// Tells Redshift for which run `statement` is, where that is news; never
    /// inside a transaction, whose first statement has to be its lock.
    async fn announce(&mut self, statement: &Statement) -> Result<(), WarehouseError> {
        let Some((step, what)) = purpose(statement) else {
            return Ok(());
        };
        let label = label(what);
        let is_redshift = self.pool.options.dialect() == Dialect::Redshift;
        if is_redshift && !self.flight.in_use().in_transaction && label != self.label {
            let set = format!("set query_group to '{label}'");
            let set = Statement::new("label", what, &set);
            in_time(self.limit(), &set, self.flight.connection().run(&set)).await?;
            self.label = label;
        }
        self.flight.commits = step == "commit";
        self.flight.in_use().in_transaction |= step == "begin";
        Ok(())
    }

    /// Reads rows as they come, by `reading`, within the time a statement has.
    pub(super) async fn read<T>(
        &mut self,
        statement: &Statement,
        reading: impl AsyncFnOnce(&mut Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T, WarehouseError> {
        self.announce(statement).await?;
        let limit = self.limit();
        self.flight.is_under_way = true;
        let done = in_time(limit, statement, reading(self.flight.connection())).await;
        self.flight.landed(done)
    }

    /// The longest a statement may take, as we see it.
    fn limit(&self) -> Duration {
        statement_limit(&self.pool.options) + SLACK
    }

    /// Ends the connection, as who is about to leave does: SQLite takes away
    /// the files beside a database when the last one is closed.
    pub(super) async fn close(mut self) {
        if let Some(in_use) = self.flight.in_use.take() {
            drop(tokio::time::timeout(GOODBYE, in_use.connection.close()).await);
        }
    }

    /// Gives the connection back, its last answer read and no transaction open.
    pub(super) fn hand_back(mut self) {
        let Some(in_use) = self.flight.in_use.take() else {
            return;
        };
        self.pool.put_by(Idle {
            connection: in_use.connection,
            born: self.born,
            since: Instant::now(),
            label: self.label,
            pid: in_use.pid,
        });
    }
}

/// Bounds `work`, which is `statement` being run.
async fn in_time<T>(
    limit: Duration,
    statement: &Statement,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, WarehouseError> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(failure)) => Err(at_statement(&failure, statement)),
        Err(_) => Err(too_slow(limit)),
    }
}
