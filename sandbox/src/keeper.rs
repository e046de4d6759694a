//! The keeper of a helper whose programs the kernel doesn't kill.
//!
//! Usually the helper is process 1 of a process namespace that contains all of its programs. When
//! it ends for any reason, the kernel kills them, and no program can prevent that. A program that
//! shares the host's processes can't be in such a namespace, so its helper has none. Instead the
//! helper has a parent, the *keeper*, which waits for the helper's end and then kills the processes
//! that it has left. If the keeper ends first, the helper kills its programs itself. Processes
//! survive only if both are killed at the same moment.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::orphans;
use crate::sys::{self, Fork};

/// Splits this process into a keeper and its helper. Returns the keeper's descriptor in the helper.
pub(super) fn split() -> io::Result<OwnedFd> {
    orphans::adopt()?;
    let keeper = pidfd_open(getpid(), PidfdFlags::empty())?;
    match sys::fork()? {
        Fork::Child => Ok(keeper),
        Fork::Parent(helper) => keep(Pid::from_raw(helper)),
    }
}

/// Runs as the keeper until the helper and its processes have ended.
#[expect(
    clippy::exit,
    reason = "the keeper is a process of its own, and has no caller to return to"
)]
fn keep(helper: Pid) -> ! {
    let _ = rustix::thread::set_name(c"kiln-keeper");
    // kiln must see the helper's ends of its sockets close.
    sys::close_all();
    while let Err(nix::errno::Errno::EINTR) = waitpid(helper, None) {}
    orphans::kill(&[]);
    std::process::exit(0)
}
