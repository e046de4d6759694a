//! Removal of untrusted trees.
//!
//! A tree left by a build may be hostile: directories without permissions, thousands of levels,
//! links to anywhere. Every entry is reached through the descriptor of its directory, and links are
//! removed, never followed. Mounts are not entered. A mount left by a killed process is detached
//! first, so that the files in it are not removed. Deep levels are moved up to the top, so that the
//! number of open descriptors is bounded.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use kiln_tree::Ids;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::rename::rename_directory;

/// The maximal number of levels that are open at a time.
const LEVELS: u32 = 64;

/// Removes `path` and everything below it. Returns the disk space freed, in bytes. Succeeds if
/// `path` doesn't exist.
pub(crate) fn remove_tree(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        fs::remove_file(path)?;
        return Ok(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512);
    }
    let top = open_dir(rustix::fs::CWD, path)?;
    let mut removal = Removal { top: &top, moved: 0, freed: 0 };
    loop {
        let before = removal.moved;
        removal.empty(&top, 0)?;
        if removal.moved == before {
            break;
        }
    }
    let freed = removal.freed + std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
    fs::remove_dir(path)?;
    Ok(freed)
}

struct Removal<'a> {
    top: &'a OwnedFd,
    moved: u64,
    freed: u64,
}

impl Removal<'_> {
    fn empty(&mut self, dir: &OwnedFd, depth: u32) -> io::Result<()> {
        for (name, kind) in entries(dir)? {
            let stat = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let is_dir = match kind {
                FileType::Unknown => FileType::from_raw_mode(stat.st_mode).is_dir(),
                kind => kind.is_dir(),
            };
            if !is_dir {
                if stat.st_nlink == 1 {
                    self.freed += stat.st_blocks.cast_unsigned() * 512;
                }
                unlink(dir, &name, AtFlags::empty())?;
                continue;
            }
            let child = open_dir(dir, &name)?;
            if depth >= LEVELS {
                self.move_up(dir, &name)?;
                continue;
            }
            self.empty(&child, depth + 1)?;
            self.freed += stat.st_blocks.cast_unsigned() * 512;
            unlink(dir, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn move_up(&mut self, dir: &OwnedFd, name: &CString) -> io::Result<()> {
        loop {
            self.moved += 1;
            let target = format!(".kiln-deep-{}", self.moved);
            if rename_directory(dir, name.as_c_str(), self.top, target.as_str())? {
                return Ok(());
            }
        }
    }
}

fn entries(dir: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            entries.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(entries)
}

fn unlink(dir: &OwnedFd, name: &CString, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory, after detaching mounts on it, and makes its entries removable.
fn open_dir<P: rustix::path::Arg + Copy>(parent: impl AsFd, name: P) -> io::Result<OwnedFd> {
    let opened = match open_unmounted(&parent, name) {
        Err(Errno::XDEV) => {
            let handle = open_path(&parent, name)?;
            let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
            rustix::mount::unmount(link.as_str(), rustix::mount::UnmountFlags::DETACH)?;
            open_unmounted(&parent, name)
        }
        opened => opened,
    };
    // A file server doesn't know the root of a user namespace.
    if rustix::process::geteuid().is_root() && !Ids::current().is_namespace() {
        return Ok(opened?);
    }
    let dir = match opened {
        Err(Errno::ACCESS) => {
            let handle = open_path(&parent, name)?;
            let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
            rustix::fs::chmod(link.as_str(), Mode::RWXU)?;
            open_unmounted(&parent, name)?
        }
        opened => opened?,
    };
    // A directory of another user may permit removing its entries. If not, the removal reports an
    // error.
    let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
    Ok(dir)
}

fn open_unmounted<P: rustix::path::Arg + Copy>(
    parent: impl AsFd,
    name: P,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A path with several components belongs to the store, which may be on any mount.
    let top = parent.as_fd().as_raw_fd() == rustix::fs::CWD.as_raw_fd();
    if top {
        return rustix::fs::openat(parent, name, flags, Mode::empty());
    }
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(&parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => {
            let dir = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            let same = rustix::fs::fstat(&dir)?.st_dev == rustix::fs::fstat(&parent)?.st_dev;
            if same { Ok(dir) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

fn open_path<P: rustix::path::Arg>(parent: impl AsFd, name: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_are_not_followed_and_modes_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink("/etc/hostname", tree.join("a/b/file")).unwrap();
        fs::write(tree.join("a/b/data"), vec![1; 10_000]).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        let freed = remove_tree(&tree).unwrap();
        assert!(freed >= 10_000, "{freed}");
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        assert_eq!(remove_tree(&tree).unwrap(), 0);
        symlink(&outside, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn four_thousand_levels_go() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open_dir(rustix::fs::CWD, &tree).unwrap();
        for _ in 0..4_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_dir(&at, "d").unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
