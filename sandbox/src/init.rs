//! A process 1 for programs that don't reap: it forwards signals and reaps orphans.
//!
//! The child process forks before it becomes the program. The parent stays as process 1 of the
//! namespace, with the same user, filter and capabilities as the program and without descriptors.
//! It ends together with the program, with the same status, and the kernel kills all other
//! processes.

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, setpgid};

use super::wire::Failure;
use crate::sys::{self, Fork};

/// The role of a process after [`split`].
pub(super) enum Part {
    /// The process is process 1.
    Init {
        /// The PID of the process that becomes the program.
        program: Pid,
    },
    /// The process becomes the program.
    Program,
}

/// Forks this process. The program's process leads a process group of its own, in the foreground of
/// the terminal if there is one.
pub(super) fn split(has_terminal: bool) -> Result<Part, Failure> {
    let doing = |errno| Failure::doing::<std::io::Error>("start process 1")(errno);
    // From here on, process 1 receives all signals by waiting for them.
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

/// Runs as process 1 until the program ends.
#[expect(
    clippy::exit,
    reason = "process 1 is a process of its own, and has no caller to return to"
)]
pub(super) fn run(program: Pid) -> ! {
    // In the host's process namespace it isn't process 1 and must become a subreaper to reap.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // The program's input and output must close with the program.
    sys::close_all();
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(program) {
                    std::process::exit(code);
                }
            }
            // SIGTTIN and SIGTTOU concern this process's own use of the terminal. Errors are
            // signals without a name.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) | Err(_) => {}
            // The program may have ended. SIGCHLD reports that.
            Ok(signal) => drop(kill(program, signal)),
        }
    }
}

/// Reaps all ended processes. Returns the status of the program if it is among them.
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
