//! The folder, the daemon on it, and a reader of its ledger.

use crate::process;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Row as _, SqliteConnection, raw_sql};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Signs what the bench sends to itself; not a secret.
const SIGNING_SECRET: &str = "whsec_Y2FtcGFpZ25kLWJlbmNoLXNpZ25pbmcta2V5LTMy";

/// Writes the warehouse, the operator's file and `files` campaigns, of which
/// `due` fire at `due_at` and the others tomorrow.
pub(crate) async fn write(dir: &Path, port: u16, (files, due): (u32, u32), due_at: Timestamp) {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("warehouse.db"))
        .create_if_missing(true);
    let connected = SqliteConnection::connect_with(&options).await;
    let mut warehouse = connected.expect("a new file");
    let customers = "create table customers (profile_id text, email text); \
         insert into customers values ('p-1', 'ada@example.com'), ('p-2', 'bob@example.com')";
    let filled = raw_sql(customers).execute(&mut warehouse).await;
    filled.expect("the customers are written");
    warehouse.close().await.expect("it is closed");
    let settings = format!(
        "campaigns: ./campaigns
state: {{ url: 'sqlite://./state.db' }}
connectors:
  warehouse: {{ kind: sqlite, path: ./warehouse.db }}
destinations:
  sink:
    url: http://127.0.0.1:{port}/
    channel: email
    signing_secrets: [ '{SIGNING_SECRET}' ]
    dedupe_window: 24h
    allow_http: true
    allow_private_network: true
log: {{ format: text, level: info }}
"
    );
    std::fs::write(dir.join("campaignd.yaml"), settings).expect("the settings are written");
    std::fs::create_dir(dir.join("campaigns")).expect("the folder is made");
    let due_at = due_at.to_zoned(TimeZone::UTC);
    let soon = due_at.strftime("%S %M %H %d %m *").to_string();
    let day = due_at.tomorrow().expect("there is a tomorrow");
    let later = day.strftime("0 9 %d %m *").to_string();
    for number in 0..files {
        let name = format!("campaign-{number:05}");
        let cron = if number < due { &soon } else { &later };
        let path = dir.join(format!("campaigns/{name}.yaml"));
        std::fs::write(path, campaign(&name, cron)).expect("the campaign is written");
    }
}

/// A campaign like those people write.
fn campaign(name: &str, cron: &str) -> String {
    format!(
        "name: {name}
description: Lapsed buyers get the winback offer by e-mail.
owner: lifecycle team
connector: warehouse
schedule: {{ cron: '{cron}', timezone: UTC }}
audience:
  key: profile_id
  sql: |
    select profile_id, email
    from customers
    where email <> '{{{{ days_ago(90) }}}}'
  expect: {{ min: 1, max: 500000 }}
activation:
  destination: sink
  batch_size: 500
  payload:
    member: {{ id: '{{{{ profile_id }}}}', to: '{{{{ email }}}}' }}
contact_history: {{ attributes: {{ offer: winback10 }} }}
"
    )
}

/// The daemon, killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    _log: JoinSet<()>,
}

impl Daemon {
    /// Starts it, and returns when it says that it is ready.
    pub(crate) async fn start(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_campaignd"))
            .args(["serve", "--config", "campaignd.yaml"])
            .current_dir(dir)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        loop {
            let line = lines.next_line().await.expect("the log can be read");
            if line.expect("it stays up").contains("ready; campaigns") {
                break;
            }
        }
        let mut log = JoinSet::new();
        log.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, _log: log }
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it has not ended")
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        process::look(self.pid()).expect("it is there").cpu
    }

    /// The resident set now, in MiB.
    pub(crate) fn rss_mib(&self) -> f64 {
        process::kib(self.pid(), "VmRSS:").expect("it is there") as f64 / 1024.0
    }

    /// The largest resident set so far, in MiB.
    pub(crate) fn peak_rss_mib(&self) -> f64 {
        process::look(self.pid()).expect("it is there").peak_rss_kib as f64 / 1024.0
    }
}

/// Another reader of the daemon's ledger.
pub(crate) struct Ledger(SqliteConnection);

/// How many runs there are.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) claimed: usize,
    pub(crate) under_way: u32,
    pub(crate) ended: u32,
}

impl Ledger {
    pub(crate) async fn open(dir: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(dir.join("state.db"))
            .read_only(true)
            .busy_timeout(Duration::from_secs(5));
        let connected = SqliteConnection::connect_with(&options).await;
        Self(connected.expect("the daemon has made it"))
    }

    /// Campaigns whose schedule has been looked at.
    pub(crate) async fn campaigns(&mut self) -> u32 {
        let count = sqlx::query_scalar("select count(*) from cursors");
        count.fetch_one(&mut self.0).await.expect("it can be read")
    }

    pub(crate) async fn counts(&mut self) -> Counts {
        let row = sqlx::query(
            "select count(*), coalesce(sum(is_open and state <> 'queued'), 0), \
             coalesce(sum(state = 'finished'), 0) from runs",
        )
        .fetch_one(&mut self.0)
        .await
        .expect("it can be read");
        let claimed: u32 = row.get(0);
        Counts {
            claimed: claimed as usize,
            under_way: row.get(1),
            ended: row.get(2),
        }
    }

    /// Milliseconds from `due_at` to each run's `claimed_at`.
    pub(crate) async fn lags(&mut self, due_at: Timestamp) -> Vec<f64> {
        let micros: Vec<i64> = sqlx::query_scalar("select claimed_at - ?1 from runs")
            .bind(due_at.as_microsecond())
            .fetch_all(&mut self.0)
            .await
            .expect("it can be read");
        let millis = micros.into_iter().map(|micros| micros as f64 / 1_000.0);
        millis.collect()
    }
}
