//! The helper, seen from kiln.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::error::SandboxError;
use super::wire::{self, Run};
use super::{helper, program};
use crate::sys;

/// How long a helper that has closed its sockets may take to end, with its programs.
const ENDING: Duration = Duration::from_secs(10);

/// Which processes a helper's programs can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// Their own.
    Own,
    /// The host's.
    Host,
}

/// A helper process. Dropped, it ends after the last of its programs.
pub(super) struct Server {
    door: OwnedFd,
    /// Can be read when the process has ended, and everything that ends with it.
    end: AsyncFd<OwnedFd>,
    /// Not waited for; the runtime does that when it has ended.
    _process: Child,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("door", &self.door).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a helper. `beside` is any directory but that of kiln's program.
    pub(super) fn start(beside: &Path, processes: Processes) -> Result<Self, SandboxError> {
        let program =
            program::unwritable(beside).map_err(SandboxError::host("open kiln's program"))?;
        let (door, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| SandboxError::host("create socket")(errno.into()))?;
        // Started through its descriptor's name: what can't be written has no other. Only the three
        // standard descriptors are handed over, so that no other child of this process, started
        // at the same time, can inherit one of them.
        let mut command =
            std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg0(helper::MARKER).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let process = match processes {
            Processes::Own => spawn_first(command),
            Processes::Host => Command::from(command).spawn(),
        }
        .map_err(SandboxError::host("start the sandbox"))?;
        let end = watch(&process).map_err(SandboxError::host("watch the sandbox"))?;
        Ok(Self { door, end, _process: process })
    }

    /// Waits until the helper has ended, and its programs with it.
    pub(super) async fn end(&self) {
        // One that lives although it has closed a program's socket has seen to the program itself.
        let _ = tokio::time::timeout(ENDING, self.end.readable()).await;
    }

    /// Asks for a program to be run. What happens is told on the control socket, the first of the
    /// descriptors.
    pub(super) fn ask(&self, run: &Run, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.door, run, fds)
    }
}

/// Starts a process as the first one of a process namespace: with it, the kernel ends all others. Where
/// there can't be such a namespace, it is a process like any other.
fn spawn_first(command: std::process::Command) -> io::Result<Child> {
    let runtime = Handle::current();
    let spawn = move || {
        // The namespace is that of this thread's children, and the thread ends.
        let _ = unshare(CloneFlags::CLONE_NEWPID);
        let _runtime = runtime.enter();
        Command::from(command).spawn()
    };
    let thread = std::thread::Builder::new().spawn(spawn)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it has failed")))
}

fn watch(process: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let number = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let number = number.ok_or_else(|| io::Error::other("it has ended"))?;
    sys::watch(pidfd_open(number, PidfdFlags::empty())?)
}
