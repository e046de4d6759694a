//! The files that the paths of calls lead to.
//!
//! Most paths lead to files of the tree, which the kernel finds by itself. The supervisor only has to
//! recognise the others: those in `/proc`, `/sys` and `/dev/pts`, and the files that it serves from
//! memory. Links of the image may lead there as well, such as `/etc/mtab`.
//!
//! A path that the kernel can open in the tree needs no further look, except at the file's inode.
//! The directories in place of the others are empty in the tree, so paths into them fail. Only then
//! the supervisor follows the path name by name.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat};
use rustix::io::Errno;

use super::skeleton::SKELETONS;
use crate::descriptors::path_of;
use crate::root::MAX_LINKS;
use crate::sources::open_inside;

/// The place that a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A place in the tree, or no place.
    Ordinary,
    /// A file of the tree, by device and inode, in place of which the supervisor may have another.
    Inode(u64, u64),
    /// A path below the kernel's file system, as names.
    Below(Kernel, Vec<Vec<u8>>),
}

/// A file system of the kernel that the tree lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// `/proc`
    Proc,
    /// `/sys`
    Sys,
    /// `/dev/pts`
    Terminals,
}

/// The tree that a program's root directory is.
#[derive(Debug)]
pub(super) struct ProgramTree {
    pub(super) root: OwnedFd,
    /// The tree's path outside.
    path: Vec<u8>,
}

impl ProgramTree {
    pub(super) fn new(root: &OwnedFd) -> std::io::Result<Self> {
        Ok(Self { root: root.try_clone()?, path: path_of(root)? })
    }

    /// Converts an absolute path outside into the program's. Returns `None` outside of the tree.
    pub(super) fn inside<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(self.path.as_slice())?;
        match rest.first() {
            None => Some(b"/"),
            Some(b'/') => Some(rest),
            Some(_) => None,
        }
    }

    /// Finds the place of an absolute path in the tree. `follows` a link at its end.
    pub(super) fn place(&self, path: &[u8], follows: bool) -> Place {
        if let Some((kernel, rest)) = kernel_path(path) {
            return Place::Below(kernel, rest);
        }
        let flags = if follows { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        match open_inside(&self.root, Path::new(&path_from_bytes(path)), flags) {
            Ok(file) => {
                inode_of(&file).map_or(Place::Ordinary, |(dev, ino)| Place::Inode(dev, ino))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => self.walk(path, follows),
            Err(_) => Place::Ordinary,
        }
    }

    /// Follows a path name by name.
    fn walk(&self, path: &[u8], follows: bool) -> Place {
        let mut rest: Vec<Vec<u8>> = names(path).map(<[u8]>::to_vec).collect();
        rest.reverse();
        // The directories down to the current one, with their names.
        let mut above: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    above.pop();
                    continue;
                }
                _ => {}
            }
            let at: Vec<&[u8]> =
                above.iter().map(|(name, _)| name.as_slice()).chain([name.as_slice()]).collect();
            if let Some(kernel) = kernel_of(&at) {
                rest.reverse();
                return Place::Below(kernel, rest);
            }
            let parent = above.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(entry) = openat(parent, name.as_slice(), flags, Mode::empty()) else {
                return Place::Ordinary;
            };
            let is_link = rustix::fs::fstat(&entry).is_ok_and(|stat| is_link(&stat));
            if !is_link {
                above.push((name, entry));
                continue;
            }
            links += 1;
            if links > MAX_LINKS || (rest.is_empty() && !follows) {
                return Place::Ordinary;
            }
            let Ok(target) = rustix::fs::readlinkat(&entry, "", Vec::new()) else {
                return Place::Ordinary;
            };
            if target.as_bytes().starts_with(b"/") {
                above.clear();
            }
            let mut target: Vec<Vec<u8>> = names(target.as_bytes()).map(<[u8]>::to_vec).collect();
            target.reverse();
            rest.extend(target);
        }
        let inode = above.last().and_then(|(_, fd)| inode_of(fd));
        inode.map_or(Place::Ordinary, |(dev, ino)| Place::Inode(dev, ino))
    }
}

/// Returns the names of a path.
pub(super) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Splits a path that leads to a file system of the kernel by its text.
fn kernel_path(path: &[u8]) -> Option<(Kernel, Vec<Vec<u8>>)> {
    let mut rest = names(path).filter(|name| *name != b".");
    let first = rest.next()?;
    let kernel = match first {
        b"dev" if rest.next()? == b"pts" => Kernel::Terminals,
        _ => kernel_of(&[first])?,
    };
    let mut rest: Vec<Vec<u8>> = rest.map(<[u8]>::to_vec).collect();
    // A skeleton of a directory has the path of the directory below its own.
    if rest.first().is_some_and(|name| name == SKELETONS) {
        rest.drain(..rest.len().min(2));
    }
    Some((kernel, rest))
}

fn kernel_of(at: &[&[u8]]) -> Option<Kernel> {
    match at {
        [b"proc"] => Some(Kernel::Proc),
        [b"sys"] => Some(Kernel::Sys),
        [b"dev", b"pts"] => Some(Kernel::Terminals),
        _ => None,
    }
}

fn path_from_bytes(path: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(path.to_vec()).into()
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// Returns the device and inode of an open file.
pub(super) fn inode_of(fd: impl AsFd) -> Option<(u64, u64)> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn below(kernel: Kernel, rest: &str) -> Place {
        Place::Below(kernel, names(rest.as_bytes()).map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn links_lead_to_the_kernels_files() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["proc", "sys", "dev/pts", "etc", "other"] {
            fs::create_dir_all(temp.path().join(name)).unwrap();
        }
        let link = |target, name| symlink(target, temp.path().join(name)).unwrap();
        link("../proc/self/mounts", "etc/mtab");
        link("/proc/self/fd", "dev/fd");
        link("/proc/self/fd/1", "dev/stdout");
        link("pts/ptmx", "dev/ptmx");
        link("dev", "also");
        link("loop", "loop");
        fs::write(temp.path().join("etc/file"), "").unwrap();
        let root = OwnedFd::from(fs::File::open(temp.path()).unwrap());
        let tree = ProgramTree::new(&root).unwrap();
        for (path, expected) in [
            ("/proc", below(Kernel::Proc, "")),
            ("//proc/./self/exe", below(Kernel::Proc, "self/exe")),
            ("/etc/mtab", below(Kernel::Proc, "self/mounts")),
            ("/etc/../etc/mtab", below(Kernel::Proc, "self/mounts")),
            ("/dev/fd/3", below(Kernel::Proc, "self/fd/3")),
            ("/also/stdout", below(Kernel::Proc, "self/fd/1")),
            ("/dev/ptmx", below(Kernel::Terminals, "ptmx")),
            ("/dev/pts/0", below(Kernel::Terminals, "0")),
            ("/other/../sys/x", below(Kernel::Sys, "x")),
            ("/loop", Place::Ordinary),
            ("/missing", Place::Ordinary),
            ("/proc/.kiln/7/12/fd/3", below(Kernel::Proc, "12/fd/3")),
        ] {
            assert_eq!(tree.place(path.as_bytes(), true), expected, "{path}");
        }
        assert!(matches!(tree.place(b"/etc/file", true), Place::Inode(..)));
        assert!(matches!(tree.place(b"/etc/mtab", false), Place::Inode(..)));
    }

    #[test]
    fn paths_outside_are_no_paths_of_the_program() {
        let temp = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(fs::File::open(temp.path()).unwrap());
        let tree = ProgramTree::new(&root).unwrap();
        let outside = path_of(&root).unwrap();
        let at = |rest: &str| [&outside, rest.as_bytes()].concat();
        assert_eq!(tree.inside(&at("")), Some(&b"/"[..]));
        assert_eq!(tree.inside(&at("/x")), Some(&b"/x"[..]));
        assert_eq!(tree.inside(&at("x")), None);
        assert_eq!(tree.inside(b"/elsewhere"), None);
    }
}
