//! `mount_setattr`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What to turn on for a mount.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the kernel's")]
pub(crate) struct MountAttributes {
    /// Nothing can be written.
    pub(crate) readonly: bool,
    /// No device can be opened.
    pub(crate) nodev: bool,
    /// Setuid bits and file capabilities do nothing.
    pub(crate) nosuid: bool,
    /// Nothing can be executed.
    pub(crate) noexec: bool,
    /// Whether the mounts below it are changed too.
    pub(crate) recursive: bool,
}

impl MountAttributes {
    /// Those of files that can be read and nothing else, with all that is mounted below.
    pub(crate) const INERT: Self =
        Self { readonly: true, nodev: true, nosuid: true, noexec: true, recursive: true };
}

/// Turns attributes on for the mount that `mount` is the root of.
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
    // size is passed along; the descriptor is borrowed and so open.
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
