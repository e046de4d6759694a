//! Other processes: their registers, limits and files as the kernel describes them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The size of the kernel's `struct statx` in bytes.
pub(crate) const STATX_SIZE: usize = 256;

/// Reads the attributes of `path` below `directory` as the kernel's `struct statx`.
pub(crate) fn statx(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
) -> io::Result<[u8; STATX_SIZE]> {
    let mut bytes = [0_u8; STATX_SIZE];
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the path is a C string, and the kernel writes at most 256 bytes, the fixed size of its
    // structure, to the array. Both live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            mask,
            bytes.as_mut_ptr(),
        )
    };
    if result == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// The size of the kernel's `struct statfs` in bytes.
const STATFS_SIZE: usize = 120;

/// Reads the attributes of the file system of an open file as the kernel's `struct statfs`.
pub(crate) fn statfs(path: &CStr) -> io::Result<[u8; STATFS_SIZE]> {
    let mut bytes = [0_u64; STATFS_SIZE / 8];
    // SAFETY: the path is a C string. The kernel writes its structure, which has 120 bytes on 64-bit
    // machines and alignment 8, to the array.
    let result = unsafe { libc::syscall(libc::SYS_statfs, path.as_ptr(), bytes.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut all = [0; STATFS_SIZE];
    for (to, from) in all.chunks_exact_mut(8).zip(bytes) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    Ok(all)
}

/// A resource limit that has no effect on programs without real-time priority. The supervisor keeps
/// a number in it. Children inherit it, and `execve` leaves it unchanged.
const NUMBER: libc::c_int = 15;

/// Reads the number that a process carries: the soft limit on the time of real-time programs.
pub(crate) fn carried_number(pid: u32) -> io::Result<u64> {
    let mut old = [0_u64; 2];
    prlimit(pid, None, Some(&mut old))?;
    Ok(old[0])
}

/// Makes a process carry a number.
pub(crate) fn carry_number(pid: u32, number: u64) -> io::Result<()> {
    let mut old = [0_u64; 2];
    prlimit(pid, None, Some(&mut old))?;
    prlimit(pid, Some(&[number, old[1]]), None)
}

/// Returns the limit on the numbers of a process's descriptors.
pub(crate) fn file_limit(pid: u32) -> io::Result<u64> {
    let mut old = [0_u64; 2];
    limit(pid, libc::RLIMIT_NOFILE as libc::c_int, None, Some(&mut old))?;
    Ok(old[0])
}

fn prlimit(pid: u32, new: Option<&[u64; 2]>, old: Option<&mut [u64; 2]>) -> io::Result<()> {
    limit(pid, NUMBER, new, old)
}

fn limit(
    pid: u32,
    resource: libc::c_int,
    new: Option<&[u64; 2]>,
    old: Option<&mut [u64; 2]>,
) -> io::Result<()> {
    let new = new.map_or(std::ptr::null(), |new| new.as_ptr());
    let old = old.map_or(std::ptr::null_mut(), |old| old.as_mut_ptr());
    // SAFETY: each pointer is null or leads to the kernel's `struct rlimit64`, two integers of 64
    // bits, which lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, old) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A thread that was stopped in a system call.
pub(crate) struct Stopped {
    thread: Pid,
    registers: Registers,
}

/// The number of events that may come before the stop.
const MOST_EVENTS: usize = 64;

/// Requests that a thread stops before it returns from its system call. Only an ancestor may do
/// that, where the machine restricts `ptrace`.
pub(crate) fn request_stop(thread: u32) -> io::Result<()> {
    let thread = Pid::from_raw(thread.cast_signed());
    ptrace::seize(thread, ptrace::Options::empty())?;
    if let Err(errno) = ptrace::interrupt(thread) {
        let _ = ptrace::detach(thread, None);
        return Err(errno.into());
    }
    Ok(())
}

impl Stopped {
    /// Waits until a thread has stopped after [`request_stop`].
    pub(crate) fn wait(thread: u32) -> io::Result<Self> {
        let thread = Pid::from_raw(thread.cast_signed());
        for _ in 0..MOST_EVENTS {
            match waitpid(thread, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceEvent(..)) => {
                    let registers = Registers::of(thread)?;
                    return Ok(Self { thread, registers });
                }
                // A signal came first. The thread handles it.
                Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(thread, Some(signal))?,
                Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Err(io::ErrorKind::NotFound.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
        let _ = ptrace::detach(thread, None);
        Err(io::Error::other("the thread doesn't stop"))
    }

    /// Executes a system call in the thread, which stays stopped. Returns its result.
    pub(crate) fn call(&mut self, number: i64, arguments: [u64; 6]) -> io::Result<i64> {
        let mut registers = self.registers.clone();
        registers.prepare(number, arguments);
        registers.set(self.thread)?;
        ptrace::step(self.thread, None)?;
        match waitpid(self.thread, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => {}
            Ok(_) => return Err(io::Error::other("a signal came before the call's end")),
            Err(errno) => return Err(errno.into()),
        }
        Ok(Registers::of(self.thread)?.result())
    }

    /// Lets the thread repeat its system call with other arguments.
    pub(crate) fn repeat(mut self, number: i64, arguments: [u64; 6]) -> io::Result<()> {
        self.registers.prepare(number, arguments);
        self.registers.set(self.thread)?;
        Ok(ptrace::detach(self.thread, None)?)
    }
}

/// The registers of a thread that has stopped at the end of a system call.
#[derive(Clone)]
struct Registers(libc::user_regs_struct);

impl Registers {
    fn of(thread: Pid) -> io::Result<Self> {
        Ok(Self(ptrace::getregs(thread)?))
    }

    fn set(&self, thread: Pid) -> io::Result<()> {
        Ok(ptrace::setregs(thread, self.0)?)
    }
}

#[cfg(target_arch = "x86_64")]
impl Registers {
    /// Leads the thread back to the instruction of its call, with another call.
    fn prepare(&mut self, number: i64, arguments: [u64; 6]) {
        /// The length of the instruction `syscall`.
        const LENGTH: u64 = 2;
        let registers = &mut self.0;
        registers.rip -= LENGTH;
        registers.rax = number.cast_unsigned();
        // The kernel repeats no call by itself then.
        registers.orig_rax = u64::MAX;
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        (registers.rdi, registers.rsi, registers.rdx) = (rdi, rsi, rdx);
        (registers.r10, registers.r8, registers.r9) = (r10, r8, r9);
    }

    fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers {
    /// Gives the thread, which is at the instruction of its call again, another call.
    fn prepare(&mut self, number: i64, arguments: [u64; 6]) {
        self.0.regs[..6].copy_from_slice(&arguments);
        self.0.regs[8] = number.cast_unsigned();
    }

    fn result(&self) -> i64 {
        self.0.regs[0].cast_signed()
    }
}
