//! Files read again: the campaigns when they have changed, on `SIGHUP` the
//! operator's file too, and what of them can change while runs are under way.

use super::folder::Folder;
use super::settings::Settings;
use super::world::World;
use std::path::PathBuf;
use std::time::Duration;

/// Why files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody says so: everything.
    Asked,
    /// Campaign files have changed: these alone, by the operator's last good
    /// file.
    Changed,
}

/// What the files say now.
pub struct Reloaded {
    /// What runs are begun with from now on.
    pub operator: Option<Operator>,
    /// The campaigns, the last good version of each.
    pub folder: Folder,
}

/// What an operator's file without a problem comes to.
pub struct Operator {
    /// The adapters.
    pub world: World,
    /// Runs at a time.
    pub max_runs: u32,
    /// How long a drain may take.
    pub shutdown_grace: Duration,
    /// The folder of the campaigns.
    pub campaigns: PathBuf,
}

/// The keys that differ between the file a daemon was started with and the
/// one it is given now, and that it cannot change while it runs.
pub fn fixed_keys(started: &Settings, now: &Settings) -> Vec<&'static str> {
    let differs = [
        (
            "state",
            started.state != now.state || started.lease != now.lease,
        ),
        ("control", started.control != now.control),
        ("log", started.log != now.log),
    ];
    let changed = differs.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(key, _)| key).collect()
}
