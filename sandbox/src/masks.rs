//! The hidden and read-only parts of a container's `/proc` and `/sys`, which are Docker's.
//!
//! They are opened below the descriptors of the new file systems, without following links. An
//! image's own `/proc` has no influence on them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
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

/// Returns the hidden paths.
pub(super) fn masked() -> Vec<String> {
    let proc = MASKED_IN_PROC.iter().map(|path| format!("/proc/{path}"));
    proc.chain(MASKED_IN_SYS.iter().map(|path| format!("/sys/{path}"))).collect()
}

/// Returns the read-only paths.
pub(super) fn readonly() -> Vec<String> {
    READONLY_IN_PROC.iter().map(|path| format!("/proc/{path}")).collect()
}

/// Returns `true` if an entry of `/proc` is hidden.
pub(super) fn hides_in_proc(name: &[u8]) -> bool {
    MASKED_IN_PROC.iter().any(|hidden| hidden.as_bytes() == name)
}

/// Returns `true` if a path below `/sys`, with a slash at its beginning, is hidden.
pub(super) fn hides_in_sys(path: &[u8]) -> bool {
    let Some(path) = path.strip_prefix(b"/") else { return false };
    MASKED_IN_SYS.iter().any(|hidden| {
        let rest = path.strip_prefix(hidden.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// Applies the masks to a new `/proc` and `/sys`. Files are hidden by mounts of `null`, a file of
/// an attached mount.
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
            // One empty, read-only directory serves for all masks.
            MountHandle::clone_of(mask).and_then(|mask| mask.attach(&place)).map_err(doing)?;
        } else {
            let mask = MountHandle::file_system("tmpfs", &[("size", "4k")], attributes)?;
            mask.attach(&place).map_err(doing)?;
            empty = Some(mask);
        }
    }
    for path in READONLY_IN_PROC {
        protect(proc, path)?;
    }
    Ok(())
}

/// Protects the modes and owners of files in `/proc` outside of the process directories. The kernel
/// shares them among all programs of the machine.
///
/// # Errors
/// Fails if the files can't be read or mounted.
pub(super) fn protect_shared(proc: &MountHandle) -> Result<(), Failure> {
    for name in shared_entries(proc).map_err(Failure::doing("read /proc"))? {
        if !MASKED_IN_PROC.contains(&name.as_str()) && !READONLY_IN_PROC.contains(&name.as_str()) {
            protect(proc, &name)?;
        }
    }
    Ok(())
}

/// Returns the names of files and directories in `/proc` that aren't processes. Links have no
/// modes.
fn shared_entries(proc: &MountHandle) -> rustix::io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(proc, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        let is_shared = entry.file_type() != FileType::Symlink
            && !name.starts_with('.')
            && !name.bytes().all(|byte| byte.is_ascii_digit());
        if is_shared {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

/// Makes an entry of `/proc` read-only with everything in it.
fn protect(proc: &MountHandle, path: &str) -> Result<(), Failure> {
    let doing = |errno| Failure::doing::<Errno>(&format!("protect {path}"))(errno);
    let Some(place) = open(proc, path).map_err(doing)? else { return Ok(()) };
    let same = MountHandle::clone_of(&place).map_err(doing)?;
    same.restrict(MountAttributes::INERT)?;
    same.attach(&place).map_err(doing)
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
