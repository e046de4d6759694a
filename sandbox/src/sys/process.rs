//! Processes: `clone3`, what they inherit.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Which namespaces a child gets of its own, besides mount.
#[expect(clippy::struct_excessive_bools, reason = "each is a namespace of its own")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Namespaces {
    /// Network.
    pub(crate) network: bool,
    /// Message queues, semaphores and shared memory.
    pub(crate) ipc: bool,
    /// The host's name.
    pub(crate) uts: bool,
    /// Processes.
    pub(crate) pid: bool,
}

/// Where [`clone`] returns.
#[derive(Debug)]
pub(crate) enum CloneResult {
    /// In the parent, with a descriptor of the child.
    Parent(OwnedFd),
    /// In the child.
    Child,
}

/// `libc` has it in a type that is too narrow.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The kernel's `struct clone_args`, of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Gives a program limits of resources, which hold from its first instruction on; a lower limit of
/// this process stays.
pub fn limit_resources(command: &mut tokio::process::Command, limits: [(Resource, u64); 2]) {
    let set = move || {
        for (resource, most) in limits {
            let most = Some(getrlimit(resource).maximum.map_or(most, |own| own.min(most)));
            setrlimit(resource, Rlimit { current: most, maximum: most })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls per limit, and takes no lock
    // and no memory.
    unsafe { command.pre_exec(set) };
}

/// Forks a child into new namespaces, and into a control group of version 2.
///
/// # Errors
/// Fails where the process has more than one thread, since a child of such a process can't do
/// anything safely, and where the kernel refuses.
pub(crate) fn clone(namespaces: Namespaces, cgroup: Option<&File>) -> io::Result<CloneResult> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_PIDFD;
    for (is_own, flag) in [
        (namespaces.network, libc::CLONE_NEWNET),
        (namespaces.ipc, libc::CLONE_NEWIPC),
        (namespaces.uts, libc::CLONE_NEWUTS),
        (namespaces.pid, libc::CLONE_NEWPID),
    ] {
        if is_own {
            flags |= flag;
        }
    }
    let mut flags = u64::from(flags.cast_unsigned());
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let mut pidfd: libc::c_int = -1;
    let arguments = CloneArguments {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.map_or(0, |group| group.as_raw_fd() as u64),
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM and with no stack given this is a fork: the child goes on with a
    // copy of the memory. The process has one thread (checked above), so that no lock can be held
    // by a thread that the child hasn't got. `pidfd` and the group live until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>())
    };
    match result {
        0 => Ok(CloneResult::Child),
        // SAFETY: the kernel has just put a new descriptor here, which nobody else knows of.
        1.. => Ok(CloneResult::Parent(unsafe { OwnedFd::from_raw_fd(pidfd) })),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where [`fork`] returns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fork {
    /// In the parent, with the child's number.
    Parent(i32),
    /// In the child.
    Child,
}

/// Forks a child that has everything that this process has.
///
/// # Errors
/// Fails where the process has more than one thread, and where the kernel refuses.
pub(crate) fn fork() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    // SAFETY: the process has one thread (checked above), so that no lock can be held by a thread that the
    // child hasn't got.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Fork::Parent(child)),
    }
}

/// Closes every descriptor, of a process that uses none any more.
pub(crate) fn close_all() {
    // SAFETY: takes three integers. Whoever owns a descriptor here never uses or drops it: the process
    // does nothing but wait and exit.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
    if result != 0 {
        for fd in 0..1024 {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Tells whether the kernel knows `clone3`.
pub(crate) fn has_clone3() -> bool {
    // SAFETY: arguments of no size are refused before anything is read or done.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0) };
    result != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// Tells whether the kernel can mark descriptors to be closed by `execve` all at once.
pub(crate) fn has_close_range() -> bool {
    // SAFETY: takes three integers; no process has descriptors with these numbers.
    let result = unsafe {
        let first = libc::c_uint::MAX - 1;
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    result == 0
}

/// Marks every descriptor above 2 to be closed by `execve`.
pub(crate) fn close_on_exec_above() -> io::Result<()> {
    // SAFETY: takes three integers; descriptors stay open and owned as they were.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // The call is there since Linux 5.9, the flag since 5.11.
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            close_on_exec_one_by_one()
        }
        error => Err(error),
    }
}

fn close_on_exec_one_by_one() -> io::Result<()> {
    // `/proc/self/fd` can't be listed by a process that has changed its user; this can be read.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    let size = size.and_then(|size| size.trim().parse::<libc::c_int>().ok());
    let size = size.ok_or_else(|| io::Error::other("/proc/self/status names no FDSize"))?;
    for fd in 3..size {
        // SAFETY: takes integers; a number that is no open descriptor is refused by the kernel, and
        // those that are stay open and owned as they were.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EBADF) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Gives every signal its default disposition, and blocks none.
pub(crate) fn reset_signals() {
    // The kernel's own structure: no handler, no flags, no restorer, an empty mask.
    let default = [0_u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the structure lives until the call returns and is as long as the kernel's on
        // 64-bit architectures; the default disposition runs no code of this process. Made
        // directly, because the C library refuses the two signals that it keeps to itself.
        // SIGKILL and SIGSTOP are refused by the kernel, and always have the default.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: the set is initialised by `sigemptyset` before it is read, and lives until the
    // calls return.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_marked_one_by_one_where_there_is_no_call_for_all() {
        let file = File::open("/proc/self/stat").unwrap();
        let flags = |file: &File| rustix::io::fcntl_getfd(file).unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        close_on_exec_one_by_one().unwrap();
        assert_eq!(flags(&file), rustix::io::FdFlags::CLOEXEC);
    }
}
