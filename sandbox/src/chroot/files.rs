//! Files in memory that the supervisor opens in place of files of the tree.
//!
//! They are never written to a disk, and vanish with the supervisor. An empty file in the tree stands
//! for each, or the image's own file at its path, which stays as it is.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Gid, MemfdFlags, Mode, OFlags, SealFlags, Uid};

use super::locate::inode_of;
use crate::root::clean;
use crate::sources::open_inside;
use crate::spec::{Mount, MountKind};
use crate::wire::Failure;

/// A file in memory.
#[derive(Debug)]
pub(super) struct ServedFile {
    /// The device and inode of the file in the tree.
    pub(super) inode: (u64, u64),
    /// The path in the tree.
    pub(super) path: PathBuf,
    pub(super) memory: OwnedFd,
    pub(super) readonly: bool,
}

impl ServedFile {
    /// Creates the files among `mounts`. The tree has a file at the target of each.
    pub(super) fn all(root: &OwnedFd, mounts: &[Mount]) -> Result<Vec<Self>, Failure> {
        let files = mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::File { contents, mode, uid, gid, readonly } => {
                let memory = memory(contents, *mode, *uid, *gid, *readonly);
                Some((clean(&mount.target), memory, *readonly))
            }
            _ => None,
        });
        let all = files.map(|(path, memory, readonly)| {
            let action = format!("mount at {}", path.display());
            let memory = memory.map_err(Failure::doing(&action))?;
            let place = open_inside(root, &path, OFlags::PATH).map_err(Failure::doing(&action))?;
            let inode = inode_of(&place).ok_or_else(|| Failure::new(action))?;
            Ok(Self { inode, path, memory, readonly })
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
    let link = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::fs::open(link, flags | OFlags::CLOEXEC, Mode::empty())
}
