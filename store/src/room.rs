//! The store's place on the disk, and the processes that use it: directories and their modes,
//! locks, leases, removals, and the cap on the disk space.
//!
//! [`Room`] is an open store without its contents. All handles of the floors above refer to it, and
//! it is closed with the last of them. It ends the process's leases then, and removes the process's
//! directory.
//!
//! A server opens several rooms on one index ([`Room::beside`]). Each counts as a process: it has its
//! own directory in `tmp/`, leases and reservation, so what a build holds ends with the build.

pub(crate) mod cap;
pub(crate) mod claiming;
mod keeper;
pub(crate) mod layout;
mod leases;
pub(crate) mod lock;
pub(crate) mod measure;
pub(crate) mod places;
pub(crate) mod private;
pub(crate) mod process;
pub(crate) mod remove;
pub(crate) mod rename;
mod trash;

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Transaction;

use self::cap::{Cap, Claim};
pub(crate) use self::keeper::Keeper;
use self::leases::Leases;
use self::lock::RootLock;
use self::process::ProcessDir;
use self::trash::Trash;
use crate::db::Index;
use crate::error::{Error, Result};

/// The time that closing waits for background removals. They go on after it while the process does;
/// otherwise, another process completes them.
const CLOSING: Duration = Duration::from_millis(50);

/// The size in bytes from which the index's log should be written back, about 60 pages.
const LONG_LOG: u64 = 1 << 18;

/// A store that this process has opened: its paths, its index, and this process's part of it.
#[derive(Debug)]
pub(crate) struct Room {
    root: PathBuf,
    trees: PathBuf,
    blobs: PathBuf,
    index: Arc<Index>,
    process: ProcessDir,
    trash: Trash,
    cap: Arc<Cap>,
    leases: Leases,
    /// `true` if this process has placed files since its last sync.
    unsynced: AtomicBool,
    keeper: Box<dyn Keeper>,
}

impl Room {
    /// Opens the store at `root`, and creates its directories and its index if they don't exist.
    /// `max_bytes` is the cap on the disk space.
    pub(crate) fn open(
        root: &Path,
        max_bytes: Option<u64>,
        keeper: Box<dyn Keeper>,
    ) -> Result<Self> {
        let root = std::path::absolute(root).map_err(Error::io("resolve", root))?;
        make_dirs(&root)?;
        let index = Index::open(&root, || RootLock::exclusive(&root))?;
        if let Some(cap) = max_bytes {
            index.bound_log(cap / 64)?;
        }
        let process = ProcessDir::create(&root)?;
        Ok(Self::with_index(root, Arc::new(index), process, max_bytes, keeper))
    }

    /// Opens the same store as another process would, but on the same index.
    pub(crate) fn beside(&self, keeper: Box<dyn Keeper>) -> Result<Self> {
        let process = ProcessDir::create(&self.root)?;
        let (root, index) = (self.root.clone(), Arc::clone(&self.index));
        Ok(Self::with_index(root, index, process, self.cap.bytes(), keeper))
    }

    fn with_index(
        root: PathBuf,
        index: Arc<Index>,
        process: ProcessDir,
        max_bytes: Option<u64>,
        keeper: Box<dyn Keeper>,
    ) -> Self {
        Self {
            trees: root.join(layout::TREES),
            blobs: root.join(layout::BLOBS),
            root,
            index,
            process,
            trash: Trash::default(),
            cap: Arc::new(Cap::new(max_bytes)),
            leases: Leases::default(),
            unsynced: AtomicBool::new(false),
            keeper,
        }
    }

    /// Returns the path of the root directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory of the layers' trees.
    pub(crate) fn trees(&self) -> &Path {
        &self.trees
    }

    /// Returns the directory of the blobs.
    pub(crate) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// Returns the path of the file for locks on keys.
    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Returns the index of the store.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Returns this process's directory in `tmp/`.
    pub(crate) fn process(&self) -> &ProcessDir {
        &self.process
    }

    /// Returns the background removals.
    pub(crate) fn trash(&self) -> &Trash {
        &self.trash
    }

    /// Returns the cap on the disk space, and this process's share of it.
    pub(crate) fn cap(&self) -> &Cap {
        &self.cap
    }

    /// Writes the rows of claimed data, and ends the claim in the same transaction.
    pub(crate) fn record<T>(
        &self,
        claim: &Claim,
        action: &'static str,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.cap.record(self, claim, action, write)
    }

    /// Returns a claim on zero bytes.
    pub(crate) fn claim(&self) -> Claim {
        Claim::new(&self.cap)
    }

    /// Takes the root lock for placing files and naming them in the index.
    pub(crate) fn placing(&self) -> Result<RootLock> {
        self.unsynced.store(true, Ordering::Relaxed);
        RootLock::shared(&self.root)
    }

    /// Returns `true` if this process has placed files since [`Room::begin_sync`].
    pub(crate) fn has_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Relaxed)
    }

    /// Notes that the files placed so far are about to be flushed.
    pub(crate) fn begin_sync(&self) {
        self.unsynced.store(false, Ordering::Relaxed);
    }

    /// Returns `true` if the index's log should be written back.
    pub(crate) fn has_long_log(&self) -> bool {
        let log = fs::metadata(self.root.join("kiln.db-wal"));
        log.is_ok_and(|log| log.len() > LONG_LOG)
    }

    /// Creates a file without a name in this process's directory.
    pub(crate) fn temp_file(&self) -> Result<File> {
        let path = self.process.fresh();
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(Error::io("create", &path))?;
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(file)
    }

    /// Moves a path of the store aside, and removes it in the background.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let here = self.process.fresh();
        match fs::rename(path, &here) {
            Ok(()) => self.trash.add(here, None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("rename", path)(error)),
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        self.keeper.flush(&self.index)?;
        self.end_leases()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // If this fails, the next process that opens the store does it.
        if let Err(error) = self.close() {
            tracing::debug!(%error, "can't close the store");
            return;
        }
        // The store is closed, so these files are unused. If they stayed, the next process would
        // run a recovery.
        for path in self.process.leftovers() {
            self.trash.add(path, None);
        }
        let path = self.process.path().to_owned();
        let name = self.process.name().to_owned();
        let index = self.cap.is_in_use().then(|| Arc::clone(&self.index));
        self.trash.finish(CLOSING, move || {
            let release = |transaction: &Transaction<'_>| cap::release(transaction, &name);
            if let Some(index) = index
                && let Err(error) = index.write("end a reservation", release)
            {
                tracing::debug!(%error, "can't end a reservation");
            }
            process::close(&path);
        });
    }
}

/// Returns the ID of the machine's current boot.
pub(crate) fn boot_id() -> String {
    // Without an ID, boots can't be distinguished, and all rows are trusted.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn make_dirs(root: &Path) -> Result<()> {
    if !root.is_dir() {
        let made = private::directories().recursive(true).create(root);
        made.map_err(Error::io("create", root))?;
    }
    private::protect(root)?;
    for name in [layout::TREES, "tmp", "mounts", "volumes", "builds", layout::ANCHOR] {
        private::create_dir(&root.join(name))?;
    }
    layout::create(root)
}
