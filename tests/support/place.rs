//! A warehouse for a test, with people in it, and the runs of a campaign that
//! asks for them.

use super::gate::Gate;
use super::postgres::{ConnDetails, Postgres};
use super::redshift_gate::PASSWORD;
use campaignd::audience::{AudienceSpec, Dialect, Funnel, Policy, TableNames};
use campaignd::history::{BatchOutcome, BatchStatus, Closing, RunFacts, RunStatus, Settlement};
use campaignd::id::{BatchPath, CampaignName, MessageId, RunId, Trigger};
use campaignd::run::{Registration, Warehouse};
use campaignd::warehouse::{
    ConnectorOptions, Keepalive, Login, ServerOptions, Tls, apply_bootstrap, open,
};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection, raw_sql};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A warehouse with people in it, and a second pair of eyes on it.
pub struct Place {
    pub warehouse: Arc<dyn Warehouse>,
    pub options: ConnectorOptions,
    pub eyes: Eyes,
    _folder: tempfile::TempDir,
    _server: Option<Postgres>,
    gate: Option<Gate>,
}

pub enum Eyes {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

pub fn server_options(server: &Postgres) -> ServerOptions {
    let details = server.database("warehouse");
    ServerOptions {
        dialect: Dialect::Postgres,
        host: details.host,
        port: details.port,
        database: details.database,
        user: details.user,
        password: String::new().into(),
        login: Login::Given,
        tls: Tls::Disable,
        tls_ca_file: None,
        schema: "campaignd".to_owned(),
        max_queries: NonZeroU32::new(2).unwrap(),
        statement_timeout: Duration::from_secs(60),
        keepalive: Keepalive::default(),
        apart: None,
    }
}

pub async fn look_at(server: &ServerOptions) -> PgConnection {
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .socket(&server.host)
        .port(server.port)
        .username(&server.user)
        .database(&server.database);
    let mut eyes = PgConnection::connect_with(&options).await.unwrap();
    let setting = raw_sql("set standard_conforming_strings = on");
    setting.execute(&mut eyes).await.unwrap();
    eyes
}

/// Runs each test on every kind of warehouse.
#[macro_export]
macro_rules! on_each_warehouse {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() {
                let mut place = $crate::support::place::Place::sqlite().await;
                super::$name(&mut place).await;
            })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() {
                let mut place = $crate::support::place::Place::postgres().await;
                super::$name(&mut place).await;
            })*
        }
        mod redshift {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                let mut place = $crate::support::place::Place::redshift().await;
                super::$name(&mut place).await;
                assert_eq!(place.gate().refused(), [], "what Redshift would refuse");
            })*
        }
    };
}

impl Place {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warehouse.db");
        let options = ConnectorOptions::Sqlite {
            path: path.clone(),
            max_queries: NonZeroU32::new(2).unwrap(),
            reads_only: false,
        };
        let warehouse = open(options.clone()).unwrap();
        warehouse.ping().await.unwrap();
        let url = format!("sqlite://{}", path.display());
        let eyes = Eyes::Sqlite(SqliteConnection::connect(&url).await.unwrap());
        Self::with_people(warehouse, options, eyes, folder, None).await
    }

    pub async fn postgres() -> Self {
        let server = Postgres::start();
        let login = server_options(&server);
        let eyes = Eyes::Postgres(look_at(&login).await);
        let options = ConnectorOptions::Server(login);
        apply_bootstrap(options.clone()).await.unwrap();
        let warehouse = open(options.clone()).unwrap();
        warehouse.ping().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self::with_people(warehouse, options, eyes, folder, Some(server)).await
    }

    /// A place whose warehouse passes for Redshift; the second pair of eyes
    /// looks past the gate.
    pub async fn redshift() -> Self {
        let server = Postgres::start();
        let login = server_options(&server);
        let database = ConnDetails {
            host: login.host.clone(),
            port: login.port,
            user: login.user.clone(),
            database: login.database.clone(),
        };
        let gate = Gate::redshift(&database).await;
        let eyes = Eyes::Postgres(look_at(&login).await);
        let options = ConnectorOptions::Server(ServerOptions {
            dialect: Dialect::Redshift,
            host: gate.address().ip().to_string(),
            port: gate.address().port(),
            password: PASSWORD.to_owned().into(),
            ..login
        });
        apply_bootstrap(options.clone()).await.unwrap();
        let warehouse = open(options.clone()).unwrap();
        warehouse.ping().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let place = Self::with_people(warehouse, options, eyes, folder, Some(server)).await;
        Self {
            gate: Some(gate),
            ..place
        }
    }

    /// The gate before its warehouse.
    pub fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("the place has a gate")
    }

    async fn with_people(
        warehouse: Arc<dyn Warehouse>,
        options: ConnectorOptions,
        eyes: Eyes,
        folder: tempfile::TempDir,
        server: Option<Postgres>,
    ) -> Self {
        let mut place = Self {
            warehouse,
            options,
            eyes,
            _folder: folder,
            _server: server,
            gate: None,
        };
        place
            .run("create table people (id varchar(400), email varchar(200), age int)")
            .await;
        // Seven good keys, one of them three times (once behind blanks), two
        // nulls, and one of 257 bytes in 129 characters.
        let long = format!("{}x", "ä".repeat(128));
        let rows = [
            "('p-1', 'ada@example.com', 36)",
            "('p-1', 'ada@example.org', 36)",
            "('p-1  ', 'ada@example.net', 37)",
            r"('p-2', 'o''hara\n@example.com', 41)",
            "('p-3', '🦀 \"quoted\" 日本', null)",
            "('p-4', null, 0)",
            r"('p-''5\', '', -1)",
            "('p-6', 'f@example.com', 50)",
            "('p-7', 'g@example.com', 51)",
            "(null, 'nobody@example.com', 1)",
            "(null, 'nobody@example.com', 2)",
            &format!("('{long}', 'long@example.com', 3)"),
        ];
        let insert = format!("insert into people values {}", rows.join(", "));
        place.run(&insert).await;
        place
    }

    pub async fn run(&mut self, sql: &str) {
        let sql = raw_sql(AssertSqlSafe(sql.to_owned()));
        match &mut self.eyes {
            Eyes::Sqlite(eyes) => drop(sql.execute(eyes).await.unwrap()),
            Eyes::Postgres(eyes) => drop(sql.execute(eyes).await.unwrap()),
        }
    }

    /// The same for a table of ours; SQLite's schema is none.
    pub async fn run_ours(&mut self, sql: &str) {
        let is_sqlite = matches!(self.eyes, Eyes::Sqlite(_));
        let sql = match is_sqlite {
            true => sql.replace("campaignd.", ""),
            false => sql.to_owned(),
        };
        self.run(&sql).await;
    }

    /// Rows as text, cells joined by `|`; SQLite's schema is none.
    pub async fn rows(&mut self, sql: &str) -> Vec<String> {
        let join = |cells: Vec<Option<String>>| {
            let cells = cells.into_iter().map(|c| c.unwrap_or("null".to_owned()));
            cells.collect::<Vec<_>>().join("|")
        };
        match &mut self.eyes {
            Eyes::Sqlite(eyes) => {
                let sql = sql.replace("campaignd.", "");
                let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(eyes).await.unwrap();
                let cells = |row: &sqlx::sqlite::SqliteRow| {
                    (0..row.len()).map(|i| row.get_unchecked(i)).collect()
                };
                rows.iter().map(|row| join(cells(row))).collect()
            }
            Eyes::Postgres(eyes) => {
                let sql = raw_sql(AssertSqlSafe(sql.to_owned()));
                let rows = sql.fetch_all(eyes).await.unwrap();
                let cells = |row: &sqlx::postgres::PgRow| {
                    (0..row.len()).map(|i| row.get_unchecked(i)).collect()
                };
                rows.iter().map(|row| join(cells(row))).collect()
            }
        }
    }

    pub async fn tables_of(&mut self, facts: &RunFacts) -> Vec<String> {
        let names = TableNames::of(&facts.run);
        let catalog = match self.eyes {
            Eyes::Sqlite(_) => "select name from sqlite_master where type = 'table' and name",
            Eyes::Postgres(_) => "select relname from pg_class where relname",
        };
        let TableNames { stage, admit, run } = names;
        let found = self
            .rows(&format!("{catalog} in ('{stage}', '{admit}', '{run}')"))
            .await;
        let mut kinds: Vec<String> = found
            .iter()
            .map(|name| name.split('_').next().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds
    }

    /// Takes a run as far as its run table.
    pub async fn laid_out(&self, facts: &RunFacts) -> Funnel {
        let ours = self.warehouse.register(facts).await.unwrap();
        assert_eq!(ours, Registration::Ours);
        self.warehouse.freeze(facts).await.unwrap();
        let funnel = self.warehouse.admit(facts).await.unwrap();
        self.warehouse.lay_out(facts).await.unwrap();
        funnel
    }
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn facts(sql: &str) -> RunFacts {
    facts_of("winback", sql)
}

pub fn facts_of(campaign: &str, sql: &str) -> RunFacts {
    let campaign: CampaignName = campaign.parse().unwrap();
    let fire_time = at("2026-11-22T14:00:00Z");
    RunFacts {
        run: RunId::scheduled(&campaign, fire_time),
        campaign,
        campaign_version: "v1".to_owned(),
        fire_time,
        trigger: Trigger::Scheduled,
        started_at: at("2026-11-22T14:00:01Z"),
        audience: AudienceSpec {
            key: "id".to_owned(),
            sql: sql.to_owned(),
        },
        batch_size: 3,
        destination: "email-esp".parse().unwrap(),
        channel: "email".to_owned(),
        attributes: Some(r#"{"offer":"it's \\ 10 %"}"#.to_owned()),
        owner: Uuid::from_u128(1),
        term: 1,
        suppress: Vec::new(),
        policy: Policy::default(),
        canary: 0,
    }
}

pub const PEOPLE: &str = "select id, email, age from people";

pub fn outcome(facts: &RunFacts, batch: u32, members: u32, status: BatchStatus) -> BatchOutcome {
    let path = BatchPath::whole(batch);
    BatchOutcome {
        places: None,
        refused: Vec::new(),
        message_id: MessageId::of(&facts.run, &path, 0),
        path,
        status,
        members,
        attempts: 1,
        http_status: Some(200),
        first_attempt_at: Some(at("2026-11-22T14:01:00.25Z")),
        settled_at: at("2026-11-22T14:01:01Z"),
        error: (status != BatchStatus::Delivered).then(|| "the destination's no".to_owned()),
    }
}

pub fn settlement(facts: &RunFacts, funnel: Funnel, outcomes: Vec<BatchOutcome>) -> Settlement {
    Settlement {
        fills_gaps: false,
        counts_anew: false,
        facts: Arc::new(facts.clone()),
        funnel,
        status: RunStatus::Open,
        error: None,
        outcomes: outcomes.into(),
    }
}

pub fn closing(facts: &RunFacts, funnel: Funnel, status: RunStatus) -> Closing {
    Closing {
        facts: Arc::new(facts.clone()),
        funnel,
        status,
        finished_at: at("2026-11-22T14:05:00Z"),
        error: None,
        cancels_rest: None,
        keep_run_table: false,
        withheld_rows: true,
    }
}
