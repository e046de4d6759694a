//! The keeper of a helper whose programs the kernel doesn't end.
//!
//! A helper is the first process of a process namespace, in which all of its programs are: when it ends,
//! however that happens, the kernel ends them, and nothing that a program does can prevent that. A program
//! that shares the host's processes can't be in such a namespace, so its helper has none. In its place, the
//! helper has a parent, the *keeper*, which does nothing but wait for its end, and then kills what the
//! helper has left behind. When the keeper ends first, the helper ends its programs itself: so
//! something of a program stays only where both of them are killed at the same moment.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::orphans;
use crate::sys::{self, Fork};

/// Splits this process into a keeper and its helper, and returns the keeper's descriptor in the helper.
pub(super) fn split() -> io::Result<OwnedFd> {
    orphans::adopt()?;
    let keeper = pidfd_open(getpid(), PidfdFlags::empty())?;
    match sys::fork()? {
        Fork::Child => Ok(keeper),
        Fork::Parent(helper) => keep(Pid::from_raw(helper)),
    }
}

/// Is the keeper until nothing is left to be done.
#[expect(
    clippy::exit,
    reason = "the keeper is a process of its own, and has no caller to return to"
)]
fn keep(helper: Pid) -> ! {
    let _ = rustix::thread::set_name(c"kiln-keeper");
    // kiln has to see the helper's side of its sockets close.
    sys::close_all();
    while let Err(nix::errno::Errno::EINTR) = waitpid(helper, None) {}
    orphans::kill(&[]);
    std::process::exit(0)
}
