//! Tells when the campaigns folder is not what it was.
//!
//! What decides is the state of its files, compared between two looks; what
//! the system tells of changes only makes a look come sooner. So a change that
//! nobody tells of (a network file system, a symlink swapped above the folder,
//! an overflow) is found a little later, and what editors keep beside a file
//! is none.

use super::folder::campaign_files;
use crate::run::Clock;
use jiff::Timestamp;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long the files must have stayed as they are before they are read: a
/// file that is being written, or moved away to be written anew, is not read
/// half.
const QUIET: Duration = Duration::from_secs(1);

/// How many times that is waited for: a file that is always being written
/// holds up the others for half a minute at most.
const QUIET_LOOKS: u32 = 30;

/// How often the folder is looked at where nothing tells of a change.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What the campaign files of a folder are known by without reading them:
/// path, device, inode, size and time of change of each. None where the
/// folder cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamp(Option<Vec<(PathBuf, Option<Identity>)>>);

type Identity = (u64, u64, u64, (i64, i64));

/// The state of the campaign files directly in `dir`.
pub(super) fn stamp(dir: &Path) -> Stamp {
    let of = |path: PathBuf| {
        let identity = identity(&path);
        (path, identity)
    };
    let paths = campaign_files(dir).ok();
    Stamp(paths.map(|paths| paths.into_iter().map(of).collect()))
}

/// The time of change cannot be set back, and is another after each write.
fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    Some((found.dev(), found.ino(), found.size(), changed))
}

/// When the file at `path` became what it is; none where the system does not
/// say. It is never earlier than the file came to be there.
pub(super) fn changed_at(path: &Path) -> Option<Timestamp> {
    let found = std::fs::metadata(path).ok()?;
    let nanoseconds = i32::try_from(found.ctime_nsec()).ok()?;
    Timestamp::new(found.ctime(), nanoseconds).ok()
}

/// Looks at the folder that `dir` names until `stop`, and puts into `seen`
/// what it has been for a second.
pub(super) async fn keep_looking(
    mut dir: watch::Receiver<PathBuf>,
    seen: watch::Sender<Stamp>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let looking = async {
        let mut ear = Ear::default();
        loop {
            let path = dir.borrow_and_update().clone();
            ear.listen(&path);
            let mut now = look(&path).await;
            for _ in 0..QUIET_LOOKS {
                if now == *seen.borrow() {
                    break;
                }
                clock.sleep(QUIET).await;
                let later = look(&path).await;
                if later == now {
                    break;
                }
                now = later;
            }
            seen.send_if_modified(|before| {
                let is_new = *before != now;
                *before = now;
                is_new
            });
            tokio::select! {
                () = ear.change.notified() => {}
                _ = dir.changed() => {}
                () = clock.sleep(LOOK_EVERY) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = looking => {}
    }
}

/// [`stamp`], where a file system that hangs holds up nobody.
async fn look(dir: &Path) -> Stamp {
    let dir = dir.to_owned();
    let looked = tokio::task::spawn_blocking(move || stamp(&dir)).await;
    looked.unwrap_or_default()
}

/// What the system tells of a folder.
#[derive(Default)]
struct Ear {
    /// Something may have changed. Holds one hint: a thousand are as many.
    change: Arc<Notify>,
    /// What is listened to: the folder, or what it is to come back in.
    at: Option<(PathBuf, Option<(u64, u64)>)>,
    /// Listens until it is dropped.
    watcher: Option<RecommendedWatcher>,
}

impl Ear {
    /// Listens to `dir`, or to what it is in while it is not there. Does
    /// nothing where it listens to just that.
    fn listen(&mut self, dir: &Path) {
        let place = |path: &Path| std::fs::metadata(path).ok();
        let inode = place(dir).map(|found| (found.dev(), found.ino()));
        let at = Some((dir.to_owned(), inode));
        if self.at == at {
            return;
        }
        self.watcher = None;
        self.at = at;
        match self.watcher(dir, inode.is_some()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => tracing::warn!(
                "{}: changes are not told of, so it is looked at every {LOOK_EVERY:?}: {error}",
                dir.display(),
            ),
        }
    }

    fn watcher(&self, dir: &Path, is_there: bool) -> Result<RecommendedWatcher, notify::Error> {
        let dir = std::path::absolute(dir).map_err(notify::Error::io)?;
        let change = Arc::clone(&self.change);
        let within = dir.clone();
        let mut watcher = notify::recommended_watcher(move |told: notify::Result<Event>| {
            if told.is_ok_and(|event| is_about(&event, &within)) {
                change.notify_one();
            }
        })?;
        let nowhere = || notify::Error::io(io::Error::from(io::ErrorKind::NotFound));
        let at = match is_there {
            true => &dir,
            false => dir.parent().ok_or_else(nowhere)?,
        };
        watcher.watch(at, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Whether it may have changed what is in `dir`: that it was read has not, and
/// much happens beside it.
fn is_about(event: &Event, dir: &Path) -> bool {
    let is_inside = || event.paths.iter().any(|path| path.starts_with(dir));
    event.need_rescan() || !matches!(event.kind, EventKind::Access(_)) && is_inside()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_not_a_campaign_file_does_not_change_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.yaml"), "a").unwrap();
        let before = stamp(dir.path());
        for name in [".a.yaml.swp", "a.yaml~", "#a.yaml#", ".#a.yaml", "4913"] {
            fs::write(path(name), "x").unwrap();
        }
        assert_eq!(stamp(dir.path()), before);
    }

    #[test]
    fn each_way_of_changing_a_file_changes_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.yaml"), "a").unwrap();
        let mut seen = vec![stamp(dir.path())];
        let mut look = || {
            let now = stamp(dir.path());
            assert!(!seen.contains(&now), "{now:?}");
            seen.push(now);
        };
        fs::write(path("a.yaml"), "longer").unwrap();
        look();
        fs::write(path(".new"), "renamed").unwrap();
        fs::rename(path(".new"), path("a.yaml")).unwrap();
        look();
        fs::write(path("b.yml"), "another").unwrap();
        look();
        fs::remove_file(path("a.yaml")).unwrap();
        look();
        fs::remove_dir_all(dir.path()).unwrap();
        look();
    }
}
