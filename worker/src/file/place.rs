//! Places in a tree that need not exist yet.
//!
//! A path of a file action may name what isn't there, and links on its way count as inside of the
//! tree, the last one, too. [`Place`] is what such a path comes to: the directory that holds it, as
//! far as it exists, and names without links.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use kiln_tree::Dir;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmodat, chownat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use super::set_time;
use crate::error::{Error, Result};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// How something that is made looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) mode: Option<u32>,
    pub(super) owner: Option<kiln_tree::Owner>,
    /// Nanoseconds since 1970, or -1.
    pub(super) time: i64,
}

/// Resolves `path` below `root` to a relative path without links. What isn't there is taken
/// literally.
pub(super) fn resolve(root: &Dir, path: &Path) -> Result<PathBuf> {
    let mut left: VecDeque<OsString> = names(path).collect();
    let mut resolved = PathBuf::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let Some(target) = link_target(root, &resolved, &name)? else {
            resolved.push(name);
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::path("resolve", path)(Errno::LOOP));
        }
        if target.is_absolute() {
            resolved.clear();
        }
        for (position, name) in names(&target).enumerate() {
            left.insert(position, name);
        }
    }
    Ok(resolved)
}

/// Returns the names that a path is made of, with `..` and without `/` and `.`.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

fn link_target(root: &Dir, parent: &Path, name: &OsStr) -> Result<Option<PathBuf>> {
    let parent = match open(root, parent) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(Error::path("open", parent)(errno)),
    };
    match readlinkat(&parent, name, Vec::new()) {
        Ok(target) => Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes())))),
        Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Error::path("read link", Path::new(name))(errno)),
    }
}

/// Opens a directory by a path without links: a link that has appeared meanwhile is an error.
pub(super) fn open(root: &Dir, resolved: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = openat(root, ".", flags, Mode::empty())?;
    for name in resolved {
        dir = openat(&dir, name, flags, Mode::empty())?;
    }
    Ok(dir)
}

/// Opens the directory that holds `resolved`, and returns its name there. The root has none.
pub(super) fn open_parent<'a>(root: &Dir, resolved: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
        return Err(Error::path("change", Path::new("/"))(Errno::BUSY));
    };
    let shown = Path::new("/").join(parent);
    Ok((open(root, parent).map_err(Error::path("open", &shown))?, name))
}

/// Makes a directory. Tells whether there was none; anything else in its place is an error where
/// `strict`.
pub(super) fn make_dir(root: &Dir, resolved: &Path, look: Look, strict: bool) -> Result<bool> {
    let shown = Path::new("/").join(resolved);
    let (parent, name) = open_parent(root, resolved)?;
    match mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) if !strict || is_dir(&parent, name) => return Ok(false),
        Err(Errno::EXIST) => return Err(Error::path("create directory", &shown)(Errno::NOTDIR)),
        Err(errno) => return Err(Error::path("create directory", &shown)(errno)),
    }
    apply(&parent, name, look)?;
    Ok(true)
}

fn is_dir(parent: &OwnedFd, name: &OsStr) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).is_ok()
}

/// Gives something its owner, mode and time. A link has no mode.
pub(super) fn apply(parent: &OwnedFd, name: &OsStr, look: Look) -> Result<()> {
    let shown = Path::new(name);
    if let Some(owner) = look.owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::path("change owner of", shown))?;
    }
    if let Some(mode) = look.mode {
        chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(Error::path("change mode of", shown))?;
    }
    set_time(parent, name, look.time)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("real/sub")).unwrap();
        symlink("/real", temp.path().join("abs")).unwrap();
        symlink("../real", temp.path().join("rel")).unwrap();
        symlink("../../../../etc", temp.path().join("out")).unwrap();
        symlink("loop", temp.path().join("loop")).unwrap();
        symlink("/not/there", temp.path().join("dangling")).unwrap();
        let dir = rustix::fs::openat(
            rustix::fs::CWD,
            temp.path(),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        );
        let dir = Dir::from_fd(dir.unwrap());
        (temp, dir)
    }

    #[test]
    fn links_count_inside_the_tree() {
        let (_temp, root) = tree();
        for (path, expected) in [
            ("/abs/sub/new", "real/sub/new"),
            ("rel/x/../y", "real/y"),
            ("/out/passwd", "etc/passwd"),
            ("/../../real", "real"),
            ("/dangling", "not/there"),
            ("/real/./sub//", "real/sub"),
            ("/", ""),
        ] {
            assert_eq!(resolve(&root, Path::new(path)).unwrap(), Path::new(expected), "{path}");
        }
        assert!(resolve(&root, Path::new("/loop/x")).is_err());
    }

    #[test]
    fn links_are_not_followed_when_opening() {
        let (_temp, root) = tree();
        assert!(open(&root, Path::new("abs")).is_err());
        assert!(open(&root, Path::new("real/sub")).is_ok());
        assert!(open_parent(&root, Path::new("")).is_err());
    }
}
