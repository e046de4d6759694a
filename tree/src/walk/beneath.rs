//! Opening of files by paths without links.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::path::{Directory, EntryPath};
use crate::dir::Dir;
use crate::error::{Error, NOT_REGULAR, Result};
use crate::inspected::{open_found, open_inspected};
use crate::metadata::FileKind;
use crate::names;

/// The maximal length of a path that is passed to the kernel in one piece.
const LONGEST_PATH: usize = 4000;

static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Splits a path without a leading slash into its parent and its name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Opens `path`, which has no leading slash, no `.` and no `..`, below `root`. A link in the path,
/// including its end, is an error.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut current: Option<OwnedFd> = None;
    let mut rest = path;
    while rest.len() > LONGEST_PATH {
        let end = rest[..LONGEST_PATH].iter().rposition(|byte| *byte == b'/');
        let end = end.ok_or(Errno::NAMETOOLONG)?;
        let parent = current.as_ref().map_or(root, AsFd::as_fd);
        let next = open_piece(parent, &rest[..end], OFlags::PATH | OFlags::DIRECTORY)?;
        current = Some(next);
        rest = &rest[end + 1..];
    }
    open_piece(current.as_ref().map_or(root, AsFd::as_fd), rest, flags)
}

fn open_piece(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if path.is_empty() {
        return openat(dir, ".", flags, Mode::empty());
    }
    if !path.contains(&b'/') {
        return openat(dir, path, flags, Mode::empty());
    }
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS) => NO_OPENAT2.store(true, Ordering::Relaxed),
            // Either a sandbox blocks the call, or the file refuses access. In the latter case, the
            // code below fails too.
            Err(Errno::PERM | Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    open_by_names(dir, path, flags)
}

/// Does the same as `openat2`, one name at a time.
fn open_by_names(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let (parent, last) = split(path);
    let mut current: Option<OwnedFd> = None;
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for name in names::components(parent) {
        let here = current.as_ref().map_or(dir, AsFd::as_fd);
        current = Some(openat(here, name, through, Mode::empty())?);
    }
    openat(current.as_ref().map_or(dir, AsFd::as_fd), last, flags, Mode::empty())
}

/// An opener for the regular files of a walk. It keeps the last file's directory open, so that the
/// next file needs a single lookup.
pub(crate) struct Opener<'a> {
    root: BorrowedFd<'a>,
    has_devices: bool,
    parent: Vec<u8>,
    /// The same path as `parent`, if it comes from a walk.
    shared: Option<Arc<Directory>>,
    directory: Option<OwnedFd>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(root: &'a Dir) -> Self {
        let has_devices = root.has_devices();
        Self { root: root.as_fd(), has_devices, parent: Vec::new(), shared: None, directory: None }
    }

    /// Opens a file that a walk has found, like [`Opener::open`].
    pub(crate) fn open_entry(&mut self, path: &EntryPath) -> Result<File> {
        if let (Some(shared), Some(directory)) = (&self.shared, path.directory())
            && Arc::ptr_eq(shared, directory)
        {
            return self.open_name(path.name(), || path.to_vec());
        }
        let opened = self.open(&path.to_vec());
        self.shared = path.directory().filter(|_| self.directory.is_some()).cloned();
        opened
    }

    /// Opens the file at `path`, a path of a walk. Links are not followed, and an entry of another
    /// type in the file's place isn't opened.
    pub(crate) fn open(&mut self, path: &[u8]) -> Result<File> {
        let (parent, name) = split(path);
        let failed = |errno| Error::io("open", names::path(path), errno);
        if parent != self.parent.as_slice() || self.directory.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            (self.directory, self.shared) = (None, None);
            self.directory = Some(open(self.root, parent, flags).map_err(failed)?);
            parent.clone_into(&mut self.parent);
        }
        self.open_name(name, || path.to_vec())
    }

    /// Opens a file of the open directory.
    fn open_name(&self, name: &[u8], path: impl Fn() -> Vec<u8>) -> Result<File> {
        let failed = |errno| Error::io("open", names::path(&path()), errno);
        let directory = self.directory.as_ref().map_or(self.root, AsFd::as_fd);
        let find = |flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(directory, name, flags, Mode::empty())
        };
        if !self.has_devices {
            return open_found(find).map(File::from).map_err(failed);
        }
        let opened = open_inspected(OFlags::RDONLY, FileKind::is_file, find).map_err(failed)?;
        opened.map(File::from).ok_or_else(|| Error::invalid(names::path(&path()), NOT_REGULAR))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_refused_with_and_without_openat2() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::fs::write(temp.path().join("a/b/f"), "text").unwrap();
        symlink("a", temp.path().join("link")).unwrap();
        symlink("f", temp.path().join("a/b/last")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for open in [open, open_by_names] {
            let open =
                |path: &[u8]| open(dir.as_fd(), path, OFlags::RDONLY | OFlags::NOFOLLOW).map(drop);
            assert_eq!(open(b"a/b/f"), Ok(()));
            assert!(matches!(open(b"link/b/f"), Err(Errno::LOOP | Errno::NOTDIR)));
            assert_eq!(open(b"a/b/last"), Err(Errno::LOOP));
            assert_eq!(open(b"a/b/none"), Err(Errno::NOENT));
        }
    }
}
