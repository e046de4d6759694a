//! Files that the supervisor opens in place of files of the tree.
//!
//! Files in memory are never written to a disk, and vanish with the supervisor. An empty file in the
//! tree stands for each, or the image's own file at its path, which stays as it is.
//!
//! In a user namespace, nobody can create device nodes. There an empty file in the tree stands for
//! each harmless device of the host.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Gid, MemfdFlags, Mode, OFlags, SealFlags, Uid};

use super::locate::inode_of;
use crate::descriptors::own_path;
use crate::devices::DEVICES;
use crate::root::clean;
use crate::sources::open_inside;
use crate::spec::{Mount, MountKind};
use crate::wire::Failure;

/// A file that the supervisor opens.
#[derive(Debug)]
pub(super) struct ServedFile {
    /// The device and inode of the file in the tree.
    pub(super) inode: (u64, u64),
    /// The file to open, which may be opened only to look at it.
    pub(super) file: OwnedFd,
    pub(super) readonly: bool,
}

impl ServedFile {
    /// Opens the devices that the tree has files for, and creates the files among `mounts`.
    pub(super) fn all(root: &OwnedFd, mounts: &[Mount]) -> Result<Vec<Self>, Failure> {
        let mut all = Self::devices(root).map_err(Failure::doing("open devices"))?;
        all.extend(Self::in_memory(root, mounts)?);
        Ok(all)
    }

    fn devices(root: &OwnedFd) -> rustix::io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for (name, major, minor) in DEVICES {
            let path = format!("/dev/{name}");
            let place = open_inside(root, Path::new(&path), OFlags::PATH)?;
            let stat = rustix::fs::fstat(&place)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                continue;
            }
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::empty())?;
            if rustix::fs::fstat(&file)?.st_rdev == rustix::fs::makedev(major, minor) {
                let inode = (stat.st_dev, stat.st_ino);
                all.push(Self { inode, file, readonly: false });
            }
        }
        Ok(all)
    }

    /// Creates the files among `mounts`. The tree has a file at the target of each.
    fn in_memory(root: &OwnedFd, mounts: &[Mount]) -> Result<Vec<Self>, Failure> {
        let files = mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::File { contents, mode, uid, gid, readonly } => {
                let memory = memory(contents, *mode, *uid, *gid, *readonly);
                Some((clean(&mount.target), memory, *readonly))
            }
            _ => None,
        });
        let all = files.map(|(path, memory, readonly)| {
            let action = format!("mount at {}", path.display());
            let file = memory.map_err(Failure::doing(&action))?;
            let place = open_inside(root, &path, OFlags::PATH).map_err(Failure::doing(&action))?;
            let inode = inode_of(&place).ok_or_else(|| Failure::new(action))?;
            Ok(Self { inode, file, readonly })
        });
        all.collect()
    }
}

/// Creates a file in memory.
pub(super) fn memory(
    contents: &[u8],
    mode: u32,
    uid: u32,
    gid: u32,
    readonly: bool,
) -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"kiln", flags)?;
    let mut rest = contents;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = &rest[written..];
    }
    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    if readonly {
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&file, seals)?;
    }
    Ok(file)
}

/// Opens a file once more, with a position and access of its own.
pub(super) fn open_again(file: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(own_path(file.as_fd()), flags | OFlags::CLOEXEC, Mode::empty())
}
