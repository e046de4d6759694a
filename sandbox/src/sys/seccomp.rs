//! The installation of seccomp filters.

use std::io;

/// The kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterInstruction {
    /// The operation code of the instruction.
    pub(crate) code: u16,
    /// The jump distance if the condition holds.
    pub(crate) jt: u8,
    /// The jump distance if the condition doesn't hold.
    pub(crate) jf: u8,
    /// The operand of the instruction.
    pub(crate) k: u32,
}

/// Installs a filter for this thread and its future children and programs. Requires `no_new_privs`
/// or `CAP_SYS_ADMIN`. `options` are the kernel's `SECCOMP_FILTER_FLAG_…`.
pub(crate) fn install_filter(
    program: &[FilterInstruction],
    options: libc::c_ulong,
) -> io::Result<()> {
    install_program(program, options).map(drop)
}

/// Installs a filter and returns the result of the system call.
pub(super) fn install_program(
    program: &[FilterInstruction],
    options: libc::c_ulong,
) -> io::Result<libc::c_long> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let fprog = libc::sock_fprog {
        len: length,
        // The kernel doesn't write through the pointer. The instructions have the kernel's layout.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `fprog` refers to `length` instructions that live until the call returns. The kernel
    // copies and checks them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, options, &raw const fprog)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
