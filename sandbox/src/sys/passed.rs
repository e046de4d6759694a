//! Descriptors that the parent process passes.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Returns a descriptor of its own for a number that the parent process has passed. Programs that
/// kiln starts don't inherit it.
///
/// # Errors
/// Fails if the descriptor isn't open.
pub fn passed_descriptor(number: u16) -> io::Result<OwnedFd> {
    // SAFETY: the number isn't negative. The descriptor is borrowed for the call alone, and the
    // kernel refuses a number that isn't open.
    let passed = unsafe { BorrowedFd::borrow_raw(i32::from(number)) };
    rustix::io::fcntl_setfd(passed, rustix::io::FdFlags::CLOEXEC)?;
    Ok(rustix::io::fcntl_dupfd_cloexec(passed, 3)?)
}
