//! Resolution of paths inside a root.
//!
//! If possible, the kernel resolves paths (`openat2` with `RESOLVE_IN_ROOT` and
//! `RESOLVE_NO_MAGICLINKS`). The [`Walk`] in this module does the same one component at a time,
//! with `O_PATH | O_NOFOLLOW` descriptors. It has three uses: machines whose sandbox blocks
//! `openat2`, paths longer than `PATH_MAX`, and questions that the kernel doesn't answer (the real
//! path, and the visibility of all links on the way).
//!
//! The walk has an invariant: it reaches every descriptor from the root's by names that were opened
//! without following links. It never passes `..` to the kernel. Instead it drops a name and opens
//! the remaining ones again from the root.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::metadata::Metadata;
use crate::names;

/// The number of links that the kernel follows.
const KERNEL_LINKS: u32 = 40;
/// The number of links that BuildKit follows to find a real path.
const REAL_PATH_LINKS: u32 = 255;
/// The maximal length of a path that is passed to the kernel in one piece.
const LONGEST_PATH: usize = 4000;

static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens `path`, which is absolute and clean, inside `root`. Links are followed inside it.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    if names::bytes(path).len() > LONGEST_PATH || NO_OPENAT2.load(Ordering::Relaxed) {
        return open_by_walk(root, path, flags, mode);
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..16 {
        match openat2(root, names::relative(path), flags, mode, resolve) {
            // A rename anywhere on the machine may interfere with the kernel's check of `..`.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => {
                NO_OPENAT2.store(true, Ordering::Relaxed);
                break;
            }
            // Either a sandbox blocks the call, or the file refuses access. In the latter case, the
            // walk fails too.
            Err(Errno::PERM) => break,
            result => return result,
        }
    }
    open_by_walk(root, path, flags, mode)
}

/// Does the same as [`open`], without `openat2`.
pub(crate) fn open_by_walk(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let mut walk = Walk::new(root, path, KERNEL_LINKS);
    while let Some(name) = walk.pending.pop_front() {
        if name == b".." {
            walk.up();
            continue;
        }
        let last = walk.pending.is_empty();
        match walk.look(&name) {
            Ok((fd, Found::Link)) => {
                if last && flags.contains(OFlags::NOFOLLOW) {
                    return if flags.contains(OFlags::PATH) { Ok(fd) } else { Err(Errno::LOOP) };
                }
                walk.follow(&fd)?;
            }
            Ok((fd, _)) if !last => walk.enter(name, fd),
            Ok(_) | Err(Errno::NOENT) if last => {
                let flags = flags | OFlags::NOFOLLOW;
                return openat(walk.here()?, names::path(&name), flags, mode);
            }
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
    }
    openat(walk.here()?, ".", flags, mode)
}

/// A function that returns `true` if a real path on the way of a resolution is visible.
pub(crate) type Visible<'a> = &'a dyn Fn(&Path, &Metadata) -> Result<bool, Errno>;

/// Returns the real path of `path`: an absolute path inside `root` without links. The part of the
/// path that doesn't exist is kept as it is. Links and files that `visible` rejects don't exist.
pub(crate) fn real_path(
    root: BorrowedFd<'_>,
    path: &Path,
    visible: Option<Visible<'_>>,
) -> Result<PathBuf, Errno> {
    let mut walk = Walk::new(root, path, REAL_PATH_LINKS);
    // The number of leading names that exist, once a name didn't.
    let mut real: Option<usize> = None;
    while let Some(name) = walk.pending.pop_front() {
        if name == b".." {
            walk.up();
            real = real.filter(|real| walk.names.len() > *real);
            continue;
        }
        if real.is_some() {
            walk.names.push(name);
            continue;
        }
        let (fd, found) = match walk.look(&name) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                real = Some(walk.names.len());
                walk.names.push(name);
                continue;
            }
            Err(errno) => return Err(errno),
        };
        if let Some(visible) = visible {
            let mut path = walk.names.clone();
            path.push(name.clone());
            if !visible(&names::from_components(&path), &Metadata::of_fd(fd.as_fd())?)? {
                real = Some(walk.names.len());
                walk.names.push(name);
                continue;
            }
        }
        match found {
            Found::Link => walk.follow(&fd)?,
            Found::Directory => walk.enter(name, fd),
            Found::Other if walk.pending.is_empty() => walk.names.push(name),
            Found::Other => return Err(Errno::NOTDIR),
        }
    }
    Ok(names::from_components(&walk.names))
}

/// Runs tests as if the kernel had no `openat2`. Concurrent tests may be affected, and must pass
/// too.
#[cfg(test)]
pub(crate) fn without_openat2(tests: impl FnOnce()) {
    NO_OPENAT2.store(true, Ordering::Relaxed);
    tests();
    NO_OPENAT2.store(false, Ordering::Relaxed);
}

enum Found {
    Link,
    Directory,
    Other,
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The components of the real path so far.
    names: Vec<Vec<u8>>,
    /// The directory at `names`; `None` for the root, and after `..`.
    current: Option<OwnedFd>,
    pending: VecDeque<Vec<u8>>,
    links_left: u32,
}

impl<'a> Walk<'a> {
    fn new(root: BorrowedFd<'a>, path: &Path, links: u32) -> Self {
        let pending = names::components(names::bytes(path)).map(<[u8]>::to_vec).collect();
        Self { root, names: Vec::new(), current: None, pending, links_left: links }
    }

    fn up(&mut self) {
        self.names.pop();
        self.current = None;
    }

    fn enter(&mut self, name: Vec<u8>, fd: OwnedFd) {
        self.names.push(name);
        self.current = Some(fd);
    }

    /// Returns the directory at `names`.
    fn here(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.current.is_none() {
            for name in &self.names {
                let parent = self.current.as_ref().map_or(self.root, AsFd::as_fd);
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
                self.current = Some(openat(parent, names::path(name), flags, Mode::empty())?);
            }
        }
        Ok(self.current.as_ref().map_or(self.root, AsFd::as_fd))
    }

    fn look(&mut self, name: &[u8]) -> Result<(OwnedFd, Found), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.here()?, names::path(name), flags, Mode::empty())?;
        let found = match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Symlink => Found::Link,
            FileType::Directory => Found::Directory,
            _ => Found::Other,
        };
        Ok((fd, found))
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), Errno> {
        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::LOOP)?;
        let target = readlinkat(link, "", Vec::new())?;
        let target = target.as_bytes();
        if target.starts_with(b"/") {
            self.names.clear();
            self.current = None;
        }
        for name in names::components(target).rev() {
            self.pending.push_front(name.to_vec());
        }
        Ok(())
    }
}
