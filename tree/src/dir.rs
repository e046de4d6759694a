//! Open directories as the roots of path resolution.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, readlinkat};
use rustix::io::Errno;

use crate::attributes::{self, Xattr};
use crate::digest::select;
use crate::error::{Error, NOT_REGULAR, Result};
use crate::ids::Ids;
use crate::inspected::open_inspected;
use crate::metadata::{FileKind, Metadata};
use crate::view::View;
use crate::walk::xattrs;
use crate::{names, records, resolve, wildcard};

/// An open directory. Its methods resolve paths inside it: `/`, `..` and symbolic links can't lead
/// out.
///
/// Paths are cleaned lexically first, as in BuildKit (`a/../b` is `b`, whatever `a` is). Methods
/// that inspect or open a path follow links inside the root. Methods that change an entry follow
/// links on the way to it, but not a link at the end, unless their docs say so.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    room: Option<Arc<dyn Room>>,
    has_devices: bool,
    /// A value that lives as long as the directory is open.
    kept: Option<Arc<dyn Any + Send + Sync>>,
}

/// The interface to the manager of the disk's free space.
pub trait Room: fmt::Debug + Send + Sync {
    /// Reserves room for a file of `bytes` bytes that is about to be written. Blocks while room is
    /// being made.
    ///
    /// # Errors
    /// Fails if there is not enough room.
    fn take(&self, bytes: u64) -> io::Result<()>;
}

impl Dir {
    /// Opens a directory by a trusted path of the host.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::at("open", path, errno))?;
        Ok(Self::from_fd(fd))
    }

    /// Creates a `Dir` from the descriptor of a directory.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, room: None, has_devices: true, kept: None }
    }

    /// Makes copies and unpacking into the directory reserve room from `room` before they write.
    #[must_use]
    pub fn with_room(self, room: Arc<dyn Room>) -> Self {
        Self { room: Some(room), ..self }
    }

    /// Keeps a value alive as long as the directory is open, such as the mount that contains it.
    #[must_use]
    pub fn keeping(self, kept: Arc<dyn Any + Send + Sync>) -> Self {
        Self { kept: Some(kept), ..self }
    }

    /// Declares that no device can replace a file in the directory: its mount doesn't allow
    /// devices, or nothing else writes to it. Files found by a walk are then opened without another
    /// check.
    #[must_use]
    pub fn without_devices(self) -> Self {
        Self { has_devices: false, ..self }
    }

    /// Returns `true` if a device may replace a file.
    pub(crate) fn has_devices(&self) -> bool {
        self.has_devices
    }

    /// Reserves room for `bytes` bytes of files that are about to be written.
    ///
    /// # Errors
    /// Fails if there is not enough room.
    pub fn take_room(&self, bytes: u64) -> Result<()> {
        let taken = self.room.as_ref().map_or(Ok(()), |room| room.take(bytes));
        taken.map_err(|error| Error::io("write to", Path::new("/"), error))
    }

    /// Returns a `Dir` for `fd` with the same settings.
    fn sibling(&self, fd: OwnedFd) -> Self {
        let (room, kept) = (self.room.clone(), self.kept.clone());
        Self { fd, room, has_devices: self.has_devices, kept }
    }

    /// Duplicates the directory's descriptor.
    pub fn try_clone(&self) -> Result<Self> {
        let fd =
            self.fd.try_clone().map_err(|error| Error::io("duplicate", Path::new("/"), error))?;
        Ok(self.sibling(fd))
    }

    /// Opens the directory at `path` inside this one. Links are followed inside the root.
    pub fn open_dir(&self, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.open_at("open", &rooted(path), flags)?;
        Ok(self.sibling(fd))
    }

    /// Opens the regular file at `path` for reading. Links are followed inside the root. Entries of
    /// other types are refused without opening them.
    pub fn open_file(&self, path: &Path) -> Result<File> {
        let path = rooted(path);
        let find = |flags| resolve::open(self.as_fd(), &path, flags, Mode::empty());
        let opened = open_inspected(OFlags::RDONLY, FileKind::is_file, find);
        let opened = opened.map_err(|errno| Error::at("open", &path, errno))?;
        opened.map(File::from).ok_or_else(|| Error::invalid(&path, NOT_REGULAR))
    }

    /// Opens the file or directory at `path` to access its extended attributes. Links are not
    /// followed. Returns `None` for types without extended attributes.
    pub(crate) fn open_attributed(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let find =
            |flags| resolve::open(self.as_fd(), path, flags | OFlags::NOFOLLOW, Mode::empty());
        open_inspected(OFlags::RDONLY, FileKind::has_xattrs, find)
            .map_err(|errno| Error::at("open", path, errno))
    }

    /// Returns the metadata of the entry at `path`, or `None` if it doesn't exist. `follow` selects
    /// whether a link at the end of the path is followed.
    pub fn metadata(&self, path: &Path, follow: bool) -> Result<Option<Metadata>> {
        let path = rooted(path);
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let failed = |errno| Error::io("stat", &path, errno);
        let fd = match resolve::open(self.as_fd(), &path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            fd => fd.map_err(failed)?,
        };
        let mut metadata = resolved(fd.as_fd()).map_err(failed)?;
        if records::has_entry_record(metadata.kind)
            && let Some((parent, name)) = self.parent_of(&path)?
        {
            let resolved =
                records::resolve_entry(parent.as_fd(), names::bytes(name), &mut metadata);
            resolved.map_err(failed)?;
        }
        Ok(Some(metadata))
    }

    /// Returns the target of the link at `path`.
    pub fn read_link(&self, path: &Path) -> Result<PathBuf> {
        let path = rooted(path);
        let fd = self.open_at("read link", &path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let target = readlinkat(&fd, "", Vec::new())
            .map_err(|errno| Error::io("read link", &path, errno))?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())))
    }

    /// Returns the real path of `path` inside this directory: absolute and without links. The part
    /// of the path that doesn't exist is kept as it is.
    pub fn real_path(&self, path: &Path) -> Result<PathBuf> {
        let path = rooted(path);
        resolve::real_path(self.as_fd(), &path, None)
            .map_err(|errno| Error::io("resolve", &path, errno))
    }

    /// Returns the sorted paths that match `pattern`, with the syntax of Go's `filepath.Match`.
    /// Links in front of the first wildcard are followed, links behind it are not. A pattern
    /// without wildcards is returned unchanged, whether it exists or not.
    pub fn matching(&self, pattern: &Path) -> Result<Vec<PathBuf>> {
        let pattern = rooted(pattern);
        if !wildcard::has_wildcards(names::bytes(&pattern)) {
            return Ok(vec![pattern]);
        }
        let (_, found) = select::matching(View::of(self), &pattern, false)?;
        let mut matching = Vec::with_capacity(found.len());
        for path in found.iter().map(|path| names::rooted(path)) {
            let is_real = match path.parent() {
                Some(parent) => self.real_path(parent).is_ok_and(|real| real == parent),
                None => true,
            };
            if is_real && self.metadata(&path, false)?.is_some() {
                matching.push(path);
            }
        }
        Ok(matching)
    }

    /// Returns the names in this directory itself, sorted bytewise.
    pub fn names(&self) -> Result<Vec<Vec<u8>>> {
        entry_names(self.as_fd()).map_err(|errno| Error::io("read", Path::new("/"), errno))
    }

    /// Returns the extended attributes of the file or directory at `path`, sorted by name. Links
    /// are not followed and have none.
    pub fn xattrs(&self, path: &Path) -> Result<Vec<Xattr>> {
        let path = rooted(path);
        let Some(fd) = self.open_attributed(&path)? else { return Ok(Vec::new()) };
        attributes::xattrs(fd.as_fd())
            .map(records::resolve_xattrs)
            .map_err(|errno| Error::io("read attributes of", &path, errno))
    }

    /// Opens a path that is absolute and clean.
    pub(crate) fn open_at(
        &self,
        action: &'static str,
        path: &Path,
        flags: OFlags,
    ) -> Result<OwnedFd> {
        resolve::open(self.as_fd(), path, flags, Mode::empty())
            .map_err(|errno| Error::at(action, path, errno))
    }
}

/// Returns the metadata of a file that was opened with `O_PATH`, as its records say.
fn resolved(fd: BorrowedFd<'_>) -> Result<Metadata, Errno> {
    let mut metadata = Metadata::of_fd(fd)?;
    if metadata.kind.has_xattrs() && Ids::current().has_records() {
        records::resolve(&mut metadata, &mut xattrs::of_path(fd)?, true);
    }
    Ok(metadata)
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns a path as an absolute, clean path.
pub(crate) fn rooted(path: &Path) -> PathBuf {
    names::rooted(names::bytes(path))
}

/// Returns the names in an open directory, sorted bytewise.
pub(crate) fn entry_names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(name.to_vec());
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Creates a root with links that try to leave it, beside a file that must not be reached.
    fn hostile() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("secret"), "secret").unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/f"), "inside").unwrap();
        std::fs::write(root.join("secret"), "mine").unwrap();
        symlink("/a", root.join("abs")).unwrap();
        symlink("../../../../../..", root.join("a/up")).unwrap();
        symlink("../../../secret", root.join("a/out")).unwrap();
        symlink(temp.path().join("secret"), root.join("host")).unwrap();
        symlink("loop2", root.join("loop1")).unwrap();
        symlink("loop1", root.join("loop2")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let dir = Dir::open(&root).unwrap();
        (temp, dir)
    }

    fn read(dir: &Dir, path: &str, open: Opener) -> std::result::Result<String, Errno> {
        let fd = open(dir.as_fd(), &rooted(Path::new(path)), OFlags::RDONLY, Mode::empty())?;
        std::io::read_to_string(File::from(fd)).map_err(|_| Errno::IO)
    }

    type Opener = fn(BorrowedFd<'_>, &Path, OFlags, Mode) -> std::result::Result<OwnedFd, Errno>;

    #[test]
    fn nothing_leads_out_with_and_without_openat2() {
        let (_temp, dir) = hostile();
        for open in [resolve::open as Opener, resolve::open_by_walk as Opener] {
            assert_eq!(read(&dir, "abs/b/f", open).unwrap(), "inside");
            assert_eq!(read(&dir, "a/up/a/b/f", open).unwrap(), "inside");
            assert_eq!(read(&dir, "a/out", open).unwrap(), "mine");
            assert_eq!(read(&dir, "../../secret", open).unwrap(), "mine");
            assert_eq!(read(&dir, "host", open), Err(Errno::NOENT));
            assert_eq!(read(&dir, "loop1", open), Err(Errno::LOOP));
            assert_eq!(read(&dir, "secret/x", open), Err(Errno::NOTDIR));
            assert_eq!(read(&dir, "magic", open), Err(Errno::NOENT));
        }
    }

    #[test]
    fn real_paths_keep_missing_tails() {
        let (_temp, dir) = hostile();
        for (path, real) in [
            ("abs/b/f", "/a/b/f"),
            ("abs/nope/../x/y", "/a/x/y"),
            ("a/up/new/deep", "/new/deep"),
            ("a/out", "/secret"),
            ("", "/"),
        ] {
            assert_eq!(dir.real_path(Path::new(path)).unwrap(), Path::new(real), "{path}");
        }
        assert!(dir.real_path(Path::new("loop1")).is_err());
        assert!(dir.real_path(Path::new("secret/x")).is_err());
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let path = PathBuf::from("/0123456789".repeat(600));
        dir.mkdir_all(&path, &crate::Attributes::default()).unwrap();
        assert!(dir.metadata(&path, true).unwrap().unwrap().is_dir());
        dir.remove_all(Path::new("/0123456789")).unwrap();
        assert!(dir.names().unwrap().is_empty());
    }

    #[test]
    fn patterns_find_what_matches() {
        let (_temp, dir) = hostile();
        let find = |pattern: &str| -> Vec<String> {
            let found = dir.matching(Path::new(pattern)).unwrap();
            found.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(find("a/*"), ["/a/b", "/a/out", "/a/up"]);
        assert_eq!(find("?/b/[f]"), ["/a/b/f"]);
        assert_eq!(find("a*/b"), ["/a/b"]);
        assert!(find("abs/*").is_empty() && find("*/nope").is_empty());
        assert_eq!(find("nope"), ["/nope"]);
    }

    #[test]
    fn metadata_tells_links_from_their_targets() {
        let (_temp, dir) = hostile();
        assert!(dir.metadata(Path::new("abs"), false).unwrap().unwrap().is_symlink());
        assert!(dir.metadata(Path::new("abs"), true).unwrap().unwrap().is_dir());
        assert_eq!(dir.metadata(Path::new("nope/x"), true).unwrap(), None);
        assert_eq!(dir.read_link(Path::new("abs")).unwrap(), Path::new("/a"));
        assert!(matches!(dir.open_file(Path::new("nope")), Err(Error::NotFound { .. })));
        assert!(dir.open_file(Path::new("a")).is_err());
    }
}
