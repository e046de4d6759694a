//! How layers are laid one on top of the other.
//!
//! overlayfs shows a chain of layers as one tree for the price of a mount, and takes what is written
//! into a directory of its own. Not every file system can hold that directory, as an overlay itself
//! (the root of a container) or one in user space or on a network can't; and not every kernel lets a
//! user mount overlays. There, trees are copied: see [`kiln_tree::assemble`].
//!
//! Which of the two it is, is found out by trying it in the store's own directory, when it is first
//! needed, and remembered for the boot, as long as the store is mounted as it was and the process may do
//! the same. Trees that either makes are read by both, with one exception: where the file system
//! refuses overlayfs's marks of deletions, and files take their place, overlayfs can't read them. A
//! store that has such trees is one of copies from then on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kiln_tree::{Overlay, Upper};

use crate::error::{Error, Result};
use crate::store::Inner;
use crate::{private, recovery};

/// A file that is there once deletions are marked by files.
pub(crate) const FILE_MARKS: &str = "file-marks";

/// A file that says in which situation an overlay was mounted.
pub(crate) const REMEMBERED: &str = "overlay";

/// The warning for file systems such as NFS.
const LOSES: &str = "the file system keeps no file capabilities, files lose theirs";

/// A file capability of the second version that grants nothing.
const NO_CAPABILITIES: [u8; 20] = [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// How layers are laid one on top of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    /// By overlayfs.
    Overlay,
    /// By copies, which share what they can.
    Copy,
}

impl Snapshotter {
    /// Returns its name, as `overlay`.
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

/// The snapshotter of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshotting {
    /// Which one.
    pub snapshotter: Snapshotter,
    /// Why it can't be overlayfs, where that was tried, and what copies lose.
    pub reason: Option<String>,
    /// Whether the file system refuses overlayfs's marks of deletions, so that copies are marked by
    /// files.
    pub file_marks: bool,
}

/// Chooses a snapshotter, unless one is `wanted`.
///
/// # Errors
/// Fails where overlayfs is wanted and can't be had, or the store can't be written.
pub(crate) fn choose(inner: &Inner, wanted: Option<Snapshotter>) -> Result<Snapshotting> {
    let has_file_marks = inner.root.join(FILE_MARKS).exists();
    let copy = |reason| {
        let file_marks = has_file_marks || !takes_marks(inner)?;
        let reason = match reason {
            Some(reason) if !keeps_capabilities(inner)? => Some(format!("{reason}; {LOSES}")),
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
        obstacle(inner)?
    };
    match (obstacle, wanted) {
        (None, _) => {
            let snapshotter = Snapshotter::Overlay;
            Ok(Snapshotting { snapshotter, reason: None, file_marks: false })
        }
        (Some(reason), None) => copy(Some(reason)),
        (Some(reason), Some(_)) => Err(Error::NoOverlay { root: inner.root.clone(), reason }),
    }
}

/// Returns why no overlay can be mounted, unless one can, or could in the same situation.
fn obstacle(inner: &Inner) -> Result<Option<String>> {
    let situation = situation(inner)?;
    if fs::read_to_string(inner.root.join(REMEMBERED)).is_ok_and(|known| known == situation) {
        return Ok(None);
    }
    let obstacle = try_overlay(inner)?.err();
    if obstacle.is_none() {
        remember(inner, &situation);
    }
    Ok(obstacle)
}

/// Describes what decides whether an overlay can be mounted: the boot, where the store lies, and what
/// the process may do.
fn situation(inner: &Inner) -> Result<String> {
    let device = fs::metadata(&inner.root).map_err(Error::io("look at", &inner.root))?.dev();
    let may = rustix::thread::capabilities(None).map(|sets| sets.effective.bits());
    let (boot, ids) = (recovery::boot_id(), kiln_tree::Ids::current().on_disk());
    Ok(format!("boot {boot}\ndevice {device}\ncapabilities {may:?}\n{ids}"))
}

/// Remembers a situation. Where that fails, it is tried again.
fn remember(inner: &Inner, situation: &str) {
    let path = inner.process.fresh();
    let placed = private::write(&path, situation.as_bytes())
        .and_then(|()| fs::rename(&path, inner.root.join(REMEMBERED)));
    if let Err(error) = placed {
        tracing::debug!(%error, "the snapshotter isn't remembered");
    }
}

/// Notes that there are trees in which deletions are marked by files.
///
/// # Errors
/// Fails where the store can't be written.
pub(crate) fn note_file_marks(root: &Path) -> Result<()> {
    let path = root.join(FILE_MARKS);
    if path.exists() {
        return Ok(());
    }
    private::write(&path, b"").map_err(Error::io("create", path))
}

/// Mounts an overlay, and changes something in it: some file systems notice only then. Returns what
/// the kernel says against it.
fn try_overlay(inner: &Inner) -> Result<std::result::Result<(), String>> {
    let top = inner.process.fresh_dir()?;
    let make = |name: &str| -> Result<PathBuf> {
        let path = top.join(name);
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    };
    let (lower, fs, work) = (make("lower")?, make("upper")?, make("work")?);
    fs::write(lower.join("file"), "").map_err(Error::io("create", lower.join("file")))?;
    let overlay = Overlay { lowers: vec![lower], upper: Some(Upper { fs, work }) };
    let tried = overlay.open().and_then(|root| root.remove_all(Path::new("file")));
    inner.trash.add(top, None);
    Ok(tried.map_err(|error| told(&error)))
}

/// Makes a mark of overlayfs's and looks whether it is there: some file systems make one and hide it,
/// and don't list its directory any more.
fn takes_marks(inner: &Inner) -> Result<bool> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let top = inner.process.fresh_dir()?;
    let made = mknodat(CWD, top.join("mark"), FileType::CharacterDevice, Mode::empty(), 0);
    let listed = fs::read_dir(&top).map(|mut entries| entries.next().is_some_and(|e| e.is_ok()));
    inner.trash.add(top, None);
    Ok(made.is_ok() && listed.unwrap_or(false))
}

/// Tells whether files can have capabilities.
fn keeps_capabilities(inner: &Inner) -> Result<bool> {
    let path = inner.process.fresh();
    private::write(&path, b"").map_err(Error::io("create", &path))?;
    let keeps = takes_capabilities(&path);
    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    Ok(keeps)
}

/// Tells whether a file's file system has capabilities. Where the process may not set them, it is
/// taken to.
fn takes_capabilities(file: &Path) -> bool {
    use rustix::fs::{XattrFlags, setxattr};
    let set = setxattr(file, "security.capability", &NO_CAPABILITIES, XattrFlags::empty());
    set != Err(rustix::io::Errno::OPNOTSUPP)
}

fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", told(source)),
        None => error.to_string(),
    }
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
