//! The destination directories of a copy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::attributes::{self, Attributes};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::{edit, names, remove, resolve};

/// A destination tree that opens the parent directories of entries. The last one stays open.
pub(crate) struct Place<'a> {
    dest: &'a Dir,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(dest: &'a Dir) -> Self {
        Self { dest, last: None }
    }

    /// Returns the open parent directory of `path`, a real path, and the name in it. The name of
    /// the root is `.`.
    pub(super) fn of<'p>(&mut self, path: &'p Path) -> Result<(BorrowedFd<'_>, &'p [u8])> {
        let (parent, name) = match names::split(path) {
            Some((parent, name)) => (parent, names::bytes(name)),
            None => (path, &b"."[..]),
        };
        let (_, fd) = match self.last.take() {
            Some(last) if last.0 == names::bytes(parent) => self.last.insert(last),
            _ => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let fd = resolve::open(self.dest.as_fd(), parent, flags, Mode::empty())
                    .map_err(|errno| Error::at("open", parent, errno))?;
                self.last.insert((names::bytes(parent).to_vec(), fd))
            }
        };
        Ok(((*fd).as_fd(), name))
    }

    /// Closes the open directory because an entry was removed.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Removes the entry at `path` unless both it and its replacement are directories.
    pub(super) fn replace(&mut self, path: &Path, with_dir: bool) -> Result<()> {
        let (dir, name) = self.of(path)?;
        let error = |errno| Error::io("remove", path, errno);
        match Metadata::of_entry(dir, name) {
            Ok(found) if found.is_dir() && with_dir => Ok(()),
            Ok(_) => {
                let removed = remove::remove_all(dir, name).map_err(error);
                self.forget();
                removed
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(error(errno)),
        }
    }

    /// Creates a directory unless it exists. Returns `true` if it was created.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<bool> {
        let (dir, name) = self.of(path)?;
        if name == b"." {
            return Ok(false);
        }
        match Metadata::of_entry(dir, name) {
            Ok(found) if found.is_dir() => Ok(false),
            Ok(_) => Err(Error::NotDirectory { path: path.to_path_buf() }),
            Err(Errno::NOENT) => {
                // Other users must not look into the directory before it has its owner.
                let private = Attributes { mode: Some(0o700), ..Attributes::default() };
                edit::make_dir(dir, name, &private).map_err(|errno| Error::io("mkdir", path, errno))
            }
            Err(errno) => Err(Error::io("stat", path, errno)),
        }
    }

    /// Removes an entry at `path` before a file is created there. Fails if it is a directory.
    pub(super) fn clear(&mut self, path: &Path) -> Result<()> {
        let (dir, name) = self.of(path)?;
        match unlinkat(dir, names::path(name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => match Metadata::of_entry(dir, name) {
                Ok(found) if found.is_dir() => Err(Error::IsDirectory { path: path.to_path_buf() }),
                _ => Err(Error::io("remove", path, errno)),
            },
        }
    }

    /// Applies the attributes and extended attributes of a directory, as far as the file system
    /// supports them.
    pub(crate) fn finish_directory(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        xattrs: &[attributes::Xattr],
    ) -> Result<()> {
        let (dir, name) = self.of(path)?;
        let error = |errno| Error::io("set attributes of", path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, names::path(name), flags, Mode::empty()).map_err(error)?;
        finish(fd.as_fd(), attributes, xattrs).map_err(error)
    }
}

/// Applies attributes to an open file or directory. The owner is set first, since changing it
/// clears `security.capability` and the setuid bit. Extended attributes that the file system
/// doesn't accept are left out, as in BuildKit.
pub(crate) fn finish(
    fd: BorrowedFd<'_>,
    attributes: &Attributes,
    xattrs: &[attributes::Xattr],
) -> Result<(), Errno> {
    let owner = Attributes { owner: attributes.owner, ..Attributes::default() };
    owner.apply_to_fd(fd)?;
    for (name, value) in xattrs {
        if attributes::is_reserved_xattr(name) {
            continue;
        }
        if let Err(errno) = attributes::set_xattr(fd, name, value) {
            let name = String::from_utf8_lossy(name);
            tracing::debug!(%name, %errno, "extended attribute left out");
        }
    }
    Attributes { owner: None, ..*attributes }.apply_to_fd(fd)
}
