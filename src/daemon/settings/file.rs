//! The settings, and the file's form of them with its paths as written.

use super::connector::Connector;
use super::destination::DestinationSettings;
use super::keep::Keep;
use super::state::StateStore;
use crate::campaign::Known;
use crate::id::{ConnectorName, DestinationName};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How this process runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of campaign files.
    pub campaigns: PathBuf,
    /// Where the ledger is kept.
    pub state: StateStore,
    /// How long a run rests when the host that carries it dies: the life of a
    /// lease on a ledger that hosts share.
    pub lease: Duration,
    /// The warehouses campaigns may name.
    pub connectors: BTreeMap<ConnectorName, Connector>,
    /// The destinations campaigns may name.
    pub destinations: BTreeMap<DestinationName, DestinationSettings>,
    /// What is bounded for all campaigns together.
    pub limits: Limits,
    /// How long a run must be silent before it is taken over.
    pub adopt_after: Duration,
    /// How long after staging suppression is asked again.
    pub recheck_after: Duration,
    /// How long what has ended is kept.
    pub keep: Keep,
    /// Where commands reach the running daemon.
    pub control: PathBuf,
    /// How long a shutdown waits for what is open.
    pub shutdown_grace: Duration,
    /// How logs are written.
    pub log: LogSettings,
}

impl Settings {
    /// The names a campaign file may use.
    pub fn known(&self) -> Known {
        Known {
            connectors: self.connectors.keys().cloned().collect(),
            dialects: self
                .connectors
                .iter()
                .map(|(name, connector)| (name.clone(), connector.dialect()))
                .collect(),
            destinations: self.destinations.keys().cloned().collect(),
            formats: self
                .destinations
                .iter()
                .map(|(name, settings)| (name.clone(), settings.format))
                .collect(),
            histories: self.histories(),
        }
    }
}

/// What is bounded for all campaigns together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Runs being carried at a time.
    pub max_runs: u32,
    /// Webhook requests at a time.
    pub max_in_flight: u32,
    /// Bytes of buffered members.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_runs: 32,
            max_in_flight: 64,
            memory: 256 * 1024 * 1024,
        }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// Their form.
    pub format: LogFormat,
    /// What is left out.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For a terminal.
    Text,
}

/// The least urgent log lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// We carried on, but look at the trend.
    Warn,
    /// A line per run begun and ended.
    #[default]
    Info,
    /// The rest.
    Debug,
    /// Libraries' own too.
    Trace,
}

impl LogLevel {
    /// The name, as filters of log lines take it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Compiled settings whose paths are still as the file has them.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    pub(super) settings: Settings,
}

impl SettingsFile {
    /// The settings, with relative paths taken from `base`, the folder of the
    /// file.
    pub fn resolve_paths(self, base: &Path) -> Settings {
        let Self { mut settings } = self;
        let resolve = |path: &mut PathBuf| *path = resolved(base, path);
        resolve(&mut settings.campaigns);
        resolve(&mut settings.control);
        settings.state.each_path(&resolve);
        for connector in settings.connectors.values_mut() {
            connector.each_path(&resolve);
        }
        for destination in settings.destinations.values_mut() {
            destination.each_path(&resolve);
        }
        settings
    }

    /// The names a campaign file may use.
    pub fn known(&self) -> Known {
        self.settings.known()
    }
}

/// `path` below `base`, without the `.` in it, unless it is absolute.
fn resolved(base: &Path, path: &Path) -> PathBuf {
    base.join(path).components().collect()
}
