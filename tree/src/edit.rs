//! Changes to a tree: creating, linking and removing entries.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, XattrFlags, fsetxattr, linkat, mkdirat, mknodat, openat,
    symlinkat,
};
use rustix::io::Errno;

use crate::attributes::{self, Attributes};
use crate::dir::{Dir, rooted};
use crate::error::{Error, NOT_REGULAR, Result};
use crate::ids::Ids;
use crate::inspected::open_inspected;
use crate::metadata::{FileKind, Metadata, Timestamp};
use crate::{names, permissions, records, remove};

/// The set-group-ID bit. New entries of a directory with this bit inherit its group, and new
/// directories also the bit.
const SETGID: u32 = 0o2000;

impl Dir {
    /// Creates a directory whose parent exists. Returns `true` if it was created. An existing
    /// directory is unchanged.
    pub fn mkdir(&self, path: &Path, attributes: &Attributes) -> Result<bool> {
        let path = self.real_path(path)?;
        let Some((parent, name)) = self.parent_of(&path)? else { return Ok(false) };
        make_dir(parent.as_fd(), names::bytes(name), attributes)
            .map_err(|errno| Error::at("mkdir", &path, errno))
    }

    /// Creates a directory and its missing parents, all with the same attributes. Returns the new
    /// directories, parents first. Existing directories are unchanged.
    pub fn mkdir_all(&self, path: &Path, attributes: &Attributes) -> Result<Vec<PathBuf>> {
        let path = self.real_path(path)?;
        let error = |errno| Error::io("mkdir", &path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |dir: BorrowedFd<'_>, name| openat(dir, name, flags, Mode::empty());
        let mut current = open(self.as_fd(), Path::new(".")).map_err(error)?;
        let mut here = PathBuf::from("/");
        let mut made = Vec::new();
        // The loop goes downwards with open directories. A path may have thousands of components,
        // and resolving each parent from the root would take quadratic time.
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

    /// Sets the modification time of new directories, deepest first, since creating entries in them
    /// has changed it.
    pub(crate) fn stamp(&self, made: &[PathBuf], mtime: Option<Timestamp>) -> Result<()> {
        if mtime.is_some() {
            for path in made.iter().rev() {
                self.set_attributes(path, &Attributes { mtime, ..Attributes::default() })?;
            }
        }
        Ok(())
    }

    /// Creates or truncates the file at `path` and writes its content. Links are followed inside
    /// the root. An existing file keeps its mode.
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

    /// Creates a new file for writing. Fails if `path` exists.
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

    /// Creates a symbolic link to `target`.
    pub fn symlink(&self, target: &Path, path: &Path, attributes: &Attributes) -> Result<()> {
        self.make_entry("symlink", path, |parent, name| {
            symlinkat(target, parent, name)?;
            attributes.apply_to_entry(parent, names::bytes(name), FileKind::Symlink)
        })
    }

    /// Creates a fifo or a device. Sockets are ignored.
    pub fn make_node(&self, path: &Path, kind: FileKind, attributes: &Attributes) -> Result<()> {
        self.make_entry("mknod", path, |parent, name| {
            make_node(parent, names::bytes(name), kind, attributes)
        })
    }

    /// Creates a hard link to the file at `existing`. A link at the end of `existing` isn't
    /// followed.
    pub fn hard_link(&self, existing: &Path, path: &Path) -> Result<()> {
        let existing = rooted(existing);
        let Some((from, old)) = self.parent_of(&existing)? else {
            return Err(Error::io("link", &existing, Errno::PERM));
        };
        self.make_entry("link", path, |parent, name| {
            linkat(&from, old, parent, name, AtFlags::empty())
        })
    }

    /// Removes the entry at `path` and everything below it. Links are removed and never followed.
    /// Succeeds if `path` doesn't exist.
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

    /// Sets attributes of the entry at `path`. A link at the end isn't followed.
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

    /// Sets an extended attribute of the file or directory at `path`. A link isn't followed.
    pub fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
        let path = rooted(path);
        let fd = self.open_attributed(&path)?;
        let fd = fd.ok_or_else(|| Error::invalid(&path, "it can't have attributes"))?;
        attributes::set_xattr(fd.as_fd(), name, value)
            .map_err(|errno| Error::io("set attributes of", &path, errno))
    }

    /// Returns the open parent directory of `path`, which is absolute and clean, and the name in
    /// it. Returns `None` for the root.
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

/// Creates a directory. Returns `false` if it exists.
pub(crate) fn make_dir(
    parent: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
) -> Result<bool, Errno> {
    let mode = attributes.mode.unwrap_or(0o755);
    match mkdirat(parent, names::path(name), permissions::initial(mode, true)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let metadata = Metadata::of_entry(parent, name)?;
            return if metadata.is_dir() { Ok(false) } else { Err(Errno::EXIST) };
        }
        Err(errno) => return Err(errno),
    }
    // The process's umask doesn't apply, but the set-group-ID bit of the parent does.
    let inherited = Metadata::of_entry(parent, name)?.mode & SETGID;
    let attributes = Attributes { mode: Some(mode | inherited), ..*attributes };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, names::path(name), flags, Mode::empty()) {
        Ok(fd) => attributes.apply_to_fd(fd.as_fd())?,
        // The process lacks permission to open the directory for reading.
        Err(_) => attributes.apply_to_entry(parent, name, FileKind::Directory)?,
    }
    Ok(true)
}

/// Creates a new file for writing that other users can't read yet.
pub(crate) fn create(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    create_with_mode(parent, name, 0o600)
}

/// Creates a new file for writing. The process's umask may clear some permission bits.
pub(crate) fn create_with_mode(
    parent: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, names::path(name), flags, permissions::initial(mode, false))
}

/// Creates a fifo or a device. Fails for other types.
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
    match mknodat(parent, names::path(name), file_type, mode, device) {
        Err(Errno::PERM) if device != 0 && Ids::current().records_devices() => {
            record_device(parent, name, kind, attributes)
        }
        made => made.and_then(|()| attributes.apply_to_entry(parent, name, kind)),
    }
}

/// Creates a file that stands for a device.
fn record_device(
    parent: BorrowedFd<'_>,
    name: &[u8],
    kind: FileKind,
    attributes: &Attributes,
) -> Result<(), Errno> {
    let record = records::device(kind).ok_or(Errno::INVAL)?;
    let file = create(parent, name)?;
    let key = names::path(records::DEVICE);
    fsetxattr(&file, key, record.as_bytes(), XattrFlags::empty())?;
    let attributes = Attributes { mode: attributes.mode.or(Some(0o644)), ..*attributes };
    attributes.apply_to_fd(file.as_fd())
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
