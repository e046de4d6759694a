//! Process creation and inheritance: `clone3`, `fork`, descriptors, signals.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};

/// The new namespaces of a child, in addition to a mount namespace.
#[expect(clippy::struct_excessive_bools, reason = "each is a namespace of its own")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Namespaces {
    /// `true` for a new network namespace.
    pub(crate) network: bool,
    /// `true` for new message queues, semaphores and shared memory.
    pub(crate) ipc: bool,
    /// `true` for a host name of its own.
    pub(crate) uts: bool,
    /// `true` for a new process namespace.
    pub(crate) pid: bool,
}

/// The process in which [`clone`] returns.
#[derive(Debug)]
pub(crate) enum CloneResult {
    /// The parent, with the child's process descriptor.
    Parent(OwnedFd),
    /// The new child process.
    Child,
}

/// The flag with its full width; `libc` has a type that is too narrow.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The kernel's `struct clone_args` of Linux 5.7.
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

/// Sets resource limits for a program before its first instruction. Lower limits of this process
/// remain.
pub fn limit_resources(command: &mut tokio::process::Command, limits: [(Resource, u64); 2]) {
    let set = move || {
        for (resource, most) in limits {
            let most = Some(getrlimit(resource).maximum.map_or(most, |own| own.min(most)));
            setrlimit(resource, Rlimit { current: most, maximum: most })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec, the closure makes two system calls per limit. It takes no lock
    // and allocates no memory.
    unsafe { command.pre_exec(set) };
}

/// Makes the kernel kill a program when the thread that starts it ends.
pub(crate) fn end_with_thread(command: &mut std::process::Command) {
    let parent = rustix::process::getpid();
    let bind = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have ended before.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec, the closure makes two system calls. It takes no lock and
    // allocates no memory.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, bind) };
}

/// Forks a child into new namespaces and into a control group of version 2.
///
/// # Errors
/// Fails if the process has more than one thread, because a child of such a process can't do
/// anything safely. Fails if the kernel refuses.
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
    // SAFETY: without CLONE_VM and without a stack this is a fork: the child continues with a copy
    // of the memory. The process has one thread (checked above), so no thread that the child lacks
    // can hold a lock. `pidfd` and the group live until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>())
    };
    match result {
        0 => Ok(CloneResult::Child),
        // SAFETY: the kernel has just stored a new descriptor here, and no other code owns it.
        1.. => Ok(CloneResult::Parent(unsafe { OwnedFd::from_raw_fd(pidfd) })),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The process in which [`fork`] returns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fork {
    /// The parent, with the child's PID.
    Parent(i32),
    /// The new child process.
    Child,
}

/// Forks a child that inherits everything from this process.
///
/// # Errors
/// Fails if the process has more than one thread, or if the kernel refuses.
pub(crate) fn fork() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    // SAFETY: the process has one thread (checked above), so no thread that the child lacks can
    // hold a lock.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Fork::Parent(child)),
    }
}

/// Forks a child that inherits everything from this process, and returns its process descriptor in
/// the parent.
///
/// # Errors
/// The same as for [`fork`].
pub(crate) fn fork_watched() -> io::Result<CloneResult> {
    let child = match fork()? {
        Fork::Child => return Ok(CloneResult::Child),
        Fork::Parent(child) => child,
    };
    let number = Pid::from_raw(child).ok_or_else(|| io::Error::other("the child has no number"))?;
    // The child is not reaped before this process waits for it, so its number is still its own.
    Ok(CloneResult::Parent(pidfd_open(number, PidfdFlags::empty())?))
}

/// Closes every descriptor of a process that doesn't use them any more.
pub(crate) fn close_all() {
    // SAFETY: the call takes three integers. The owners of descriptors never use or drop them,
    // because the process only waits and exits.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
    if result != 0 {
        for fd in 0..1024 {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Closes standard input, output and error of a process that doesn't use them any more.
pub(crate) fn close_standard() {
    for fd in 0..3 {
        // SAFETY: the call takes an integer. The standard streams have no owner that closes them.
        unsafe { libc::close(fd) };
    }
}

/// Returns `true` if the kernel has `clone3`.
pub(crate) fn has_clone3() -> bool {
    // SAFETY: the kernel rejects arguments of size zero before it reads anything.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0) };
    result != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// Returns `true` if the kernel can mark a range of descriptors as close-on-exec.
pub(crate) fn has_close_range() -> bool {
    // SAFETY: the call takes three integers. No process has descriptors with these numbers.
    let result = unsafe {
        let first = libc::c_uint::MAX - 1;
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    result == 0
}

/// Marks every descriptor above 2 as close-on-exec.
pub(crate) fn close_on_exec_above() -> io::Result<()> {
    // SAFETY: the call takes three integers. Descriptors stay open and keep their owners.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Linux has the call since 5.9 and the flag since 5.11.
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            close_on_exec_one_by_one()
        }
        error => Err(error),
    }
}

fn close_on_exec_one_by_one() -> io::Result<()> {
    // A process that has changed its user can't list `/proc/self/fd`, but can read this file.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    let size = size.and_then(|size| size.trim().parse::<libc::c_int>().ok());
    let size = size.ok_or_else(|| io::Error::other("/proc/self/status names no FDSize"))?;
    for fd in 3..size {
        // SAFETY: the call takes integers. The kernel rejects numbers that aren't open descriptors,
        // and the open ones stay open and keep their owners.
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

/// Resets all signals to their default disposition and unblocks them.
pub(crate) fn reset_signals() {
    // The kernel's own structure: no handler, no flags, no restorer, an empty mask.
    let default = [0_u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the structure lives until the call returns and has the kernel's size on 64-bit
        // architectures. The default disposition runs no code of this process. This is a direct
        // call because the C library refuses its two internal signals. The kernel refuses SIGKILL
        // and SIGSTOP, which always have the default.
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
    // SAFETY: `sigemptyset` initialises the set before it is read, and the set lives until the
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
