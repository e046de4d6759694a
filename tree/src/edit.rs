//! Changing a tree: making, linking and removing entries.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use crate::attributes::{self, Attributes};
use crate::dir::{Dir, rooted};
use crate::error::{Error, NOT_REGULAR, Result};
use crate::inspected::open_inspected;
use crate::metadata::{FileKind, Metadata, Timestamp};
use crate::{names, remove};

/// The set-group-ID bit: what is made in a directory that has it gets its group, and directories the
/// bit as well.
const SETGID: u32 = 0o2000;

impl Dir {
    /// Makes a directory in a parent that is there, and tells whether it was made: one that is
    /// already there is left as it is.
    pub fn mkdir(&self, path: &Path, attributes: &Attributes) -> Result<bool> {
        let path = self.real_path(path)?;
        let Some((parent, name)) = self.parent_of(&path)? else { return Ok(false) };
        make_dir(parent.as_fd(), names::bytes(name), attributes)
            .map_err(|errno| Error::at("mkdir", &path, errno))
    }

    /// Makes a directory and the parents that aren't there, all with the same attributes, and
    /// returns those that were made, parents first. What is already there is left as it is.
    pub fn mkdir_all(&self, path: &Path, attributes: &Attributes) -> Result<Vec<PathBuf>> {
        let path = self.real_path(path)?;
        let error = |errno| Error::io("mkdir", &path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |dir: BorrowedFd<'_>, name| openat(dir, name, flags, Mode::empty());
        let mut current = open(self.as_fd(), Path::new(".")).map_err(error)?;
        let mut here = PathBuf::from("/");
        let mut made = Vec::new();
        // Downwards: a path may be thousands of names long, and to resolve each of its parents would
        // take the square of that.
        for name in names::components(names::bytes(&path)) {
            let next = match open(current.as_fd(), names::path(name)) {
                Err(Errno::NOENT) => {
                    if make_dir(current.as_fd(), name, attributes).map_err(error)? {
                        made.push(here.join(names::path(name)));
                    }
                    open(current.as_fd(), names::path(name))
                }
                result => result,
            };
            current = next.map_err(error)?;
            here.push(names::path(name));
        }
        self.stamp(&made, attributes.mtime)?;
        Ok(made)
    }

    /// Sets the modification time of directories, deepest first, since what was made in them has
    /// changed it.
    pub(crate) fn stamp(&self, made: &[PathBuf], mtime: Option<Timestamp>) -> Result<()> {
        if mtime.is_some() {
            for path in made.iter().rev() {
                self.set_attributes(path, &Attributes { mtime, ..Attributes::default() })?;
            }
        }
        Ok(())
    }

    /// Makes or truncates the file at `path`, following links inside the root, and writes it. A
    /// file that is already there keeps its mode.
    pub fn write_file(&self, path: &Path, content: &[u8], attributes: &Attributes) -> Result<()> {
        let path = self.real_path(path)?;
        let error = |errno| Error::at("write", &path, errno);
        let Some((parent, name)) = self.parent_of(&path)? else {
            return Err(Error::io("write", &path, Errno::ISDIR));
        };
        let mut wanted = *attributes;
        let fd = match create(parent.as_fd(), names::bytes(name)) {
            Err(Errno::EXIST) => {
                wanted.mode = None;
                let find = |flags| openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty());
                let there = open_inspected(OFlags::WRONLY | OFlags::TRUNC, FileKind::is_file, find)
                    .map_err(error)?;
                there.ok_or_else(|| Error::invalid(&path, NOT_REGULAR))?
            }
            result => result.map_err(error)?,
        };
        let mut file = File::from(fd);
        file.write_all(content).map_err(|source| Error::io("write", &path, source))?;
        wanted.apply_to_fd(file.as_fd()).map_err(error)
    }

    /// Makes a new file for writing; nothing may be at `path`.
    pub fn create_file(&self, path: &Path, mode: u32) -> Result<File> {
        let path = rooted(path);
        let Some((parent, name)) = self.parent_of(&path)? else {
            return Err(Error::io("create", &path, Errno::ISDIR));
        };
        let error = |errno| Error::at("create", &path, errno);
        let fd = create(parent.as_fd(), names::bytes(name)).map_err(error)?;
        let attributes = Attributes { mode: Some(mode), ..Attributes::default() };
        attributes.apply_to_fd(fd.as_fd()).map_err(error)?;
        Ok(File::from(fd))
    }

    /// Makes a symbolic link that holds `target`.
    pub fn symlink(&self, target: &Path, path: &Path, attributes: &Attributes) -> Result<()> {
        self.make_entry("symlink", path, |parent, name| {
            symlinkat(target, parent, name)?;
            attributes.apply_to_entry(parent, names::bytes(name), FileKind::Symlink)
        })
    }

    /// Makes a fifo or a device; nothing is made for a socket.
    pub fn make_node(&self, path: &Path, kind: FileKind, attributes: &Attributes) -> Result<()> {
        self.make_entry("mknod", path, |parent, name| {
            make_node(parent, names::bytes(name), kind, attributes)
        })
    }

    /// Gives the file at `existing` another name. A link at the end of `existing` isn't followed.
    pub fn hard_link(&self, existing: &Path, path: &Path) -> Result<()> {
        let existing = rooted(existing);
        let Some((from, old)) = self.parent_of(&existing)? else {
            return Err(Error::io("link", &existing, Errno::PERM));
        };
        self.make_entry("link", path, |parent, name| {
            linkat(&from, old, parent, name, AtFlags::empty())
        })
    }

    /// Removes what is at `path` and all below it. Links are removed, never followed. Nothing being
    /// there is fine.
    pub fn remove_all(&self, path: &Path) -> Result<()> {
        let path = rooted(path);
        let parent = match self.parent_of(&path) {
            Ok(Some(parent)) => parent,
            Ok(None) => return Err(Error::invalid(&path, "the root can't be removed")),
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(Error::Io { source, .. })
                if source.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        remove::remove_all(parent.0.as_fd(), names::bytes(parent.1))
            .map_err(|errno| Error::io("remove", &path, errno))
    }

    /// Gives attributes to what is at `path`; a link at its end isn't followed.
    pub fn set_attributes(&self, path: &Path, attributes: &Attributes) -> Result<()> {
        let path = rooted(path);
        let error = |errno| Error::at("set attributes of", &path, errno);
        let Some((parent, name)) = self.parent_of(&path)? else {
            return attributes.apply_to_fd(self.as_fd()).map_err(error);
        };
        let name = names::bytes(name);
        let metadata = Metadata::of_entry(parent.as_fd(), name).map_err(error)?;
        attributes.apply_to_entry(parent.as_fd(), name, metadata.kind).map_err(error)
    }

    /// Sets an extended attribute of the file or directory at `path`; a link isn't followed.
    pub fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
        let path = rooted(path);
        let fd = self.open_attributed(&path)?;
        let fd = fd.ok_or_else(|| Error::invalid(&path, "it can't have attributes"))?;
        attributes::set_xattr(fd.as_fd(), name, value)
            .map_err(|errno| Error::io("set attributes of", &path, errno))
    }

    /// Returns the directory that holds `path`, absolute and clean, and the name in it; `None` for
    /// the root.
    pub(crate) fn parent_of<'p>(&self, path: &'p Path) -> Result<Option<(OwnedFd, &'p OsStr)>> {
        let Some((parent, name)) = names::split(path) else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(Some((self.open_at("open", parent, flags)?, name)))
    }

    fn make_entry(
        &self,
        action: &'static str,
        path: &Path,
        make: impl FnOnce(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
    ) -> Result<()> {
        let path = rooted(path);
        let Some((parent, name)) = self.parent_of(&path)? else {
            return Err(Error::io(action, &path, Errno::EXIST));
        };
        make(parent.as_fd(), name).map_err(|errno| Error::at(action, &path, errno))
    }
}

/// Makes a directory; false where one is already there.
pub(crate) fn make_dir(
    parent: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
) -> Result<bool, Errno> {
    let mode = attributes.mode.unwrap_or(0o755);
    match mkdirat(parent, names::path(name), Mode::from_raw_mode(mode & 0o777)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let metadata = Metadata::of_entry(parent, name)?;
            return if metadata.is_dir() { Ok(false) } else { Err(Errno::EXIST) };
        }
        Err(errno) => return Err(errno),
    }
    // The process's umask has no say, but a parent that hands on its group does.
    let inherited = Metadata::of_entry(parent, name)?.mode & SETGID;
    let attributes = Attributes { mode: Some(mode | inherited), ..*attributes };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, names::path(name), flags, Mode::empty()) {
        Ok(fd) => attributes.apply_to_fd(fd.as_fd())?,
        // Without privileges and without the right to read.
        Err(_) => attributes.apply_to_entry(parent, name, FileKind::Directory)?,
    }
    Ok(true)
}

/// Makes a new file for writing, that nobody else may read yet.
pub(crate) fn create(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    create_with_mode(parent, name, 0o600)
}

/// Makes a new file for writing, with permission bits of which the process's umask may take some.
pub(crate) fn create_with_mode(
    parent: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, names::path(name), flags, Mode::from_raw_mode(mode & 0o777))
}

/// Makes a fifo or a device; other kinds are refused.
pub(crate) fn make_node(
    parent: BorrowedFd<'_>,
    name: &[u8],
    kind: FileKind,
    attributes: &Attributes,
) -> Result<(), Errno> {
    let (file_type, device) = match kind {
        FileKind::Fifo => (FileType::Fifo, 0),
        FileKind::CharDevice { major, minor } => {
            (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
        }
        FileKind::BlockDevice { major, minor } => {
            (FileType::BlockDevice, rustix::fs::makedev(major, minor))
        }
        _ => return Err(Errno::INVAL),
    };
    let mode = Mode::from_raw_mode(attributes.mode.unwrap_or(0o644) & 0o777);
    mknodat(parent, names::path(name), file_type, mode, device)?;
    attributes.apply_to_entry(parent, name, kind)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::metadata::Owner;

    fn root() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        (temp, dir)
    }

    #[test]
    fn directories_hand_on_their_group() {
        let (temp, dir) = root();
        let attributes = Attributes { mode: Some(0o755), ..Attributes::default() };
        std::fs::create_dir(temp.path().join("g")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o2775);
        std::fs::set_permissions(temp.path().join("g"), mode).unwrap();
        dir.mkdir_all(Path::new("/g/a/b"), &attributes).unwrap();
        dir.mkdir(Path::new("/g/c"), &attributes).unwrap();
        for path in ["g/a", "g/a/b", "g/c"] {
            let mode = temp.path().join(path).metadata().unwrap().mode();
            assert_eq!(mode & 0o7777, 0o2755, "{path}");
        }
    }

    #[test]
    fn parents_are_made_through_links_with_mode_owner_and_time() {
        let (temp, dir) = root();
        std::fs::create_dir(temp.path().join("real")).unwrap();
        symlink("/real", temp.path().join("link")).unwrap();
        let attributes = Attributes {
            mode: Some(0o751),
            owner: Some(Owner { uid: 7, gid: 8 }),
            mtime: Some(Timestamp { seconds: 1000, nanoseconds: 5 }),
        };
        let made = dir.mkdir_all(Path::new("link/a/b"), &attributes).unwrap();
        assert_eq!(made, [Path::new("/real/a"), Path::new("/real/a/b")]);
        for path in ["real/a", "real/a/b"] {
            let metadata = std::fs::metadata(temp.path().join(path)).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o751, 7, 8));
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1000, 5));
        }
        assert_eq!(std::fs::metadata(temp.path().join("real")).unwrap().uid(), 0);
        assert!(dir.mkdir_all(Path::new("/link/a/b"), &attributes).unwrap().is_empty());
        std::fs::write(temp.path().join("file"), "").unwrap();
        assert!(dir.mkdir_all(Path::new("/file"), &attributes).is_err());
        assert!(dir.mkdir_all(Path::new("/file/x"), &attributes).is_err());
    }

    #[test]
    fn files_are_written_through_links_but_not_out_of_the_root() {
        let (temp, dir) = root();
        symlink("/etc/kiln-canary", temp.path().join("link")).unwrap();
        std::fs::create_dir(temp.path().join("etc")).unwrap();
        let attributes = Attributes { mode: Some(0o600), ..Attributes::default() };
        dir.write_file(Path::new("link"), b"one", &attributes).unwrap();
        dir.write_file(Path::new("link"), b"2", &Attributes::default()).unwrap();
        let written = temp.path().join("etc/kiln-canary");
        assert_eq!(std::fs::read(&written).unwrap(), b"2");
        assert_eq!(std::fs::metadata(&written).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!Path::new("/etc/kiln-canary").exists());
    }

    #[test]
    fn removal_never_follows() {
        let (temp, dir) = root();
        let canary = tempfile::tempdir().unwrap();
        std::fs::write(canary.path().join("f"), "").unwrap();
        std::fs::create_dir_all(temp.path().join("d/e/f")).unwrap();
        symlink(canary.path(), temp.path().join("d/e/out")).unwrap();
        symlink(canary.path(), temp.path().join("out")).unwrap();
        dir.remove_all(Path::new("d")).unwrap();
        dir.remove_all(Path::new("out")).unwrap();
        dir.remove_all(Path::new("d/not/there")).unwrap();
        assert!(dir.remove_all(Path::new("..")).is_err());
        assert!(dir.names().unwrap().is_empty());
        assert!(canary.path().join("f").exists());
    }

    #[test]
    fn an_owner_that_means_unchanged_is_refused() {
        let (_temp, dir) = root();
        let owner = Some(Owner { uid: u32::MAX, gid: 0 });
        assert!(dir.mkdir(Path::new("d"), &Attributes { owner, ..Attributes::default() }).is_err());
    }
}
