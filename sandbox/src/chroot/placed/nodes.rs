//! The device nodes of a tree.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_tree::Ids;
use rustix::fs::{AtFlags, FileType, Mode, Stat, statat};
use rustix::io::Errno;

use super::{as_path, below, parent};
use crate::devices::DEVICES;
use crate::stubs::keeping_times;

/// Returns the paths of the device nodes below a directory that aren't harmless.
pub(super) fn device_nodes(root: &OwnedFd) -> rustix::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let directory = below(root, &path)?;
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                known => known,
            };
            let path = path.join(as_path(name.to_bytes()));
            match kind {
                FileType::Directory if !matches!(name.to_bytes(), b"." | b"..") => todo.push(path),
                FileType::CharacterDevice | FileType::BlockDevice
                    if !is_harmless(&statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?) =>
                {
                    found.push(path);
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Returns `true` unless an entry is a node of a device that programs must not open.
pub(super) fn is_harmless(stat: &Stat) -> bool {
    let is_this =
        |(_, major, minor): &(&str, u32, u32)| rustix::fs::makedev(*major, *minor) == stat.st_rdev;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => false,
        // A whiteout of a layer can't be opened at all.
        FileType::CharacterDevice => stat.st_rdev == 0 || DEVICES.iter().any(is_this),
        _ => true,
    }
}

/// Removes the nodes of devices from a placed directory.
pub(super) fn remove_nodes(directory: &OwnedFd) -> rustix::io::Result<()> {
    for path in device_nodes(directory)? {
        let (parent, name) = parent(directory, &path)?;
        keeping_times(&parent, || rustix::fs::unlinkat(&parent, &name, AtFlags::empty()))?;
    }
    Ok(())
}

/// Creates a device node that every user can open.
pub(super) fn make_device(
    parent: &OwnedFd,
    name: impl rustix::path::Arg + Copy,
    kind: FileType,
    major: u32,
    minor: u32,
) -> rustix::io::Result<()> {
    let device = rustix::fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(0o666);
    match rustix::fs::mknodat(parent, name, kind, mode, device) {
        // In a user namespace, the supervisor opens the device: `files`.
        Err(Errno::PERM) if Ids::current().is_namespace() => {
            rustix::fs::mknodat(parent, name, FileType::RegularFile, mode, 0)?;
        }
        other => other?,
    }
    // The mask of this process applies to the first mode.
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(0o666), AtFlags::empty())
}
