//! The built program, run and measured from outside.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// What a process used, as last seen in `/proc` before it ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The largest resident set.
    pub(crate) peak_rss_kib: u64,
}

/// How often the process is looked at: what it uses in its last moment is not
/// seen, at most this much.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Clock ticks a second in `/proc/<pid>/stat`, as Linux has had it for decades.
const TICKS: u64 = 100;

/// Runs the program to its end, which must be a good one.
pub(crate) async fn run(dir: &Path, args: &[&str]) -> Usage {
    let mut child = Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(args)
        .args(["--config", "campaignd.yaml"])
        .current_dir(dir)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let pid = child.id().expect("it has not ended yet");
    let mut usage = Usage::default();
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.expect("it can be waited for");
                assert!(status.success(), "campaignd {args:?} ended with {status}");
                return usage;
            }
            () = tokio::time::sleep(LOOK_EVERY) => usage = look(pid).unwrap_or(usage),
        }
    }
}

/// A figure of `/proc/<pid>/status`, while the process is there.
pub(crate) fn kib(pid: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let figure = status.lines().find_map(|line| line.strip_prefix(key))?;
    figure.trim().trim_end_matches(" kB").parse().ok()
}

/// What a process has used so far.
pub(crate) fn look(pid: u32) -> Option<Usage> {
    let peak_rss_kib = kib(pid, "VmHWM:")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces; behind it the fields are regular.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1_000 / TICKS),
        peak_rss_kib,
    })
}
