//! System call notifications: `seccomp_unotify(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::seccomp::FilterInstruction;

/// The kernel's `struct seccomp_notif`: a system call that waits for an answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notification {
    /// The number of the notification.
    pub(crate) id: u64,
    /// The ID of the calling thread.
    pub(crate) pid: u32,
    /// Always zero.
    flags: u32,
    /// The number of the system call.
    pub(crate) call: i32,
    /// The architecture of the system call, an `AUDIT_ARCH_…`.
    pub(crate) architecture: u32,
    /// The address after the instruction that called.
    pub(crate) instruction: u64,
    /// The arguments of the system call.
    pub(crate) arguments: [u64; 6],
}

/// The kernel's `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// The kernel's `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Addition {
    id: u64,
    flags: u32,
    source: u32,
    number: u32,
    number_flags: u32,
}

/// The answer to a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel executes the call. Another thread may have changed what its pointers lead to.
    Continue,
    /// The call returns this value.
    Value(i64),
    /// The call fails with this error number, which is positive.
    Error(i32),
}

const FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const FLAG_WAIT_KILLABLE: libc::c_ulong = 1 << 5;
const RESPONSE_CONTINUE: u32 = 1;
const ADDITION_SETS_NUMBER: u32 = 1;
const RECEIVE: u64 = 0xC050_2100;
const SEND: u64 = 0xC018_2101;
const IS_VALID: u64 = 0x4008_2102;
const ADD: u64 = 0x4018_2103;
const SET_FLAGS: u64 = 0x4008_2104;
const SYNCHRONOUS_WAKEUP: u64 = 1;

/// Installs a filter that may ask for answers, and returns the descriptor that receives the
/// questions. Requires `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// Since Linux 5.19, only a deadly signal interrupts a call whose notification has been received.
/// Before, any signal does.
pub(crate) fn install_listener(program: &[FilterInstruction]) -> io::Result<OwnedFd> {
    let killable = install(program, FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE);
    match killable {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            install(program, FLAG_NEW_LISTENER)
        }
        other => other,
    }
}

fn install(program: &[FilterInstruction], flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let fd = super::seccomp::install_program(program, flags)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: with this flag the call returns a new descriptor, which no other code owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns a number that nobody can predict.
pub(crate) fn random_number() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel writes at most eight bytes to the array.
    let result = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // The kernel always delivers so few bytes at once.
    if result == 8 { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

/// The index of the argument that holds the token of [`send_descriptor`]. `sendmsg` has three.
pub(crate) const TOKEN: u32 = 5;

/// Sends a message with a descriptor, and with a token that only filters see.
pub(crate) fn send_descriptor(
    socket: impl AsFd,
    message: &[u8],
    fd: impl AsFd,
    token: u64,
) -> io::Result<()> {
    /// A control message with one descriptor: `struct cmsghdr`, the descriptor, and padding.
    #[repr(C)]
    struct Control {
        length: usize,
        level: libc::c_int,
        kind: libc::c_int,
        fd: libc::c_int,
        padding: libc::c_int,
    }
    let control = Control {
        length: size_of::<Control>() - size_of::<libc::c_int>(),
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        fd: fd.as_fd().as_raw_fd(),
        padding: 0,
    };
    // The kernel's `struct iovec` and `struct msghdr`, whose fields have the size of an address.
    let part = [message.as_ptr() as usize, message.len()];
    let control_address = (&raw const control) as usize;
    let header = [0, 0, part.as_ptr() as usize, 1, control_address, size_of::<Control>(), 0_usize];
    // SAFETY: the header leads to one part and one control message with their sizes. All live until
    // the call returns, and the kernel writes to none of them. The last three arguments have no
    // meaning.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            socket.as_fd().as_raw_fd(),
            header.as_ptr(),
            libc::MSG_NOSIGNAL,
            0_usize,
            0_usize,
            token,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel switch to the receiver at once when a thread asks. Kernels before 6.6 can't.
pub(crate) fn wake_synchronously(listener: impl AsFd) {
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the request takes an integer.
    unsafe { libc::ioctl(fd, SET_FLAGS as _, SYNCHRONOUS_WAKEUP) };
}

/// Waits for the next notification. Fails with `ENOENT` if the thread has ended or was interrupted.
pub(crate) fn receive(listener: impl AsFd) -> io::Result<Notification> {
    let mut notification = Notification::default();
    call(listener, RECEIVE, &mut notification)?;
    Ok(notification)
}

/// Answers a notification. Fails with `ENOENT` if the thread no longer waits.
pub(crate) fn send(listener: impl AsFd, id: u64, answer: Answer) -> io::Result<()> {
    let mut response = Response { id, ..Response::default() };
    match answer {
        Answer::Continue => response.flags = RESPONSE_CONTINUE,
        Answer::Value(value) => response.value = value,
        Answer::Error(number) => response.error = -number,
    }
    call(listener, SEND, &mut response)
}

/// Returns `true` if the thread still waits for an answer. What was read from its memory before
/// belongs to it then.
pub(crate) fn is_valid(listener: impl AsFd, id: u64) -> bool {
    let mut id = id;
    call(listener, IS_VALID, &mut id).is_ok()
}

/// Adds a descriptor to the waiting process, as `number` if given. Returns its number there.
pub(crate) fn add_descriptor(
    listener: impl AsFd,
    id: u64,
    fd: impl AsFd,
    number: Option<u32>,
    closes_on_exec: bool,
) -> io::Result<i64> {
    let source = fd.as_fd().as_raw_fd().cast_unsigned();
    let mut addition = Addition {
        id,
        flags: if number.is_some() { ADDITION_SETS_NUMBER } else { 0 },
        source,
        number: number.unwrap_or_default(),
        number_flags: if closes_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the request reads the structure of this size, which lives until the call returns.
    let result = unsafe { libc::ioctl(fd, ADD as _, &raw mut addition) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.into()) }
}

fn call<T>(listener: impl AsFd, request: u64, argument: &mut T) -> io::Result<()> {
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: each request of this module comes with the structure that the kernel expects for it,
    // whose size is part of the request's number. It lives until the call returns.
    let result = unsafe { libc::ioctl(fd, request as _, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
