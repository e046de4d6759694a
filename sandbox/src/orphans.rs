//! The remaining processes of programs in the host's process namespace.
//!
//! Such a program isn't process 1, so the kernel doesn't kill its processes with it. The helper is
//! a subreaper: a process whose parent has ended becomes the helper's child. When the program ends,
//! the helper kills all of its children except programs. Their own children then become the
//! helper's, and it repeats until no child is left.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill as send};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid};

/// Makes this process the subreaper of its descendants.
pub(super) fn adopt() -> std::io::Result<()> {
    Ok(set_child_subreaper(true)?)
}

/// Kills all children except `programs`, and their descendants.
pub(super) fn kill(programs: &[i32]) {
    loop {
        let orphans: Vec<i32> =
            children().into_iter().filter(|pid| !programs.contains(pid)).collect();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans.into_iter().map(Pid::from_raw) {
            // The process may have ended by itself.
            let _ = send(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Reaps ended children except `programs`.
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

/// Returns the PID of a process. Returns `None` if it has been reaped.
pub(super) fn number(process: &OwnedFd) -> Option<i32> {
    let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|number| *number > 0)
}

/// Returns the PIDs of this process's children.
fn children() -> Vec<i32> {
    listed().unwrap_or_else(searched)
}

/// Returns the PIDs of the children from the kernel's list. Returns `None` if the kernel has none, or
/// if the process has several threads.
///
/// The kernel may leave out a child while another one ends. Two lists in a row are then different.
fn listed() -> Option<Vec<i32>> {
    if std::fs::read_dir("/proc/self/task").ok()?.count() != 1 {
        return None;
    }
    let list = || std::fs::read_to_string("/proc/thread-self/children").ok();
    let mut last = list()?;
    for _ in 0..10 {
        let now = list()?;
        if now == last {
            return now.split_ascii_whitespace().map(|pid| pid.parse().ok()).collect();
        }
        last = now;
    }
    None
}

/// Returns the PIDs of the children among all processes.
fn searched() -> Vec<i32> {
    let own = getpid().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| parent(*pid) == Some(own)).collect()
}

/// Returns the PID of a process's parent.
fn parent(pid: i32) -> Option<i32> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The program's name may contain any characters.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_among_all_processes() {
        let mut child = std::process::Command::new("sleep").arg("20").spawn().unwrap();
        let number = child.id().cast_signed();
        assert!(searched().contains(&number) && children().contains(&number));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().contains(&number));
    }
}
