//! A place where the built program runs for real: its files, its warehouse on
//! PostgreSQL or SQLite, its receiver.

use super::gate::Gate;
use super::postgres::{ConnDetails, Postgres};
use super::receiver::Receiver;
use super::redshift_gate::{PASSWORD, statements};
use super::redshift_gate_words::words;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Row as _, raw_sql};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Signs what the tests send to themselves.
pub const SIGNING_SECRET: &str = "whsec_Y2FtcGFpZ25kLXRlc3Qtc2lnbmluZy1rZXktMzI=";

/// What the daemon finds behind its connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// PostgreSQL.
    Postgres,
    /// PostgreSQL behind a gate that injects faults.
    Gate,
    /// A gate that passes for Redshift, and injects faults.
    Redshift,
}

/// Runs each test, which takes a [`World`], in two of them.
#[macro_export]
macro_rules! in_both_worlds {
    ($one:ident $($name:ident)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name($crate::support::site::World::$one).await;
            })*
        }
        mod redshift {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name($crate::support::site::World::Redshift).await;
            })*
        }
    };
}

/// A row, by column; every value as text.
pub type TextRow = BTreeMap<String, Option<String>>;

/// Files, warehouse, receiver. All gone when it is dropped.
pub struct Site {
    dir: TempDir,
    warehouse: Warehouse,
    /// The database behind the connector `books`, where history is apart.
    books: Option<(ConnDetails, Option<Gate>)>,
    pub receiver: Receiver,
}

enum Warehouse {
    Postgres {
        _server: Box<Postgres>,
        database: ConnDetails,
        /// What the daemon connects through; the tests look past it.
        gate: Option<Gate>,
    },
    /// `warehouse.db` of the site.
    Sqlite,
}

impl Site {
    /// A warehouse without tables of ours, and an operator's file that names
    /// it `warehouse` and the receiver `sink`.
    pub async fn new(name: &str) -> Self {
        let server = Postgres::start();
        let database = server.database(name);
        let _server = Box::new(server);
        let gate = None;
        Self::with(Warehouse::Postgres {
            _server,
            database,
            gate,
        })
        .await
    }

    /// The same with a gate between the daemon and its warehouse.
    pub async fn behind_gate(name: &str) -> Self {
        let server = Postgres::start();
        let database = server.database(name);
        let gate = Some(Gate::open(&database).await);
        let _server = Box::new(server);
        Self::with(Warehouse::Postgres {
            _server,
            database,
            gate,
        })
        .await
    }

    /// The same, and what the daemon sees is Redshift.
    pub async fn on_redshift(name: &str) -> Self {
        let server = Postgres::start();
        let database = server.database(name);
        let gate = Some(Gate::redshift(&database).await);
        let _server = Box::new(server);
        Self::with(Warehouse::Postgres {
            _server,
            database,
            gate,
        })
        .await
    }

    /// A site in one of the worlds that a server's tests are run in.
    pub async fn of(world: World, name: &str) -> Self {
        match world {
            World::Postgres => Self::new(name).await,
            World::Gate => Self::behind_gate(name).await,
            World::Redshift => Self::on_redshift(name).await,
        }
    }

    /// The same with history in a database of its own, behind a connector
    /// `books`: on the same server, and of the same kind. What history there
    /// is can be read beside the audience as `share.contact_history`.
    pub async fn apart(world: World, name: &str) -> Self {
        let mut site = Self::of(world, name).await;
        let books = site.another_database(&format!("{name}_books"));
        let gate = match world {
            World::Postgres => None,
            World::Gate => Some(Gate::open(&books).await),
            World::Redshift => Some(Gate::redshift(&books).await),
        };
        site.books = Some((books, gate));
        site.write("campaignd.yaml", &site.settings());
        for connector in ["warehouse", "books"] {
            let output = site.campaignd(&["bootstrap", connector, "--apply"]).await;
            assert!(output.status.success(), "{output:?}");
        }
        site.share_history().await;
        site
    }

    /// What a data share does, on PostgreSQL.
    async fn share_history(&self) {
        let ConnDetails {
            host,
            port,
            user,
            database,
        } = &self.books.as_ref().unwrap().0;
        for sql in [
            "create extension postgres_fdw",
            &format!(
                "create server books foreign data wrapper postgres_fdw \
                 options (host '{host}', port '{port}', dbname '{database}')"
            ),
            &format!("create user mapping for {user} server books options (user '{user}')"),
            "create schema share",
            "import foreign schema campaignd limit to (contact_history) from server books into share",
        ] {
            self.sql(sql).await;
        }
    }

    /// The gate before history, of a site apart.
    pub fn books_gate(&self) -> &Gate {
        let gate = self.books.as_ref().and_then(|(_, gate)| gate.as_ref());
        gate.expect("history has no gate")
    }

    /// Fails if anything of the daemon's was refused because Redshift refuses
    /// it, or a prepared statement was left open.
    pub fn check_gate(&self) {
        let warehouse = match &self.warehouse {
            Warehouse::Postgres { gate, .. } => gate.as_ref(),
            Warehouse::Sqlite => None,
        };
        let books = self.books.as_ref().and_then(|(_, gate)| gate.as_ref());
        for gate in warehouse.into_iter().chain(books) {
            assert_eq!(gate.refused(), [], "what Redshift would refuse");
            assert_eq!(gate.prepared(), 0, "statements left prepared");
            // A data share takes one statement a message, and no more.
            let log = gate.log();
            let several = log.iter().find(|ended| is_several(&ended.sql));
            assert_eq!(several.map(|ended| &ended.sql), None);
        }
    }

    /// The gate of a site behind one.
    pub fn gate(&self) -> &Gate {
        match &self.warehouse {
            Warehouse::Postgres {
                gate: Some(gate), ..
            } => gate,
            _ => panic!("the site has no gate"),
        }
    }

    /// The same with the warehouse in a file, which needs no server.
    pub async fn sqlite() -> Self {
        Self::with(Warehouse::Sqlite).await
    }

    async fn with(warehouse: Warehouse) -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            warehouse,
            books: None,
            receiver: Receiver::start().await,
        };
        std::fs::create_dir(site.dir.path().join("campaigns")).unwrap();
        site.write("campaignd.yaml", &site.settings());
        site
    }

    /// The folder of its files.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn connectors(&self) -> String {
        let Warehouse::Postgres { database, gate, .. } = &self.warehouse else {
            return "warehouse: { kind: sqlite, path: ./warehouse.db }".to_owned();
        };
        let warehouse = connector(database, gate.as_ref());
        match &self.books {
            None => format!("warehouse: {{ {warehouse} }}"),
            Some((database, gate)) => format!(
                "warehouse: {{ {warehouse}, history: books, \
                 history_relation: share.contact_history }}\n  books: {{ {} }}",
                connector(database, gate.as_ref())
            ),
        }
    }

    /// The operator's file.
    pub fn settings(&self) -> String {
        let connectors = self.connectors();
        let url = self.receiver.url();
        format!(
            "campaigns: ./campaigns
state: {{ url: 'sqlite://./state.db' }}
connectors:
  {connectors}
destinations:
  sink:
    url: {url}
    channel: email
    signing_secrets: [ '{SIGNING_SECRET}' ]
    timeout: 2s
    retry: {{ initial: 50ms, max: 1s }}
    dedupe_window: 24h
    allow_http: true
    allow_private_network: true
log: {{ format: json, level: debug }}
"
        )
    }

    /// Writes a file of the site, whole.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs the program to its end.
    pub async fn campaignd(&self, args: &[&str]) -> Output {
        self.command(args).output().await.unwrap()
    }

    /// Runs the program to its end, which must be a good one, and returns what
    /// it printed as JSON.
    pub async fn json(&self, args: &[&str]) -> Value {
        let output = self
            .campaignd(&[args, &["--format", "json"]].concat())
            .await;
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The program, about to be run in the site's folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_campaignd"));
        command
            .args(args)
            .args(["--config", "campaignd.yaml"])
            .current_dir(self.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts the daemon; its log goes to `daemon.log` of the site.
    pub fn serve(&self) -> Daemon {
        self.serve_with(&[])
    }

    /// The same with more in its environment.
    pub fn serve_with(&self, environment: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(&["serve"]);
        command.envs(environment.iter().copied());
        self.spawn(command)
    }

    /// Starts another command of the program beside the test; it logs as the
    /// daemon does.
    pub fn start(&self, args: &[&str]) -> Daemon {
        self.spawn(self.command(args))
    }

    /// Starts `command`, which is the program or runs it.
    pub fn spawn(&self, mut command: Command) -> Daemon {
        let append = |name: &str| {
            let path = self.path().join(name);
            std::fs::File::options()
                .create(true)
                .append(true)
                .open(path)
                .unwrap()
        };
        let child = command
            .stdout(append("daemon.out"))
            .stderr(append("daemon.log"))
            .spawn()
            .unwrap();
        Daemon { child }
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("daemon.log")).unwrap_or_default()
    }

    /// Another database on the warehouse's server: for a ledger there.
    pub fn another_database(&self, name: &str) -> ConnDetails {
        match &self.warehouse {
            Warehouse::Postgres { _server, .. } => _server.database(name),
            Warehouse::Sqlite => panic!("the warehouse of this site has no server"),
        }
    }

    /// The warehouse's database.
    pub fn database(&self) -> &ConnDetails {
        match &self.warehouse {
            Warehouse::Postgres { database, .. } => database,
            Warehouse::Sqlite => panic!("the warehouse of this site has no server"),
        }
    }

    /// The warehouse's server.
    pub fn server(&self) -> &Postgres {
        match &self.warehouse {
            Warehouse::Postgres { _server, .. } => _server,
            Warehouse::Sqlite => panic!("the warehouse of this site has no server"),
        }
    }

    /// Starts a daemon as the host `name`: with the operator's file
    /// `<name>.yaml`, logging to `<name>.log`.
    pub fn serve_as(&self, name: &str) -> Daemon {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path().join(format!("{name}.log")))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_campaignd"));
        command
            .args(["serve", "--config", &format!("{name}.yaml")])
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        Daemon {
            child: command.spawn().unwrap(),
        }
    }

    /// Runs one statement in the warehouse, as its owner, and returns its rows.
    /// Where history is apart, what names `campaignd.` is run there.
    /// On SQLite the daemon's tables have no schema, so `campaignd.` is left
    /// out.
    pub async fn sql(&self, sql: &str) -> Vec<TextRow> {
        if let Some((books, _)) = &self.books
            && sql.contains("campaignd.")
        {
            return postgres_rows(books, sql).await;
        }
        match &self.warehouse {
            Warehouse::Postgres { database, .. } => postgres_rows(database, sql).await,
            Warehouse::Sqlite => {
                let path = self.path().join("warehouse.db");
                sqlite_rows(&path, &sql.replace("campaignd.", "")).await
            }
        }
    }

    /// Asks until the statement returns a row, and returns its rows; fails
    /// after a minute.
    pub async fn wait_for_row(&self, sql: &str) -> Vec<TextRow> {
        for _ in 0..600 {
            let rows = self.sql(sql).await;
            if !rows.is_empty() {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no row after a minute: {sql}\n{}", self.log());
    }

    /// Returns once the daemon has logged `text` so many times; fails after a
    /// minute.
    pub async fn wait_for_log(&self, text: &str, times: usize) {
        for _ in 0..1_200 {
            if self.log().matches(text).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("`{text}` was not logged:\n{}", self.log());
    }
}

/// Whether a message of the daemon's holds more than one statement.
fn is_several(sql: &str) -> bool {
    let mut statements = statements(&words(sql)).into_iter();
    let is_ours = sql.starts_with("/* campaignd ");
    is_ours && statements.by_ref().filter(|one| !one.is_empty()).count() > 1
}

/// The keys of a connector that leads to `database`, through the gate if there
/// is one.
fn connector(database: &ConnDetails, gate: Option<&Gate>) -> String {
    let ConnDetails {
        host,
        port,
        user,
        database,
    } = database;
    let (host, port) = match gate {
        Some(gate) => (gate.address().ip().to_string(), gate.address().port()),
        None => (host.clone(), *port),
    };
    let (kind, password) = match gate {
        Some(gate) if gate.is_redshift() => ("redshift", format!(", password: {PASSWORD}")),
        _ => ("postgres", String::new()),
    };
    format!(
        "kind: {kind}, host: {host}, port: {port}, database: {database}, \
         auth: {{ user: {user}{password} }}, tls: disable, schema: campaignd"
    )
}

/// The rows of a statement in a database of the server.
pub async fn postgres_rows(database: &ConnDetails, sql: &str) -> Vec<TextRow> {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(&database.host)
        .port(database.port)
        .username(&database.user)
        .database(&database.database)
        .ssl_mode(PgSslMode::Disable);
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    let rows = raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_all(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.unwrap();
    rows.iter()
        .map(|row| {
            let cells = row.columns().iter().map(|column| {
                let cell = row.try_get_raw(column.ordinal()).unwrap();
                let text = cell.as_str().ok().map(str::to_owned);
                (column.name().to_owned(), text)
            });
            cells.collect()
        })
        .collect()
}

/// The rows of a statement in a SQLite file, the state store's for one.
pub async fn sqlite_rows(path: &Path, sql: &str) -> Vec<TextRow> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(30))
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let rows = raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_all(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.unwrap();
    rows.iter()
        .map(|row| {
            let cells = row.columns().iter().map(|column| {
                let text = row.try_get_unchecked(column.ordinal()).unwrap();
                (column.name().to_owned(), text)
            });
            cells.collect()
        })
        .collect()
}

/// A running `campaignd serve`; killed when it is dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Sends a signal by its name, `TERM`, `HUP`.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it has not ended").to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(status.unwrap().success());
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it has not ended")
    }

    /// Ends it at once, in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it has ended, however long that takes, and returns its exit
    /// code.
    pub async fn wait(&mut self) -> Option<i32> {
        self.child.wait().await.unwrap().code()
    }

    /// Waits until it has ended, half a minute at most, and returns its exit
    /// code.
    pub async fn ended(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait());
        ended
            .await
            .expect("it ends in half a minute")
            .unwrap()
            .code()
    }
}
