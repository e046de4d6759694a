//! The system call `mount_setattr`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The attributes to set on a mount.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the kernel's")]
pub(crate) struct MountAttributes {
    /// Makes the mount read-only.
    pub(crate) readonly: bool,
    /// Forbids opening device nodes on the mount.
    pub(crate) nodev: bool,
    /// Ignores setuid bits and file capabilities.
    pub(crate) nosuid: bool,
    /// Forbids executing files on the mount.
    pub(crate) noexec: bool,
    /// Changes the mounts below it too.
    pub(crate) recursive: bool,
}

impl MountAttributes {
    /// The attributes of files that can only be read, with all mounts below.
    pub(crate) const INERT: Self =
        Self { readonly: true, nodev: true, nosuid: true, noexec: true, recursive: true };
}

/// Sets attributes of the mount that has `mount` as its root.
pub(crate) fn set_mount_attributes(mount: impl AsFd, set: MountAttributes) -> io::Result<()> {
    let mut bits = 0;
    for (on, bit) in [
        (set.readonly, libc::MOUNT_ATTR_RDONLY),
        (set.nodev, libc::MOUNT_ATTR_NODEV),
        (set.nosuid, libc::MOUNT_ATTR_NOSUID),
        (set.noexec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if on {
            bits |= bit;
        }
    }
    let attributes = libc::mount_attr { attr_set: bits, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let recursive = if set.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, the structure lives until the call returns and its
    // size is passed along. The descriptor is borrowed and therefore open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
