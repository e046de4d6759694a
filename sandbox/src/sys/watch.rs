//! Descriptors that a runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Has the current runtime watch a descriptor.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` refers to the same open descriptor as long as it lives, and the
    // `AsyncFd` owns it and gives out shared references alone until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
