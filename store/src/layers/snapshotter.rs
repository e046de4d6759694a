//! The selection of the method for combining layers.
//!
//! overlayfs shows a chain of layers as one tree for the cost of a mount, and writes changes to a
//! separate directory. Not every file system can contain that directory: an overlay (the root of a
//! container) and file systems in user space or on a network can't. And not every kernel lets a
//! user mount overlays. In these cases, trees are copied: see [`kiln_tree::assemble()`].
//!
//! The method is determined by a trial in the store's own directory, when it is first needed. The
//! result is remembered for the boot, as long as the store's mount and the process's privileges are
//! the same. Both methods read each other's trees, with one exception: if the file system refuses
//! overlayfs's marks of deletions, files replace them, and overlayfs can't read these. A store with
//! such trees uses copies from then on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kiln_oci::error::chain;
use kiln_tree::{Overlay, Upper};

use super::Layers;
use crate::error::{Error, Result};
use crate::room::layout::{FILE_MARKS, OVERLAY};
use crate::room::{Room, boot_id, private};

/// The warning for file systems without file capabilities, such as NFS.
const LOSES: &str = "the file system keeps no file capabilities, files lose theirs";

/// A file capability of the second version that grants nothing.
const NO_CAPABILITIES: [u8; 20] = [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The method for combining layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    /// Mounts of the kernel's overlayfs.
    Overlay,
    /// Copies, which share blocks and files if possible.
    Copy,
}

impl Snapshotter {
    /// Returns the name of the method, as `overlay`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Copy => "copy",
        }
    }
}

impl FromStr for Snapshotter {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "overlay" => Ok(Self::Overlay),
            "copy" => Ok(Self::Copy),
            _ => Err(format!("no snapshotter {text:?}: overlay or copy")),
        }
    }
}

/// The snapshotter of a store, with the reasons for its choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshotting {
    /// The method that the store uses.
    pub snapshotter: Snapshotter,
    /// The reason why overlayfs doesn't work, if it was tried, and what copies lose.
    pub reason: Option<String>,
    /// `true` if the file system refuses overlayfs's marks, so that files mark deletions in copies.
    pub file_marks: bool,
}

impl Layers {
    /// Returns the snapshotter. The first call in a process determines it.
    pub(crate) fn snapshotting(&self) -> Result<&Snapshotting> {
        if let Some(known) = self.state.snapshotting.get() {
            return Ok(known);
        }
        // Two threads may do this at the same time, with the same result.
        let chosen = choose(&self.room, self.state.wanted)?;
        Ok(self.state.snapshotting.get_or_init(|| chosen))
    }
}

/// Chooses a snapshotter, unless one is `wanted`.
///
/// # Errors
/// Fails if overlayfs is wanted but doesn't work, or if the store can't be written.
fn choose(room: &Room, wanted: Option<Snapshotter>) -> Result<Snapshotting> {
    let has_file_marks = room.root().join(FILE_MARKS).exists();
    let copy = |reason| {
        let file_marks = has_file_marks || !takes_marks(room)?;
        let reason = match reason {
            Some(reason) if !keeps_capabilities(room)? => Some(format!("{reason}; {LOSES}")),
            reason => reason,
        };
        Ok(Snapshotting { snapshotter: Snapshotter::Copy, reason, file_marks })
    };
    if wanted == Some(Snapshotter::Copy) {
        return copy(None);
    }
    let obstacle = if has_file_marks {
        Some("layers of this store mark deletions by files".to_owned())
    } else {
        obstacle(room)?
    };
    match (obstacle, wanted) {
        (None, _) => {
            let snapshotter = Snapshotter::Overlay;
            Ok(Snapshotting { snapshotter, reason: None, file_marks: false })
        }
        (Some(reason), None) => copy(Some(reason)),
        (Some(reason), Some(_)) => Err(Error::NoOverlay { root: room.root().to_owned(), reason }),
    }
}

/// Returns the reason why no overlay can be mounted, or `None` if it works or has worked in the
/// same situation.
fn obstacle(room: &Room) -> Result<Option<String>> {
    let situation = situation(room)?;
    if fs::read_to_string(room.root().join(OVERLAY)).is_ok_and(|known| known == situation) {
        return Ok(None);
    }
    let obstacle = try_overlay(room)?.err();
    if obstacle.is_none() {
        remember(room, &situation);
    }
    Ok(obstacle)
}

/// Describes the factors that decide whether an overlay can be mounted: the boot, the store's
/// device, and the process's privileges.
fn situation(room: &Room) -> Result<String> {
    let device = fs::metadata(room.root()).map_err(Error::io("look at", room.root()))?.dev();
    let may = rustix::thread::capabilities(None).map(|sets| sets.effective.bits());
    let (boot, ids) = (boot_id(), kiln_tree::Ids::current().on_disk());
    Ok(format!("boot {boot}\ndevice {device}\ncapabilities {may:?}\n{ids}"))
}

/// Remembers a situation. If this fails, the next process tries again.
fn remember(room: &Room, situation: &str) {
    let path = room.process().fresh();
    let placed = private::write(&path, situation.as_bytes())
        .and_then(|()| fs::rename(&path, room.root().join(OVERLAY)));
    if let Err(error) = placed {
        tracing::debug!(%error, "the snapshotter isn't remembered");
    }
}

/// Records that files mark deletions in some trees.
///
/// # Errors
/// Fails if the store can't be written.
pub(crate) fn note_file_marks(root: &Path) -> Result<()> {
    let path = root.join(FILE_MARKS);
    if path.exists() {
        return Ok(());
    }
    private::write(&path, b"").map_err(Error::io("create", path))
}

/// Mounts an overlay and changes a file in it, since some file systems report the problem only
/// then. Returns the kernel's error.
fn try_overlay(room: &Room) -> Result<std::result::Result<(), String>> {
    let top = room.process().fresh_dir()?;
    let make = |name: &str| -> Result<PathBuf> {
        let path = top.join(name);
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    };
    let (lower, fs, work) = (make("lower")?, make("upper")?, make("work")?);
    fs::write(lower.join("file"), "").map_err(Error::io("create", lower.join("file")))?;
    let overlay = Overlay { lowers: vec![lower], upper: Some(Upper { fs, work }) };
    let tried = overlay.open().and_then(|root| root.remove_all(Path::new("file")));
    room.trash().add(top, None);
    Ok(tried.map_err(|error| chain(&error)))
}

/// Returns `true` if overlayfs's marks work. Creates one and lists its directory, since some file
/// systems create and hide it, and then can't list the directory.
fn takes_marks(room: &Room) -> Result<bool> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let top = room.process().fresh_dir()?;
    let made = mknodat(CWD, top.join("mark"), FileType::CharacterDevice, Mode::empty(), 0);
    let listed = fs::read_dir(&top).map(|mut entries| entries.next().is_some_and(|e| e.is_ok()));
    room.trash().add(top, None);
    Ok(made.is_ok() && listed.unwrap_or(false))
}

/// Returns `true` if files can have capabilities.
fn keeps_capabilities(room: &Room) -> Result<bool> {
    let path = room.process().fresh();
    private::write(&path, b"").map_err(Error::io("create", &path))?;
    let keeps = takes_capabilities(&path);
    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    Ok(keeps)
}

/// Returns `true` if a file's file system has capabilities. If the process may not set them, it is
/// taken to.
fn takes_capabilities(file: &Path) -> bool {
    use rustix::fs::{XattrFlags, setxattr};
    let set = setxattr(file, "security.capability", &NO_CAPABILITIES, XattrFlags::empty());
    set != Err(rustix::io::Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, StoreOptions};

    fn open(root: &Path, snapshotter: Option<Snapshotter>) -> Store {
        Store::open_with(root, &StoreOptions { snapshotter, ..StoreOptions::default() }).unwrap()
    }

    #[test]
    fn copies_are_made_where_they_are_wanted() {
        let root = tempfile::tempdir().unwrap();
        let found = open(root.path(), Some(Snapshotter::Copy)).snapshotting().unwrap().clone();
        assert_eq!((found.snapshotter, found.reason), (Snapshotter::Copy, None));
    }

    #[test]
    fn file_systems_without_capabilities_are_known() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        assert!(takes_capabilities(temp.path()));
        if rustix::process::geteuid().is_root() {
            assert!(!takes_capabilities(Path::new("/proc/self/comm")));
        }
    }

    #[test]
    fn a_store_with_marks_by_files_stays_one_of_copies() {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path(), Some(Snapshotter::Copy));
        store.note_file_marks().unwrap();
        store.note_file_marks().unwrap();
        let found = open(root.path(), None).snapshotting().unwrap().clone();
        assert_eq!((found.snapshotter, found.file_marks), (Snapshotter::Copy, true));
        assert!(found.reason.unwrap().contains("mark deletions by files"));
        let refused = open(root.path(), Some(Snapshotter::Overlay));
        let error = refused.snapshotting().unwrap_err();
        assert!(matches!(error, Error::NoOverlay { .. }), "{error}");
    }

    #[test]
    fn names_are_read() {
        for snapshotter in [Snapshotter::Overlay, Snapshotter::Copy] {
            assert_eq!(snapshotter.name().parse(), Ok(snapshotter));
        }
        assert!("btrfs".parse::<Snapshotter>().is_err());
    }
}
