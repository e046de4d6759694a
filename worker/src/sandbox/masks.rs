//! Parts of `/proc` and `/sys` that a container can't see or can't write, as Docker has them.
//!
//! They are opened below the descriptors of the file systems that were just mounted, without
//! following any link: whatever an image has made of the path `/proc` plays no part.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount_handle::{MountHandle, is_directory};
use super::wire::Failure;
use crate::sys::MountAttributes;

const MASKED_IN_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

const MASKED_IN_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];

const READONLY_IN_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Returns the paths that can't be seen.
pub(super) fn masked() -> Vec<String> {
    let proc = MASKED_IN_PROC.iter().map(|path| format!("/proc/{path}"));
    proc.chain(MASKED_IN_SYS.iter().map(|path| format!("/sys/{path}"))).collect()
}

/// Returns the paths that can't be written.
pub(super) fn readonly() -> Vec<String> {
    READONLY_IN_PROC.iter().map(|path| format!("/proc/{path}")).collect()
}

/// Applies the masks to a fresh `/proc` and `/sys`. `null`, a file of an attached mount, is mounted
/// over files.
pub(super) fn apply(proc: &MountHandle, sys: &MountHandle, null: &OwnedFd) -> Result<(), Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mut empty: Option<MountHandle> = None;
    let masked = MASKED_IN_PROC
        .iter()
        .map(|path| (proc, *path))
        .chain(MASKED_IN_SYS.iter().map(|path| (sys, *path)));
    for (root, path) in masked {
        let doing = |errno| Failure::doing::<Errno>(&format!("mask {path}"))(errno);
        let Some(place) = open(root, path).map_err(doing)? else { continue };
        if !is_directory(&place)? {
            MountHandle::clone_of(null).and_then(|null| null.attach(&place)).map_err(doing)?;
            continue;
        }
        if let Some(mask) = &empty {
            // There is nothing in it, and nothing can be put there: one is enough.
            MountHandle::clone_of(mask).and_then(|mask| mask.attach(&place)).map_err(doing)?;
        } else {
            let mask = MountHandle::file_system("tmpfs", &[("size", "4k")], attributes)?;
            mask.attach(&place).map_err(doing)?;
            empty = Some(mask);
        }
    }
    for path in READONLY_IN_PROC {
        let doing = |errno| Failure::doing::<Errno>(&format!("protect {path}"))(errno);
        let Some(place) = open(proc, path).map_err(doing)? else { continue };
        let same = MountHandle::clone_of(&place).map_err(doing)?;
        let attributes = MountAttributes {
            readonly: true,
            nodev: true,
            nosuid: true,
            noexec: true,
            recursive: true,
        };
        same.restrict(attributes)?;
        same.attach(&place).map_err(doing)?;
    }
    Ok(())
}

fn open(root: impl AsFd, path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
