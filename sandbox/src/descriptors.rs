//! The paths of open files.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{CWD, readlinkat};

/// Returns a path that leads to one of this process's descriptors, also if it was opened with
/// `O_PATH`.
pub(super) fn own_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Returns the absolute path that a descriptor leads to.
pub(super) fn path_of(fd: impl AsFd) -> rustix::io::Result<Vec<u8>> {
    Ok(readlinkat(CWD, own_path(fd.as_fd()), Vec::new())?.into_bytes())
}
