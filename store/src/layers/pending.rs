//! Trees of layers under construction.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_tree::{Changes, CopiedFiles, Dir};
use rustix::fs::CWD;

use super::LayerId;
use crate::error::{Error, Result};
use crate::room::Room;
use crate::room::cap::Claim;
use crate::room::claiming::Claiming;
use crate::room::rename::rename_directory;

/// A tree under construction in `tmp/`, and a work directory for overlayfs. Dropping it removes the
/// work directory and, unless it was committed, the tree.
#[derive(Debug)]
pub struct PendingTree {
    room: Arc<Room>,
    dir: PathBuf,
    fs: PathBuf,
    work: PathBuf,
    claim: Arc<Claim>,
    changes: Changes,
    copied: Option<CopiedFiles>,
    earlier: Option<LayerId>,
    placed: bool,
}

impl PendingTree {
    pub(super) fn create(room: &Arc<Room>) -> Result<Self> {
        let dir = room.process().fresh_dir()?;
        let (fs, work) = (dir.join("fs"), room.process().fresh());
        let claim = Arc::new(room.claim());
        let (room, changes) = (room.clone(), Changes::default());
        let (copied, earlier) = (None, None);
        let pending = Self { room, dir, fs, work, claim, changes, copied, earlier, placed: false };
        for path in [&pending.fs, &pending.work] {
            fs::create_dir(path).map_err(Error::io("create", path))?;
        }
        // This is the default mode of a container's root directory. The umask doesn't apply.
        fs::set_permissions(&pending.fs, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("change the mode of", &pending.fs))?;
        Ok(pending)
    }

    /// Returns the path of the tree.
    pub fn fs(&self) -> &Path {
        &self.fs
    }

    /// Opens the tree for writing. Copies and unpacking into it claim room first.
    pub fn open(&self) -> Result<Dir> {
        Ok(self.claiming(Dir::open(&self.fs)?))
    }

    /// Makes copies and unpacking into `dir`, which shows the tree, claim room first.
    pub fn claiming(&self, dir: Dir) -> Dir {
        if self.room.cap().bytes().is_none() {
            return dir;
        }
        dir.with_room(Arc::new(Claiming::new(&self.room, &self.claim)))
    }

    /// Stores the differences between the tar of the layer and the tree.
    pub fn note(&mut self, changes: Changes) {
        self.changes = changes;
    }

    /// Notes the source files behind the entries of the tree. It gets a record, with which later
    /// copies compare themselves ([`Layers::copied_tree`](super::Layers::copied_tree)).
    pub fn record(&mut self, copied: CopiedFiles) {
        self.copied = Some(copied);
    }

    /// Notes that the tree has only the differences from the tree of another layer.
    pub fn put_on(&mut self, earlier: LayerId) {
        self.earlier = Some(earlier);
    }

    /// Returns the source files behind the entries, if they were noted.
    pub(crate) fn copied(&self) -> Option<&CopiedFiles> {
        self.copied.as_ref()
    }

    /// Returns the layer whose tree is the lower part of the tree.
    pub(crate) fn earlier(&self) -> Option<&LayerId> {
        self.earlier.as_ref()
    }

    /// Returns the differences between the tar of the layer and the tree.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Claims room for a file of `bytes` bytes that is about to be written.
    pub fn claim_for(&self, bytes: u64) -> Result<()> {
        self.claim.add(&self.room, bytes)
    }

    /// Returns the claim on the tree's disk space.
    pub(crate) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }

    /// Returns the directory that becomes the layer's.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns an empty directory on the same file system, for overlayfs's `workdir`.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Moves the tree to its place. Returns `true` if the place was free. The caller holds the root
    /// lock shared until the tree has a row.
    pub(crate) fn place(&mut self, target: &Path) -> Result<bool> {
        self.placed =
            rename_directory(CWD, &self.dir, CWD, target).map_err(Error::io("rename", target))?;
        Ok(self.placed)
    }
}

impl Drop for PendingTree {
    fn drop(&mut self) {
        if !self.placed {
            self.room.trash().add(std::mem::take(&mut self.dir), Some(self.claim.clone()));
        }
        // Overlayfs leaves directories in it, which are removed in the background.
        self.room.trash().add(std::mem::take(&mut self.work), None);
    }
}
