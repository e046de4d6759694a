//! Descriptors in tokio's event loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the current tokio runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` refers to the same open descriptor as long as it lives. The `AsyncFd`
    // owns it and only hands out shared references until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
