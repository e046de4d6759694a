//! The mount table: which file of the host a path in the container means.
//!
//! No mount exists for the kernel. The supervisor resolves every path and continues in another
//! directory of the host where the table says so ([`super::resolve`]). A descriptor of the program
//! belongs to a file of the host, whose path leads back to the path in the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::descriptors::path_of;

/// A file or directory of the host at a path in the container.
#[expect(clippy::struct_excessive_bools, reason = "each is an independent property")]
#[derive(Debug)]
pub(super) struct VirtualMount {
    /// The path in the container: absolute, without links.
    pub(super) target: Vec<u8>,
    /// The root of the mount.
    pub(super) fd: Rc<OwnedFd>,
    /// The path of the root on the host.
    pub(super) host: Vec<u8>,
    pub(super) is_readonly: bool,
    /// `true` for the file system of processes.
    pub(super) is_proc: bool,
    /// `true` for a directory that stands for a file system in memory.
    pub(super) is_memory: bool,
    /// `true` if the program doesn't see the mount in the table.
    pub(super) is_hidden: bool,
    /// `true` if the file is at another path of the container, too, which is its usual one.
    pub(super) is_alias: bool,
    /// The attributes of a file that can have no records.
    pub(super) shown: Option<Shown>,
}

/// Attributes that a file shows instead of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl VirtualMount {
    pub(super) fn new(target: &[u8], fd: OwnedFd) -> Result<Self, Errno> {
        let host = path_of(fd.as_fd())?;
        let (target, fd) = (target.to_vec(), Rc::new(fd));
        Ok(Self {
            target,
            fd,
            host,
            is_readonly: false,
            is_proc: false,
            is_memory: false,
            is_hidden: false,
            is_alias: false,
            shown: None,
        })
    }

    pub(super) fn readonly(self, is_readonly: bool) -> Self {
        Self { is_readonly, ..self }
    }
}

/// The mounts of the container. The first one is the root, and later ones cover earlier ones.
#[derive(Debug)]
pub(super) struct Mounts(Vec<VirtualMount>);

/// A directory of the container.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    /// The path in the container: absolute, without links.
    pub(super) path: Vec<u8>,
    pub(super) fd: Rc<OwnedFd>,
    /// The number of the mount that holds the directory.
    pub(super) mount: usize,
}

impl Mounts {
    pub(super) fn new(root: OwnedFd) -> Result<Self, Errno> {
        Ok(Self(vec![VirtualMount::new(b"/", root)?]))
    }

    pub(super) fn add(&mut self, mount: VirtualMount) {
        self.0.push(mount);
    }

    pub(super) fn make_root_readonly(&mut self) {
        self.0[0].is_readonly = true;
    }

    /// Makes the root of a mount show other attributes than its own.
    pub(super) fn show_as(&mut self, number: usize, shown: Shown) {
        self.0[number].shown = Some(shown);
    }

    /// Returns the directories from which programs may be executed.
    pub(super) fn trees(&self) -> Result<Vec<OwnedFd>, Errno> {
        let all = self.0.iter().filter(|mount| !mount.is_proc && !mount.is_alias);
        let mut trees = Vec::new();
        for mount in all {
            if kind_of(mount.fd.as_fd())? == FileType::Directory {
                trees.push(rustix::io::fcntl_dupfd_cloexec(mount.fd.as_fd(), 0)?);
            }
        }
        Ok(trees)
    }

    /// Adds a mount that the last one covers.
    pub(super) fn add_below(&mut self, mount: VirtualMount) {
        self.0.insert(self.0.len() - 1, mount);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &VirtualMount> {
        self.0.iter()
    }

    pub(super) fn get(&self, number: usize) -> &VirtualMount {
        &self.0[number]
    }

    /// Returns the mount whose root is at `path`.
    pub(super) fn at(&self, path: &[u8]) -> Option<usize> {
        self.0.iter().rposition(|mount| mount.target == path)
    }

    /// Returns the mount that holds `path`, and the path in it.
    pub(super) fn holding<'a>(&self, path: &'a [u8]) -> (usize, &'a [u8]) {
        let mut found = (0, path);
        for (number, mount) in self.0.iter().enumerate().skip(1) {
            let longest = self.0[found.0].target.len();
            if let Some(rest) = below(&mount.target, path)
                && mount.target.len() >= longest
            {
                found = (number, rest);
            }
        }
        let rest = found.1.strip_prefix(b"/").unwrap_or(found.1);
        (found.0, if rest.is_empty() { b"." } else { rest })
    }

    /// Returns `true` if a mount is at or below `path`, so that it can't be removed or renamed.
    pub(super) fn is_busy(&self, path: &[u8]) -> bool {
        self.0.iter().skip(1).any(|mount| below(path, &mount.target).is_some())
    }

    /// Opens a directory by its path without links.
    pub(super) fn open_directory(&self, path: &[u8]) -> Result<Directory, Errno> {
        let (mount, rest) = self.holding(path);
        let fd = open_beneath(self.get(mount).fd.as_fd(), rest, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Directory { path: path.to_vec(), fd: Rc::new(fd), mount })
    }

    /// Returns the path in the container of a file of the host.
    pub(super) fn path_in_container(&self, host: &[u8]) -> Option<Vec<u8>> {
        let mut found: Option<(usize, Vec<u8>)> = None;
        for mount in self.0.iter().filter(|mount| !mount.is_alias) {
            let Some(rest) = below(&mount.host, host) else { continue };
            if found.as_ref().is_none_or(|(length, _)| mount.host.len() > *length) {
                let start: &[u8] = if mount.target == b"/" { b"" } else { &mount.target };
                let path = [start, rest].concat();
                let path = if path.is_empty() { b"/".to_vec() } else { path };
                found = Some((mount.host.len(), path));
            }
        }
        found.map(|(_, path)| path)
    }
}

/// Opens a path without links below a directory.
pub(super) fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Returns the type of an open file.
pub(super) fn kind_of(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// Returns the rest of `path` if it is `directory` or below: empty, or with a slash in front.
pub(super) fn below<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if directory == b"/" {
        return Some(if path == b"/" { b"" } else { path });
    }
    let rest = path.strip_prefix(directory)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// Returns the path of an entry of a directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory == b"/" { [b"/", name].concat() } else { [directory, b"/", name].concat() }
}

/// Returns the path of the directory that holds `path`.
pub(super) fn parent_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(end) => &path[..end],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_through_the_mount_that_holds_them() {
        let open = |path: &std::path::Path| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let (root, cache) = (dir.path().join("root"), dir.path().join("cache"));
        std::fs::create_dir_all(root.join("var/cache")).unwrap();
        std::fs::create_dir_all(cache.join("apt")).unwrap();
        let mut mounts = Mounts::new(open(&root)).unwrap();
        mounts.add(VirtualMount::new(b"/var/cache", open(&cache)).unwrap());
        assert_eq!(mounts.holding(b"/var/cache/apt"), (1, &b"apt"[..]));
        assert_eq!(mounts.holding(b"/var/cache"), (1, &b"."[..]));
        assert_eq!(mounts.holding(b"/var/cached"), (0, &b"var/cached"[..]));
        assert!(mounts.is_busy(b"/var") && !mounts.is_busy(b"/var/cache/apt"));
        let host = path_of(open(&cache.join("apt")).as_fd()).unwrap();
        assert_eq!(mounts.path_in_container(&host).unwrap(), b"/var/cache/apt");
        let host = path_of(open(&root).as_fd()).unwrap();
        assert_eq!(mounts.path_in_container(&host).unwrap(), b"/");
        assert_eq!(mounts.path_in_container(b"/elsewhere"), None);
        assert_eq!((parent_of(b"/a/b"), parent_of(b"/a")), (&b"/a"[..], &b"/"[..]));
    }
}
