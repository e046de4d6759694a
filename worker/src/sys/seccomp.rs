//! Installing seccomp filters.

use std::io;

use seccompiler::sock_filter;

/// Installs a filter for this thread and everything that it becomes. Needs `no_new_privs`.
pub(crate) fn install_filter(program: &[sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let fprog = libc::sock_fprog {
        len: length,
        // The kernel doesn't write there; `seccompiler::sock_filter` has C's layout.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `fprog` names `length` instructions that live until the call returns; the kernel
    // copies and checks them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const fprog,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
