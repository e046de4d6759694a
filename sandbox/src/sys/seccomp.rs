//! Installing seccomp filters.

use std::io;

/// The kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterInstruction {
    /// What it does.
    pub(crate) code: u16,
    /// How far it jumps where its condition holds.
    pub(crate) jt: u8,
    /// And where it doesn't.
    pub(crate) jf: u8,
    /// Its operand.
    pub(crate) k: u32,
}

/// Installs a filter for this thread and everything that it becomes. Needs `no_new_privs`
/// or `CAP_SYS_ADMIN`. `options` are the kernel's `SECCOMP_FILTER_FLAG_…`.
pub(crate) fn install_filter(
    program: &[FilterInstruction],
    options: libc::c_ulong,
) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let fprog = libc::sock_fprog {
        len: length,
        // The kernel doesn't write there; the instructions have its layout.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `fprog` names `length` instructions that live until the call returns; the kernel
    // copies and checks them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, options, &raw const fprog)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
