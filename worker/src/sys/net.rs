//! The loopback interface.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Raises `lo` in the network namespace that `socket` belongs to; the kernel gives it its address.
pub(crate) fn raise_loopback(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `ifreq`, a structure of integers and unions of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // The C libraries give the number of a request different types.
    let command = libc::SIOCSIFFLAGS as _;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), command, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
