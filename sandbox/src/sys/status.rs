//! The results of `fstat` and `statx` as the kernel writes them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// More than the size of the kernel's `struct stat` on any architecture.
const ROOM: usize = 512;

/// The size of the kernel's `struct statx`.
const EXTENDED: usize = 256;

/// Returns the `struct stat` of an open file, as the kernel writes it for this architecture.
pub(crate) fn status(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; ROOM];
    // SAFETY: the kernel writes at most the size of its structure, which is less than that of the
    // buffer.
    let result =
        unsafe { libc::syscall(libc::SYS_fstat, fd.as_fd().as_raw_fd(), bytes.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // On 64-bit architectures, the C library's structure is the kernel's.
    bytes.truncate(size_of::<libc::stat>());
    Ok(bytes)
}

/// Returns the `struct statx` of an open file.
pub(crate) fn extended_status(fd: impl AsFd, mask: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; EXTENDED];
    // SAFETY: the path is empty and ends with a zero, and the kernel writes at most the size of its
    // structure, which is that of the buffer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            mask,
            bytes.as_mut_ptr(),
        )
    };
    if result == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}
