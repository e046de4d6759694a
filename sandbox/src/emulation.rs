//! The rung without privileges: a supervisor answers the system calls that name files and users.
//!
//! An ordinary user can't change the root directory, mount, or become another user. So the program
//! runs as kiln's own user, in kiln's own root, and its seccomp filter asks the supervisor about
//! each call that would show this:
//!
//! - *Paths.* The supervisor resolves a path in the container ([`resolve`]), through a table of
//!   mounts that only it knows ([`mounts`]), and acts on the file itself. An open file is handed to
//!   the program. The kernel resolves no path of the program.
//! - *Users.* The program's users, groups, working directories and masks are the supervisor's
//!   ([`state`]). It checks permissions as the kernel would.
//! - *Attributes.* Owners, modes, devices and attributes that an ordinary user can't set are recorded
//!   beside the files ([`metadata`]), as everywhere in kiln's store.
//! - *Programs.* The kernel executes them, with paths that the supervisor has replaced
//!   ([`execute`], [`repeat`]).
//! - *Processes.* A program reaches those that descend from its supervisor ([`system`]).
//!
//! # Security
//!
//! The filter lets no call pass that takes a path, with four exceptions whose arguments another
//! thread might change after the check: `execve`, and `connect`, `bind` and `sendmsg` on local
//! sockets. A hostile program may so execute a program outside of its root, still under its filter,
//! or reach a socket that kiln's own user may reach. Calls of other architectures fail, and so do
//! `io_uring`, `openat2`, file handles and every call that the usual filter refuses.
//!
//! # Differences
//!
//! - Programs of 32 bits and other processors don't run, and neither do debuggers across `execve`.
//! - The network and the IPC objects are the machine's. File systems in memory are directories of the
//!   store, without a limit on their size.
//! - Links, fifos and sockets belong to root.

mod attributes;
mod calls;
mod entries;
mod execute;
mod extended;
mod identity;
mod metadata;
mod mounts;
mod open;
mod processes;
mod repeat;
mod resolve;
mod scratch;
mod setup;
mod sockets;
mod start;
mod state;
mod system;
mod views;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use self::execute::{Copies, Execution};
use self::mounts::{Mounts, kind_of};
use self::resolve::{Caller, Found, Tables};
use self::scratch::Scratch;
use self::sockets::{Binding, Sockets};
pub(super) use self::start::run;
use self::state::States;
use super::descriptors::path_of;
use super::supervisor::{Call, Calls};
use super::tracee::Tracees;
use crate::sys::Answer;

/// The descriptor that means the working directory.
const HERE: u64 = libc::AT_FDCWD as u64;

/// The emulated parts of the kernel for one program.
struct Emulation {
    mounts: Mounts,
    states: States,
    memory: RefCell<Tracees>,
    scratch: Scratch,
    copies: Copies,
    sockets: Sockets,
    /// The calls that threads repeat, with what has to be done then.
    pending: HashMap<u32, Repeated>,
    /// The directory that stands for `/proc` when it is listed.
    listing: OwnedFd,
    /// `true` once that directory has the entries that don't change. Few programs list `/proc`.
    is_listed: Cell<bool>,
    /// The number of the program's process, which seems to be process 1. Zero if it doesn't.
    first: u32,
    hostname: String,
    /// The NIS domain name. `None` for the machine's.
    domain: Option<String>,
    /// The capabilities that root seems to have, as a bit mask.
    capabilities: u64,
}

/// A call that a thread repeats.
struct Repeated {
    call: i32,
    arguments: [u64; 6],
    then: Pending,
}

/// The handling of a repeated call.
enum Pending {
    /// The kernel executes the call.
    Continue,
    /// The kernel executes this program.
    Execute(Box<Execution>),
    /// The kernel creates this socket.
    Bind(Box<Binding>),
    /// The call fails.
    Fail(Errno),
}

/// A call with its caller.
struct Request<'a> {
    call: &'a Call<'a>,
    caller: Caller,
    arguments: [u64; 6],
}

/// The reply to a call.
enum Reply {
    /// The kernel executes the call.
    Continue,
    Value(i64),
    /// The call returns a new descriptor for this file.
    Descriptor {
        fd: OwnedFd,
        /// `true` if the execution of a program closes it.
        closes: bool,
    },
    /// The reply has been given already, or another process gives it.
    Answered,
}

impl Calls for Emulation {
    fn answer(&mut self, call: &Call<'_>) -> Option<Answer> {
        let notification = &call.notification;
        let thread = notification.pid;
        let caller = Caller { thread, state: self.states.of(thread) };
        let request = Request { call, caller, arguments: notification.arguments };
        let is_repeated = self.pending.get(&thread).is_some_and(|repeated| {
            repeated.call == notification.call && repeated.arguments == request.arguments
        });
        let reply = match self.pending.remove(&thread).filter(|_| is_repeated) {
            Some(repeated) => self.go_on(&request, repeated.then),
            None => match calls::handler(notification.call) {
                Some(handler) => handler(self, &request),
                None => Err(Errno::NOSYS),
            },
        };
        match reply {
            Ok(Reply::Continue) => Some(Answer::Continue),
            Ok(Reply::Value(value)) => Some(Answer::Value(value)),
            Ok(Reply::Answered) => None,
            Ok(Reply::Descriptor { fd, closes }) => {
                Some(match call.add_descriptor(fd, None, closes) {
                    Ok(number) => Answer::Value(number),
                    Err(error) => Answer::Error(error.raw_os_error().unwrap_or(libc::EMFILE)),
                })
            }
            Err(errno) => Some(Answer::Error(errno.raw_os_error())),
        }
    }
}

impl Emulation {
    /// Makes the program's process seem to be process 1, as in a namespace of its own. With a
    /// terminal, it keeps its number, because a shell compares that with those of process groups.
    fn set_program(&mut self, program: nix::unistd::Pid, has_terminal: bool) {
        self.first = if has_terminal { 0 } else { program.as_raw().cast_unsigned() };
    }

    /// Handles a repeated call.
    fn go_on(&mut self, request: &Request<'_>, pending: Pending) -> Result<Reply, Errno> {
        match pending {
            Pending::Continue => Ok(Reply::Continue),
            Pending::Execute(execution) => execute::finish(self, request, *execution),
            Pending::Bind(binding) => sockets::finish(self, request, &binding),
            Pending::Fail(errno) => Err(errno),
        }
    }

    fn tables(&self) -> Tables<'_> {
        Tables { mounts: &self.mounts, states: &self.states, first: self.first }
    }

    /// Reads a path of the caller, and returns it after the directory that it is relative to.
    fn path_of(
        &self,
        request: &Request<'_>,
        directory: u64,
        path: u64,
    ) -> Result<(Vec<u8>, Vec<u8>), Errno> {
        let path = self.read_path(request, path)?;
        if path.starts_with(b"/") || directory as i32 == libc::AT_FDCWD {
            return Ok((request.caller.state.directory.clone(), path));
        }
        let found = self.file_of(request, directory)?;
        if found.kind != FileType::Directory || found.mount.is_none() {
            return Err(Errno::NOTDIR);
        }
        Ok((found.path, path))
    }

    /// Opens a file that the caller has open.
    fn file_of(&self, request: &Request<'_>, fd: u64) -> Result<Found, Errno> {
        let path = format!("/proc/{}/fd/{}", request.caller.thread, fd as i32);
        let fd = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Err(Errno::BADF),
            other => other?,
        };
        let (kind, host) = (kind_of(fd.as_fd())?, path_of(fd.as_fd())?);
        let path = self.mounts.path_in_container(&host);
        let mount = path.as_ref().map(|path| self.mounts.holding(path).0);
        Ok(Found { fd, kind, path: path.unwrap_or(host), mount })
    }

    fn read(&self, request: &Request<'_>, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        let read = self.memory.borrow_mut().read(request.caller.thread, at, &mut bytes);
        read.map_err(|error| errno(&error))?;
        Ok(bytes)
    }

    fn read_array<const N: usize>(&self, request: &Request<'_>, at: u64) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        let read = self.memory.borrow_mut().read(request.caller.thread, at, &mut bytes);
        read.map_err(|error| errno(&error))?;
        Ok(bytes)
    }

    fn read_u64(&self, request: &Request<'_>, at: u64) -> Result<u64, Errno> {
        self.read_array(request, at).map(u64::from_ne_bytes)
    }

    fn read_path(&self, request: &Request<'_>, at: u64) -> Result<Vec<u8>, Errno> {
        let path = self.memory.borrow_mut().read_path(request.caller.thread, at);
        path.map_err(|error| errno(&error))
    }

    /// Writes a result to the caller's memory.
    fn write(&self, request: &Request<'_>, at: u64, bytes: &[u8]) -> Result<Reply, Errno> {
        let written = self.memory.borrow_mut().write(request.caller.thread, at, bytes);
        written.map_err(|error| errno(&error))?;
        Ok(Reply::Value(0))
    }
}

/// Returns the number of an error, which the caller's call fails with.
fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
