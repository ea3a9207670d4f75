//! `SIGHUP`: the operator's file and the campaigns read again, and what of
//! them can change while runs are under way.

use super::folder::Folder;
use super::settings::Settings;
use super::world::World;
use std::time::Duration;

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
