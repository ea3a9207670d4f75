//! A real PostgreSQL server for a test: its own folder, its own port, gone
//! afterwards.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// The superuser of every server; no password is asked for.
const USER: &str = "postgres";

/// How often a start is tried, each time on another port.
const STARTS: u32 = 5;

/// A running server.
pub struct Postgres {
    pub(super) folder: TempDir,
    pub(super) programs: PathBuf,
    pub(super) server: Mutex<Child>,
    pub(super) port: u16,
    databases: AtomicU32,
}

/// Where a database is.
#[derive(Debug, Clone)]
pub struct ConnDetails {
    /// The folder of the Unix socket. The server also listens on 127.0.0.1.
    pub host: String,
    /// The port, of both.
    pub port: u16,
    /// The login, which may do everything.
    pub user: String,
    /// The database.
    pub database: String,
}

impl Postgres {
    /// Starts a server and returns once it takes connections.
    ///
    /// It reads backslashes in literals as Redshift does, unless a session
    /// says otherwise, so that a literal that is only safe by luck is found.
    pub fn start() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new()
            .prefix("campaignd-pg-")
            .tempdir()
            .expect("a temporary folder");
        let account = account();
        hand_over(folder.path(), account.as_ref());
        make_data(&programs, folder.path(), account.as_ref());
        for _ in 0..STARTS {
            let port = free_port();
            if let Some(server) = launch(&programs, folder.path(), port, account.as_ref()) {
                return Self {
                    folder,
                    programs,
                    server: Mutex::new(server),
                    port,
                    databases: AtomicU32::new(0),
                };
            }
        }
        panic!("PostgreSQL did not start in {STARTS} tries");
    }

    /// Makes a fresh database whose name begins with `name`.
    pub fn database(&self, name: &str) -> ConnDetails {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let details = ConnDetails {
            host: self.folder.path().display().to_string(),
            port: self.port,
            user: USER.to_owned(),
            database: format!("{name}_{number}"),
        };
        let made = Command::new(self.programs.join("createdb"))
            .args([
                "-h",
                &details.host,
                "-p",
                &self.port.to_string(),
                "-U",
                USER,
            ])
            .arg(&details.database)
            .output()
            .expect("createdb runs");
        assert!(made.status.success(), "createdb: {}", lossy(&made.stderr));
        details
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(server) = self.server.get_mut() {
            // SIGINT: stop now, without waiting for sessions that are still
            // open.
            end(server, "-INT");
        }
    }
}

pub(super) fn end(server: &mut Child, signal: &str) {
    // One that has ended already has given its id back.
    if server.try_wait().is_ok_and(|ended| ended.is_some()) {
        return;
    }
    let told = Command::new("kill")
        .args([signal, &server.id().to_string()])
        .status();
    if !told.is_ok_and(|status| status.success()) {
        drop(server.kill());
    }
    drop(server.wait());
}

/// Who runs the server: nobody in particular, where we are root, which
/// PostgreSQL refuses.
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

pub(super) fn account() -> Option<Account> {
    let own = fs::metadata("/proc/self").expect("/proc is there").uid();
    if own != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("the accounts can be read");
    let find = |name: &str| {
        let line = passwd.lines().find(|line| line.starts_with(name))?;
        let mut fields = line.split(':').skip(2);
        let mut next = || fields.next()?.parse().ok();
        Some(Account {
            uid: next()?,
            gid: next()?,
        })
    };
    find("postgres:").or_else(|| find("nobody:"))
}

fn as_account(command: &mut Command, account: Option<&Account>) {
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command.env_clear().env("LC_ALL", "C").current_dir("/");
}

fn hand_over(folder: &Path, account: Option<&Account>) {
    let Some(account) = account else { return };
    let owner = format!("{}:{}", account.uid, account.gid);
    let done = Command::new("chown")
        .args(["-R", &owner])
        .arg(folder)
        .status();
    assert!(done.is_ok_and(|status| status.success()), "chown failed");
}

/// Makes the server's data folder: a copy of an earlier one if there is one,
/// since `initdb` takes longer than all the rest.
fn make_data(programs: &Path, folder: &Path, account: Option<&Account>) {
    let data = folder.join("data");
    let name = programs.to_string_lossy().replace('/', "-");
    let model = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres{name}"));
    if model.exists() {
        copy(&model, &data);
        hand_over(&data, account);
        return;
    }
    let mut initdb = Command::new(programs.join("initdb"));
    initdb
        .args([
            "-A",
            "trust",
            "-U",
            USER,
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
            "-D",
        ])
        .arg(&data);
    as_account(&mut initdb, account);
    let made = initdb.output().expect("initdb runs");
    assert!(made.status.success(), "initdb: {}", lossy(&made.stderr));
    // Whoever renames first has made the model.
    let ours = model.with_extension(std::process::id().to_string());
    copy(&data, &ours);
    if fs::rename(&ours, &model).is_err() {
        drop(fs::remove_dir_all(&ours));
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-R").arg(from).arg(to).status();
    assert!(done.is_ok_and(|status| status.success()), "cp failed");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(to, mode).expect("the data folder is private");
}

/// Starts the server; none if it ended before it was ready.
pub(super) fn launch(
    programs: &Path,
    folder: &Path,
    port: u16,
    account: Option<&Account>,
) -> Option<Child> {
    let mut server = Command::new(programs.join("postgres"));
    server
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        .args(["-p", &port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "fsync=off",
        "full_page_writes=off",
        "standard_conforming_strings=off",
        "escape_string_warning=off",
        "log_min_messages=log",
    ] {
        server.args(["-c", setting]);
    }
    as_account(&mut server, account);
    let mut server = server
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server can be started");
    let mut lines = BufReader::new(server.stderr.take().expect("stderr is piped")).lines();
    let is_ready = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("ready to accept connections"));
    if !is_ready {
        drop(server.wait());
        return None;
    }
    // A full pipe would stop the server.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some(server)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    listener.local_addr().expect("it has an address").port()
}

/// The folder of the server's programs, the newest version first.
pub fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut folders: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_string_lossy().parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    folders.sort();
    let installed = folders.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = installed.chain(std::env::split_paths(&path));
    all.find(|folder| folder.join("postgres").exists() && folder.join("initdb").exists())
        .expect(
            "no PostgreSQL server found; run `apt-get install -y postgresql` as root, then again",
        )
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
