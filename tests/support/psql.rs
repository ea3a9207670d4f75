//! `psql` and `pgbench` as clients of a gate: they are not ours, and share
//! nothing with the driver that the daemon uses.

use super::gate::Gate;
use super::postgres::{ConnDetails, programs};
use super::redshift_gate::PASSWORD;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client about to connect.
pub struct Client {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
    /// More of its environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Client {
    /// Of `database`, through the gate before it.
    pub fn of(gate: &Gate, database: &ConnDetails) -> Self {
        Self {
            host: gate.address().ip().to_string(),
            port: gate.address().port(),
            user: database.user.clone(),
            password: PASSWORD.to_owned(),
            database: database.database.clone(),
            environment: Vec::new(),
        }
    }

    /// Of `database`, without a gate.
    pub fn directly(database: &ConnDetails) -> Self {
        Self {
            host: database.host.clone(),
            port: database.port,
            user: database.user.clone(),
            password: String::new(),
            database: database.database.clone(),
            environment: Vec::new(),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command
            .env_clear()
            .env("PGPASSWORD", &self.password)
            .args(["-h", &self.host, "-p", &self.port.to_string()])
            .args(["-U", &self.user])
            .kill_on_drop(true);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// What it says to `sql`, sent as one message: rows, or the error with its
    /// code.
    pub async fn says(&self, sql: &str) -> String {
        let mut command = self.psql();
        command.args(["-c", sql]);
        said(command, "").await
    }

    /// The same with each statement of a script in a message of its own, also
    /// behind an error.
    pub async fn script(&self, sql: &str) -> String {
        let mut command = self.psql();
        command.args(["-f", "-"]);
        said(command, sql).await
    }

    fn psql(&self) -> Command {
        let mut command = self.command("psql");
        command
            .args(["-X", "-A", "-t", "-q", "-v", "VERBOSITY=verbose"])
            .args(["-d", &self.database]);
        command
    }

    /// What `pgbench` says to a statement of its own language, `:name` being
    /// binds, sent once by the extended protocol.
    pub async fn binds(&self, script: &str) -> String {
        let mut command = self.command("pgbench");
        command
            .args(["-n", "-t", "1", "-M", "extended", "-f", "/dev/stdin"])
            .arg(&self.database);
        said(command, script).await
    }
}

/// Both of what it wrote, without what is around it.
async fn said(mut command: Command, input: &str) -> String {
    use std::process::Stdio;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let done = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let done = done.await.unwrap().unwrap();
    let text = [done.stdout, done.stderr].concat();
    String::from_utf8(text).unwrap().trim().to_owned()
}
