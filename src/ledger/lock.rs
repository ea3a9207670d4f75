//! One process to a store.

use super::trouble;
use crate::run::LedgerError;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Only the daemon's own user reads the store: it names campaigns and their SQL.
const OWNER_ONLY: u32 = 0o600;

/// The right to write a store, held as long as this lives. The operating
/// system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock beside `store`, or says that somebody has it.
    pub(super) fn take(store: &Path) -> Result<Self, LedgerError> {
        let mut name = store.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = open(&path).map_err(|error| trouble::file(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LedgerError::InUse {
                store: store.display().to_string(),
            }),
            Err(TryLockError::Error(error)) => Err(trouble::file(&path, &error)),
        }
    }
}

/// Makes the store's file where there is none, for its owner alone. SQLite
/// gives the files it puts beside it the same mode.
pub(super) fn create(store: &Path) -> Result<(), LedgerError> {
    let is_new = !store.exists();
    let trouble = |error: std::io::Error| trouble::file(store, &error);
    open(store).map_err(trouble)?;
    if is_new {
        // The file's entry in its folder must survive a power cut too.
        let folder = match store.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = File::open(folder).map_err(trouble)?;
        folder.sync_all().map_err(trouble)?;
    }
    Ok(())
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY)
        .open(path)
}
