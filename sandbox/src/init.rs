//! Process 1 of a program that doesn't reap: it passes signals on, and waits for whoever ends.
//!
//! A child process splits in two before it becomes the program. The one that stays is process 1 of the
//! namespace, under the same user, filter and capabilities as the program, and has no descriptors left.
//! When the program ends, it ends with the program's status, and the kernel ends everything else.

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, setpgid};

use super::wire::Failure;
use crate::sys::{self, Fork};

/// Which of the two a process is.
pub(super) enum Part {
    /// Process 1.
    Init {
        /// The process that becomes the program.
        program: Pid,
    },
    /// The program.
    Program,
}

/// Splits this process. The program's is a process group of its own, in the foreground of the terminal
/// if there is one.
pub(super) fn split(has_terminal: bool) -> Result<Part, Failure> {
    let doing = |errno| Failure::doing::<std::io::Error>("start process 1")(errno);
    // Process 1 is told of what comes for it from here on.
    SigSet::all().thread_block().map_err(|errno| doing(errno.into()))?;
    let part = sys::fork().map_err(doing)?;
    if let Fork::Parent(program) = part {
        return Ok(Part::Init { program: Pid::from_raw(program) });
    }
    let own = || {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        if has_terminal {
            nix::unistd::tcsetpgrp(std::io::stdin(), getpid())?;
        }
        SigSet::empty().thread_set_mask()
    };
    own().map_err(|errno: nix::errno::Errno| doing(errno.into()))?;
    Ok(Part::Program)
}

/// Is process 1 until the program ends.
#[expect(
    clippy::exit,
    reason = "process 1 is a process of its own, and has no caller to return to"
)]
pub(super) fn run(program: Pid) -> ! {
    // Where it shares the host's processes, it isn't process 1. Without this, somebody else reaps.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // The program's input and output end with the program.
    sys::close_all();
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(program) {
                    std::process::exit(code);
                }
            }
            // They are about this process's own use of the terminal; or a signal that has no name.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) | Err(_) => {}
            // It may just have ended, which a signal of its own tells.
            Ok(signal) => drop(kill(program, signal)),
        }
    }
}

/// Reaps whoever has ended, and returns the status where the program has.
fn reap(program: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == program => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                code = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}
