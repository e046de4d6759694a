//! Changes to the entries of a tree, one after the other in the order of a walk.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, openat, symlinkat};
use rustix::io::Errno;

use crate::attributes::Attributes;
use crate::dir::Dir;
use crate::edit::{create_with_mode, make_node};
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata};
use crate::remove::remove_all;
use crate::walk::{open_without_links, split};
use crate::{names, permissions};

/// A writer of a tree's entries, for a caller that receives them in the order of a walk.
///
/// Paths have no leading slash, no empty component, no `.` and no `..`. A link on the way to an
/// entry is an error, unlike with the methods of [`Dir`], so a path leads to the entry that has it
/// and to no other. The writer keeps the last directory open: entries of the same directory need a
/// single lookup.
#[derive(Debug)]
pub struct EntryWriter<'a> {
    root: &'a Dir,
    /// The path of the open directory.
    parent: Vec<u8>,
    directory: Option<OwnedFd>,
}

impl<'a> EntryWriter<'a> {
    /// Creates a writer of entries below `root`.
    pub fn new(root: &'a Dir) -> Self {
        Self { root, parent: Vec::new(), directory: None }
    }

    /// Returns the metadata of the entry at `path`, regardless of records, or `None` if it doesn't
    /// exist.
    pub fn metadata(&mut self, path: &[u8]) -> Result<Option<Metadata>> {
        self.within("stat", path, |parent, name| match Metadata::of_entry(parent, name) {
            Err(Errno::NOENT) => Ok(None),
            metadata => metadata.map(Some),
        })
    }

    /// Creates a file for writing. Fails if the entry exists. [`EntryWriter::finish_file`] gives
    /// the file its other attributes.
    pub fn create_file(&mut self, path: &[u8], mode: u32) -> Result<File> {
        self.within("create", path, |parent, name| create_with_mode(parent, name, mode))
            .map(File::from)
    }

    /// Gives a new file its attributes. The time is set last. Returns the metadata of the complete
    /// file, regardless of records.
    pub fn finish_file(
        &self,
        file: &File,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<Metadata> {
        let finish = || {
            let made = Metadata::of_fd(file.as_fd())?;
            attributes.beyond(&made).apply_to_fd(file.as_fd())?;
            Metadata::of_fd(file.as_fd())
        };
        finish().map_err(|errno| Error::at("set attributes of", names::path(path), errno))
    }

    /// Creates a directory. Fails if the entry exists. Unlike with [`Dir::mkdir`], the directory
    /// has exactly the mode of `attributes`, even if its parent has the set-group-ID bit.
    pub fn make_dir(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        self.within("mkdir", path, |parent, name| {
            let mode = attributes.mode.unwrap_or(0o755);
            mkdirat(parent, names::path(name), permissions::initial(mode, true))?;
            let made = Metadata::of_entry(parent, name)?;
            attributes.beyond(&made).apply_to_entry(parent, name, FileKind::Directory)
        })
    }

    /// Creates a symbolic link to `target`. Fails if the entry exists.
    pub fn symlink(&mut self, target: &Path, path: &[u8], attributes: &Attributes) -> Result<()> {
        self.within("symlink", path, |parent, name| {
            symlinkat(target, parent, names::path(name))?;
            attributes.apply_to_entry(parent, name, FileKind::Symlink)
        })
    }

    /// Creates a fifo or a device. Fails for other types, and if the entry exists.
    pub fn make_node(
        &mut self,
        path: &[u8],
        kind: FileKind,
        attributes: &Attributes,
    ) -> Result<()> {
        self.within("mknod", path, |parent, name| make_node(parent, name, kind, attributes))
    }

    /// Creates a hard link to the file at `existing`. Fails if the entry exists.
    pub fn hard_link(&mut self, existing: &[u8], path: &[u8]) -> Result<()> {
        let (parent, old) = split(existing);
        let from = self.open(parent)?;
        self.within("link", path, |parent, name| {
            linkat(&from, names::path(old), parent, names::path(name), AtFlags::empty())
        })
    }

    /// Removes the entry at `path` and everything below it. Links are removed and never followed.
    /// Succeeds if the entry doesn't exist.
    pub fn remove(&mut self, path: &[u8]) -> Result<()> {
        let is_open = self.parent.strip_prefix(path);
        if is_open.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
            self.directory = None;
        }
        self.within("remove", path, remove_all)
    }

    /// Sets attributes of the entry at `path`, whose type is `kind`. A link isn't followed.
    pub fn set_attributes(
        &mut self,
        path: &[u8],
        kind: FileKind,
        attributes: &Attributes,
    ) -> Result<()> {
        self.within("set attributes of", path, |parent, name| {
            attributes.apply_to_entry(parent, name, kind)
        })
    }

    /// Calls `change` with the directory that contains `path`, and the name in it.
    fn within<T>(
        &mut self,
        action: &'static str,
        path: &[u8],
        change: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T> {
        let (parent, name) = split(path);
        if parent != self.parent.as_slice() {
            self.directory = None;
        }
        if self.directory.is_none() {
            self.directory = Some(self.open(parent)?);
            parent.clone_into(&mut self.parent);
        }
        let directory = self.directory.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd());
        change(directory, name).map_err(|errno| Error::at(action, names::path(path), errno))
    }

    /// Opens the directory at `path`, which may be the root.
    fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = if path.is_empty() {
            openat(self.root, ".", flags | OFlags::CLOEXEC, Mode::empty())
        } else {
            open_without_links(self.root.as_fd(), path, flags)
        };
        opened.map_err(|errno| Error::at("open", names::path(path), errno))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;
    use crate::metadata::Timestamp;

    #[test]
    fn entries_are_written_in_their_place_and_nowhere_else() {
        let temp = tempfile::tempdir().unwrap();
        let canary = tempfile::tempdir().unwrap();
        symlink(canary.path(), temp.path().join("out")).unwrap();
        symlink(".", temp.path().join("here")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut writer = EntryWriter::new(&dir);
        let mtime = Some(Timestamp { seconds: 5, nanoseconds: 7 });
        let attributes = Attributes { mode: Some(0o640), owner: None, mtime };

        writer.make_dir(b"d", &Attributes { mode: Some(0o711), ..attributes }).unwrap();
        let mut file = writer.create_file(b"d/f", 0o640).unwrap();
        file.write_all(b"text").unwrap();
        writer.finish_file(&file, b"d/f", &attributes).unwrap();
        writer.hard_link(b"d/f", b"d/g").unwrap();
        writer.symlink(Path::new("f"), b"d/l", &attributes).unwrap();
        writer.make_node(b"d/p", FileKind::Fifo, &attributes).unwrap();
        let made = std::fs::metadata(temp.path().join("d/g")).unwrap();
        assert_eq!((made.mode() & 0o7777, made.mtime(), made.nlink()), (0o640, 5, 2));
        assert_eq!(std::fs::metadata(temp.path().join("d")).unwrap().mode() & 0o7777, 0o711);
        assert_eq!(std::fs::symlink_metadata(temp.path().join("d/l")).unwrap().mtime(), 5);

        for path in [&b"out/f"[..], b"here/f", b"d/l/f", b"nope/f"] {
            assert!(writer.create_file(path, 0o600).is_err());
            assert!(writer.remove(path).is_err());
        }
        assert!(writer.create_file(b"out", 0o600).is_err());
        assert!(writer.hard_link(b"out/f", b"x").is_err());
        assert_eq!(std::fs::read_dir(canary.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_removed_directory_is_not_written_to() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut writer = EntryWriter::new(&dir);
        for _ in 0..2 {
            writer.make_dir(b"d", &Attributes::default()).unwrap();
            writer.make_dir(b"d/e", &Attributes::default()).unwrap();
            drop(writer.create_file(b"d/e/f", 0o600).unwrap());
            assert!(writer.metadata(b"d/e/f").unwrap().unwrap().is_file());
            writer.remove(b"d").unwrap();
            assert_eq!(writer.metadata(b"d").unwrap(), None);
        }
    }
}
