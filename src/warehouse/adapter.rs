//! The port met: each of its steps is one function of `staging` or `book`.

use super::ConnectorOptions;
use super::apart::Apart;
use super::cells::Layout;
use super::pool::{Pool, Session};
use crate::audience::{Dialect, FreshWhen, Funnel, Schema, ShownContacts, Statement};
use crate::history::{
    Closing, Remains, Retention, RunFacts, Settlement, SilentRun, Tally, Tidied, UnstartedRun,
    Withheld,
};
use crate::id::RunId;
use crate::run::{Page, Registration, Warehouse, WarehouseError};
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use uuid::Uuid;

/// A warehouse behind sqlx.
pub(super) struct SqlWarehouse {
    pub(super) schema: Schema,
    pub(super) pool: Arc<Pool>,
    /// Taken before a transaction under `cap_lock`, so that waiting for it
    /// costs the warehouse nothing.
    pub(super) cap_turn: Arc<tokio::sync::Mutex<()>>,
    /// The same for `settle_lock`. For SQLite, which has one writer, it is
    /// the same mutex.
    pub(super) settle_turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether SQLite's tables have been made: nobody else would.
    ready: OnceCell<()>,
    /// What the run tables of open runs look like; at most
    /// [`MAX_LAYOUTS`]. A blocking mutex: never held across an await.
    pub(super) layouts: Mutex<HashMap<RunId, Arc<Layout>>>,
    /// The tables that are named as those of runs, and since when they have
    /// been seen: what is of no run is dropped by its age. A blocking mutex:
    /// never held across an await.
    pub(super) tables_seen: Mutex<HashMap<String, Instant>>,
    /// Whether history is elsewhere: only a run's own tables are here.
    pub(super) only_audiences: bool,
    /// Where contacts are counted, if history is elsewhere.
    pub(super) shown: Option<ShownContacts>,
    /// What follows the name of a run's table in `open_runs`; empty where the
    /// table is here too.
    pub(super) mark: String,
}

/// The most layouts kept; they are read again when needed.
pub(super) const MAX_LAYOUTS: usize = 1_024;

/// Connections beside those of the audience side: one to settle, one to close
/// and to look.
const EXTRA_CONNECTIONS: usize = 2;

/// The warehouse of a connector. Connects when it is first asked for
/// something.
pub fn open(options: ConnectorOptions) -> Result<Arc<dyn Warehouse>, WarehouseError> {
    Ok(match options.apart().cloned() {
        None => Arc::new(SqlWarehouse::new(options)),
        Some(apart) => Arc::new(Apart::new(options, apart)),
    })
}

impl SqlWarehouse {
    pub(super) fn new(options: ConnectorOptions) -> Self {
        let schema = Schema {
            dialect: options.dialect(),
            name: match &options {
                ConnectorOptions::Sqlite { .. } => String::new(),
                ConnectorOptions::Server(server) => server.schema.clone(),
            },
        };
        let apart = options.apart().cloned();
        let queries = usize::try_from(options.max_queries().get()).unwrap_or(usize::MAX / 2);
        let cap_turn = Arc::new(tokio::sync::Mutex::new(()));
        let settle_turn = match schema.dialect {
            Dialect::Sqlite => Arc::clone(&cap_turn),
            Dialect::Postgres | Dialect::Redshift => Arc::new(tokio::sync::Mutex::new(())),
        };
        Self {
            schema,
            pool: Pool::new(options, queries.min(1_000) + EXTRA_CONNECTIONS),
            cap_turn,
            settle_turn,
            only_audiences: apart.is_some(),
            shown: apart
                .and_then(|apart| apart.relation)
                .map(|relation| ShownContacts {
                    relation,
                    under_way: Vec::new(),
                }),
            mark: String::new(),
            tables_seen: Mutex::new(HashMap::new()),
            ready: OnceCell::new(),
            layouts: Mutex::new(HashMap::new()),
        }
    }

    /// The same for runs whose own tables are elsewhere: `mark` says where.
    pub(super) fn marking(self, mark: String) -> Self {
        Self { mark, ..self }
    }

    /// Makes SQLite's tables, once. A server's are made by an administrator.
    pub(super) async fn prepare(&self) -> Result<(), WarehouseError> {
        if self.schema.dialect != Dialect::Sqlite {
            return Ok(());
        }
        let making = || async { self.apply().await.map(drop) };
        self.ready.get_or_try_init(making).await.map(drop)
    }

    /// The turn a step takes that writes much and locks nothing: only SQLite
    /// needs one.
    pub(super) async fn writer_turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match self.schema.dialect {
            Dialect::Sqlite => Some(self.cap_turn.lock().await),
            Dialect::Postgres | Dialect::Redshift => None,
        }
    }

    /// Which of `tables` are there.
    pub(super) async fn existing(
        &self,
        session: &mut Session,
        what: &str,
        tables: &[&str],
    ) -> Result<Vec<String>, WarehouseError> {
        first_column(session, &self.schema.existing(what, tables)).await
    }
}

/// The first cell of each row.
pub(super) async fn first_column(
    session: &mut Session,
    statement: &Statement,
) -> Result<Vec<String>, WarehouseError> {
    let rows = session.rows(statement).await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect())
}

#[async_trait]
impl Warehouse for SqlWarehouse {
    fn dialect(&self) -> Dialect {
        self.schema.dialect
    }

    async fn ping(&self) -> Result<(), WarehouseError> {
        self.look_at_tables().await
    }

    async fn newest_data(
        &self,
        run: &RunFacts,
        fresh_when: &FreshWhen,
    ) -> Result<Option<Timestamp>, WarehouseError> {
        self.newest(run, fresh_when).await
    }

    async fn register(&self, run: &RunFacts) -> Result<Registration, WarehouseError> {
        self.register_run(run).await
    }

    async fn freeze(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.freeze_audience(run).await
    }

    async fn admit(&self, run: &RunFacts) -> Result<Funnel, WarehouseError> {
        self.admit_members(run).await
    }

    async fn lay_out(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.lay_out_members(run).await
    }

    async fn page(
        &self,
        run: &RunFacts,
        places: (u64, u64),
        most_bytes: usize,
    ) -> Result<Page, WarehouseError> {
        self.read_members(run, places, most_bytes).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Tally>, WarehouseError> {
        self.settle_batches(settlements, None).await
    }

    async fn close(&self, closing: &Closing) -> Result<Tally, WarehouseError> {
        self.close_run(closing, None).await
    }

    async fn record_unstarted(&self, runs: &[UnstartedRun]) -> Result<(), WarehouseError> {
        self.write_unstarted(runs).await
    }

    async fn touch(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.touch_run(run).await
    }

    async fn silent_runs(&self, older_than: Duration) -> Result<Vec<SilentRun>, WarehouseError> {
        self.runs_not_seen(older_than).await
    }

    async fn adopt(
        &self,
        silent: &SilentRun,
        by: Uuid,
        older_than: Duration,
    ) -> Result<Option<Remains>, WarehouseError> {
        self.adopt_run(silent, by, older_than, None).await
    }

    async fn withhold(
        &self,
        run: &RunFacts,
        from: u32,
        except: &[u32],
    ) -> Result<(), WarehouseError> {
        self.withhold_members(run, from, except).await
    }

    async fn withheld(&self, run: &RunFacts) -> Result<Withheld, WarehouseError> {
        self.members_withheld(run).await
    }

    async fn reopen(
        &self,
        run: &RunFacts,
        funnel: &Funnel,
        known: &Tally,
        resends: bool,
    ) -> Result<Tally, WarehouseError> {
        self.reopen_run(run, funnel, known, resends, None).await
    }

    async fn forget_unstaged(&self, run: &RunFacts) -> Result<(), WarehouseError> {
        self.forget_run(run).await.map(drop)
    }

    async fn tidy(
        &self,
        keep: Retention,
        except: Option<&RunId>,
    ) -> Result<Tidied, WarehouseError> {
        self.tidy_up(keep, except, None).await
    }

    async fn has_run(&self, run: &RunId) -> Result<bool, WarehouseError> {
        self.is_known(run).await
    }
}
