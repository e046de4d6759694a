//! The creation and removal of mount points.
//!
//! A mount needs an existing mount point. The sandbox creates missing ones in the root file system,
//! so they end up in the upper directory, which becomes a layer. Afterwards it removes those that
//! are still empty. It also removes directories that were copied up only for them and haven't
//! changed, and restores the times of their parents.
//!
//! By then the program has had full control of the tree. So this module follows no links: it opens
//! every path below the upper directory with `RESOLVE_NO_SYMLINKS`, and leaves everything that has
//! changed as it is.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, openat2,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::SandboxError;
use super::spec::Tree;

/// The files and directories created in the root file system. Paths are real and relative to the
/// root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CreatedStubs {
    /// The mount points, parents before children.
    pub(super) stubs: Vec<PathBuf>,
    /// The directories that were copied up to the upper directory, parents before children.
    pub(super) copied_up: Vec<CopiedUp>,
}

/// The state of a directory before it was copied up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CopiedUp {
    pub(super) path: PathBuf,
    pub(super) look: Look,
}

/// The attributes that identify an unchanged directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Look {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: (i64, i64),
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Look {
    /// Reads the attributes of an open directory.
    pub(super) fn of(directory: &OwnedFd) -> rustix::io::Result<Self> {
        let stat = rustix::fs::fstat(directory)?;
        Ok(Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            attributes: attributes(directory)?,
        })
    }
}

impl Look {
    /// Returns the extended attributes.
    pub(super) fn into_attributes(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.attributes
    }
}

/// The prefixes of overlayfs's own attributes, as root and in a user namespace.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Returns the extended attributes except overlayfs's own.
fn attributes(fd: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut attributes = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let own = OVERLAY.iter().find_map(|prefix| name.strip_prefix(*prefix));
        if own.is_some_and(|name| name != b"opaque") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(fd, name, &mut value[..])?;
        value.truncate(length);
        attributes.push((name.to_vec(), value));
    }
    attributes.sort();
    Ok(attributes)
}

/// The cleanup of the directory that holds a root file system's changes.
#[derive(Clone, Debug)]
pub(super) struct Cleanup {
    directory: PathBuf,
}

impl Cleanup {
    /// Returns the cleanup of a tree. Returns `None` if the tree is read-only.
    pub(super) fn of(tree: &Tree) -> Option<Self> {
        let directory = match tree {
            Tree::Directory(path) => path,
            Tree::Overlay { .. } => tree.upper()?,
        };
        Some(Self { directory: directory.clone() })
    }

    /// Removes the created files and directories that are still empty.
    pub(super) fn remove(&self, made: &CreatedStubs) -> Result<(), SandboxError> {
        if made.stubs.is_empty() {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(&self.directory, flags, Mode::empty())
            .map_err(|errno| SandboxError::host("open upper directory")(errno.into()))?;
        for stub in made.stubs.iter().rev() {
            tolerate(remove_stub(&upper, stub))?;
        }
        for directory in made.copied_up.iter().rev() {
            tolerate(remove_copied_up(&upper, directory))?;
        }
        Ok(())
    }
}

/// Ignores errors about entries that the program has removed, replaced, filled or redirected.
fn tolerate(result: rustix::io::Result<()>) -> Result<(), SandboxError> {
    match result {
        Ok(())
        | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NOTEMPTY) => Ok(()),
        Err(errno) => Err(SandboxError::host("remove mount point")(errno.into())),
    }
}

fn remove_stub(upper: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    let Some((parent, name)) = open_parent(upper, path)? else { return Ok(()) };
    let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        // The kernel refuses to remove a directory that isn't empty.
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    keeping_times(&parent, || rustix::fs::unlinkat(&parent, name, flags))
}

fn remove_copied_up(upper: &OwnedFd, copied: &CopiedUp) -> rustix::io::Result<()> {
    let directory = open_below(upper, &copied.path)?;
    if !is_empty(&directory)? || Look::of(&directory)? != copied.look {
        return Ok(());
    }
    let Some((parent, name)) = open_parent(upper, &copied.path)? else { return Ok(()) };
    keeping_times(&parent, || rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR))
}

fn open_parent<'a>(
    upper: &OwnedFd,
    path: &'a Path,
) -> rustix::io::Result<Option<(OwnedFd, &'a std::ffi::OsStr)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Ok(Some((open_below(upper, parent)?, name)))
}

/// Opens a directory below `upper` for reading without following links.
pub(super) fn open_below(upper: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match openat2(upper.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn is_empty(directory: &OwnedFd) -> rustix::io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Changes a directory's entries and restores its times.
pub(super) fn keeping_times<T>(
    directory: &OwnedFd,
    change: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let times = times(&rustix::fs::fstat(directory)?);
    let result = change()?;
    rustix::fs::futimens(directory, &times)?;
    Ok(result)
}

/// Returns the times of a file.
pub(super) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use super::*;

    fn made(stubs: &[&str]) -> CreatedStubs {
        CreatedStubs { stubs: stubs.iter().map(PathBuf::from).collect(), copied_up: Vec::new() }
    }

    fn clean(upper: &Path, made: &CreatedStubs) {
        Cleanup::of(&Tree::Directory(upper.to_owned())).unwrap().remove(made).unwrap();
    }

    #[test]
    fn empty_stubs_go_and_others_stay() {
        let upper = tempfile::tempdir().unwrap();
        let at = |path: &str| upper.path().join(path);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::write(at("empty"), "").unwrap();
        std::fs::write(at("full"), "x").unwrap();
        std::fs::create_dir_all(at("used/kept")).unwrap();
        let stubs = ["a", "a/b", "a/b/c", "empty", "full", "used", "gone/below"];
        clean(upper.path(), &made(&stubs));
        assert!(!at("a").exists() && !at("empty").exists());
        assert!(at("full").exists() && at("used/kept").exists());
    }

    #[test]
    fn nothing_is_followed_out() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("b")).unwrap();
        std::fs::write(outside.path().join("f"), "").unwrap();
        let upper = tempfile::tempdir().unwrap();
        symlink(outside.path(), upper.path().join("a")).unwrap();
        symlink(outside.path().join("f"), upper.path().join("f")).unwrap();
        clean(upper.path(), &made(&["a", "a/b", "a/f", "f", "../up", "a/../../x"]));
        assert!(outside.path().join("b").exists() && outside.path().join("f").exists());
        assert!(upper.path().join("f").is_symlink());
    }

    #[test]
    fn directories_copied_up_go_only_unchanged() {
        let upper = tempfile::tempdir().unwrap();
        let look = |name: &str| {
            let file = File::open(upper.path().join(name)).unwrap();
            Look::of(&file.into()).unwrap()
        };
        for name in ["same", "changed"] {
            std::fs::create_dir(upper.path().join(name)).unwrap();
        }
        let mut made = made(&["same/stub", "changed/stub"]);
        for name in ["same", "changed"] {
            made.copied_up.push(CopiedUp { path: name.into(), look: look(name) });
        }
        let root = OwnedFd::from(File::open(upper.path()).unwrap());
        for name in ["same", "changed"] {
            let directory = open_below(&root, Path::new(name)).unwrap();
            let mode = Mode::from_raw_mode(0o755);
            keeping_times(&directory, || rustix::fs::mkdirat(&directory, "stub", mode)).unwrap();
        }
        let changed = File::open(upper.path().join("changed")).unwrap();
        rustix::fs::fchmod(changed, Mode::from_raw_mode(0o700)).unwrap();
        clean(upper.path(), &made);
        assert!(!upper.path().join("same").exists());
        assert!(upper.path().join("changed").exists());
        assert!(!upper.path().join("changed/stub").exists());
    }
}
