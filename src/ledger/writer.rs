//! The one writer: takes the writes that wait, does them in one transaction,
//! and makes them durable with one sync for all.

use super::bundle::{Step, steps};
use super::command::{Command, Failure, Written};
use super::journal::{Journal, Waiting as Unfolded};
use super::lock::StoreLock;
use super::trouble;
use crate::run::LedgerError;
use async_trait::async_trait;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Writes that may wait. A writer that falls behind makes its callers wait,
/// and so slows sending instead of filling memory.
const MAX_WAITING: usize = 1024;

/// Writes in one transaction: enough to make the sync's share of each small,
/// few enough that none waits long for its neighbours.
const MAX_GROUP: usize = 512;

/// So many writes in the group before show that others are close behind.
const BUSY_GROUP: usize = 16;

/// How long the writer then waits for them, instead of making each few durable
/// by themselves: what PostgreSQL calls `commit_delay`. Nothing is sent later
/// for it, since as many as may be ready are written ahead; any other write that
/// comes meanwhile waits as long.
const GATHER: Duration = Duration::from_millis(1);

pub(super) type Answer = Result<Written, LedgerError>;

/// A write, and who waits for it.
pub(super) struct Waiting {
    pub(super) command: Command,
    answer: oneshot::Sender<Answer>,
}

/// What the writer's task owns: the one connection that writes.
#[async_trait]
pub(super) trait Store: Send + 'static {
    /// An answer for each of `group`, once all that succeeded are durable.
    async fn write_group(&mut self, group: &[Waiting]) -> Vec<Answer>;

    /// Tidies up after the last group.
    async fn close(self);
}

/// The door to the writer's task.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Waiting>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Writer {
    /// Starts the task. It keeps `store` until the last write is done.
    pub(super) fn start(store: impl Store) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(write(store, waiting, closing.clone()));
        tasks.close();
        Self {
            queue,
            closing,
            tasks,
        }
    }

    /// Does `command` and returns when it is durable. It is done also when
    /// nobody waits for the answer any more.
    pub(super) async fn submit(&self, command: Command) -> Answer {
        let (answer, done) = oneshot::channel();
        let closed = || LedgerError::Unusable {
            message: "it has been closed".to_owned(),
        };
        let waiting = Waiting { command, answer };
        self.queue.send(waiting).await.map_err(|_| closed())?;
        done.await.map_err(|_| closed())?
    }

    /// Takes no more writes, does those that wait, and gives back the store.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }
}

/// The store in a file, and the lock beside it.
pub(super) struct SqliteStore {
    /// None after a failure: the next group opens a new one.
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    journal: Journal,
    _lock: StoreLock,
}

/// The answers to a group of which nothing is refused.
pub(super) fn all_done(group: &[Waiting]) -> Vec<Answer> {
    group.iter().map(|_| Ok(Written::default())).collect()
}

/// Puts a refusal wherever `judge` finds one.
pub(super) fn refuse<T>(
    answers: &mut [Answer],
    writes: Vec<(usize, T)>,
    mut judge: impl FnMut(T) -> Result<(), LedgerError>,
) {
    for (place, write) in writes {
        if let Err(error) = judge(write) {
            answers[place] = Err(error);
        }
    }
}

async fn write(
    mut store: impl Store,
    mut queue: mpsc::Receiver<Waiting>,
    closing: CancellationToken,
) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    let mut is_busy = false;
    loop {
        let count = tokio::select! {
            biased;
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
            count = queue.recv_many(&mut group, MAX_GROUP) => count,
        };
        if count == 0 {
            break;
        }
        if is_busy && count < MAX_GROUP {
            tokio::time::sleep(GATHER).await;
            let more = std::iter::from_fn(|| queue.try_recv().ok());
            group.extend(more.take(MAX_GROUP - count));
        }
        is_busy = group.len() >= BUSY_GROUP;
        let answers = store.write_group(&group).await;
        for (waiting, answer) in group.drain(..).zip(answers) {
            // Who no longer waits has been told by their own cancellation.
            drop(waiting.answer.send(answer));
        }
    }
    store.close().await;
}

#[async_trait]
impl Store for SqliteStore {
    async fn write_group(&mut self, group: &[Waiting]) -> Vec<Answer> {
        match self.try_group(group).await {
            Ok(answers) => answers,
            Err(error) => {
                // What the connection knows of the file can be stale after a
                // failed write; a new one reads it from the disk.
                self.connection = None;
                self.journal.doubt();
                let error = trouble::unusable(error);
                group.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            // Everything answered is durable already; closing only tidies up.
            drop(connection.close().await);
        }
    }
}

impl SqliteStore {
    pub(super) fn new(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        unfolded: Unfolded,
        lock: StoreLock,
    ) -> Self {
        Self {
            connection: Some(connection),
            options,
            journal: Journal::new(unfolded),
            _lock: lock,
        }
    }

    async fn try_group(&mut self, group: &[Waiting]) -> Result<Vec<Answer>, sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(SqliteConnection::connect_with(&self.options).await?),
        };
        let mut transaction = connection.begin_with("begin immediate").await?;
        let mut answers = all_done(group);
        let journal = &mut self.journal;
        for step in steps(group.iter().map(|waiting| &waiting.command)) {
            match step {
                Step::One(place, command) => {
                    journal.make_way(&mut transaction, command).await?;
                    match command.apply(&mut transaction).await {
                        Err(Failure::Database(error)) => return Err(error),
                        Err(Failure::Refused(error)) => answers[place] = Err(error),
                        Ok(written) => {
                            journal.done(command);
                            answers[place] = Ok(written);
                        }
                    }
                }
                Step::First(attempts) => {
                    let begin = journal.begin(&mut transaction, attempts, &mut answers);
                    begin.await?;
                }
                Step::Changes(changes) => {
                    let change = journal.change(&mut transaction, changes, &mut answers);
                    change.await?;
                }
            }
        }
        journal.tidy(&mut transaction).await?;
        transaction.commit().await?;
        journal.committed();
        Ok(answers)
    }
}
