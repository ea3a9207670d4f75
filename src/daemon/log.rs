//! Where log lines go: standard error, as JSON or text.

use super::settings::{LogFormat, LogSettings};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Sends log lines to standard error from now on. Called once a process; a
/// second call changes nothing.
pub fn start(settings: &LogSettings) {
    let level = settings.level.as_str();
    // The libraries below speak of their own affairs from `info` on.
    let filter = EnvFilter::new(format!("warn,campaignd={level}"));
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match settings.format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_target(false)
            .try_init(),
        LogFormat::Text => lines.with_target(false).try_init(),
    };
    // Only tests call it twice in a process, and the first is as good.
    drop(started);
}
