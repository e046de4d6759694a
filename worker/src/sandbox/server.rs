//! The helper, seen from kiln.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::process::{Child, Command};

use super::error::SandboxError;
use super::wire::{self, Run};
use super::{helper, program};

/// A helper process. Dropped, it ends after the last of its programs.
pub(super) struct Server {
    door: OwnedFd,
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
    pub(super) fn start(beside: &Path) -> Result<Self, SandboxError> {
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
        let process =
            Command::from(command).spawn().map_err(SandboxError::host("start the sandbox"))?;
        Ok(Self { door, _process: process })
    }

    /// Asks for a program to be run. What happens is told on the control socket, the first of the
    /// descriptors.
    pub(super) fn ask(&self, run: &Run, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.door, run, fds)
    }
}
