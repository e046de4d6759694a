//! Processes left behind by programs that share the host's process namespace.
//!
//! Such a program is no process 1, and the kernel ends nothing along with it. The helper adopts what it has
//! started: a process whose parent has ended becomes the helper's child. When the program ends, all of the
//! helper's children that are no programs are killed, whose own children become the helper's in turn, until there
//! is none.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill as send};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid};

/// Has this process adopt what its descendants leave behind.
pub(super) fn adopt() -> std::io::Result<()> {
    Ok(set_child_subreaper(true)?)
}

/// Kills all children but `programs`, and what they leave behind.
pub(super) fn kill(programs: &[i32]) {
    loop {
        let orphans: Vec<i32> =
            children().into_iter().filter(|pid| !programs.contains(pid)).collect();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans.into_iter().map(Pid::from_raw) {
            // It may have ended by itself.
            let _ = send(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Reaps children that have ended, but `programs`.
pub(super) fn reap(programs: &[i32]) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) = waitid(Id::All, look)
    {
        if programs.contains(&pid.as_raw()) {
            return;
        }
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}

/// Returns the number of a process; `None` where it has been reaped.
pub(super) fn number(process: &OwnedFd) -> Option<i32> {
    let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|number| *number > 0)
}

/// Returns the children of this process.
fn children() -> Vec<i32> {
    let own = getpid().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| parent(*pid) == Some(own)).collect()
}

/// Returns the parent of a process.
fn parent(pid: i32) -> Option<i32> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name of the program may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
