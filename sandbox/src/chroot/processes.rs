//! The step's own processes, and the calls that name a process.
//!
//! The program sees the numbers of the host's processes. As root it could signal, trace or reprioritise
//! all of them, kiln among them. The supervisor lets the kernel execute such a call only for a process
//! that descends from the supervisor. It is the subreaper of the step's processes, so all of them do,
//! and no others.
//!
//! # Process 1
//!
//! On other rungs the program is process 1 of a namespace. Here it seems to be: its own number is 1 if
//! it asks, and so is that of its children's parent. Like process 1, it gets signals of its processes
//! only if it has handlers for them. A program with several threads gets its real number, because
//! the C library compares it with the senders of its internal signals. So does a program with a
//! terminal, because shells make themselves the terminal's process group by their number.
//!
//! # Numbers
//!
//! A process may end between this check and the call, and its number may go to another process. The
//! kernel assigns all other numbers first.

use std::collections::HashMap;
use std::io;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use rustix::io::Errno;

use crate::descendants::{self, Stat};
use crate::sys::Answer;
use crate::tracee::{Identity, text_of};

/// The signal number that `kill` and its relatives accept at most.
const LAST_SIGNAL: i32 = 64;

/// A thread that makes a call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) thread: u32,
    /// The process that the thread belongs to.
    pub(super) process: u32,
    pub(super) identity: Identity,
    pub(super) umask: u32,
    /// The signals that the process has handlers for, as a bit mask.
    caught: u64,
}

impl Caller {
    pub(super) fn of(thread: u32) -> io::Result<Self> {
        let status = text_of(thread, "status")?;
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let process = value("Tgid:").and_then(|text| text.trim().parse().ok());
        let umask = value("Umask:").and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
        Ok(Self {
            thread,
            process: process.unwrap_or(thread),
            identity: Identity::parse(&status)?,
            umask: umask.unwrap_or(0o022),
            caught: value("SigCgt:")
                .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
                .unwrap_or(0),
        })
    }

    /// Runs `work` with the caller's rights to files.
    pub(super) fn with_its_rights<T>(
        &self,
        work: impl FnOnce() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        if self.identity == (Identity { uid: 0, gid: 0 }) {
            return work();
        }
        let result = self.identity.while_assumed(|| Ok(work()?));
        result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// The processes that descend from the supervisor.
#[derive(Debug)]
pub(super) struct Processes {
    supervisor: i32,
    /// The first process, which is process 1 on other rungs.
    pub(super) first: i32,
    /// `true` if the first process seems to be process 1.
    pub(super) is_numbered: bool,
    /// The identities of threads, as far as they were needed.
    identities: HashMap<u32, Identity>,
}

impl Processes {
    /// Creates the view of this process's descendants.
    pub(super) fn new(supervisor: i32) -> Self {
        Self { supervisor, first: 0, is_numbered: false, identities: HashMap::new() }
    }

    /// Runs `work`, and repeats it with the rights of a thread if it lacks permission. The kernel
    /// shows the files of a process to its own user only.
    pub(super) fn with_rights_of<T>(
        &mut self,
        thread: u32,
        work: impl Fn() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let lacks =
            |result: &rustix::io::Result<T>| matches!(result, Err(Errno::ACCESS | Errno::PERM));
        let result = work();
        if !lacks(&result) {
            return result;
        }
        let assume = |identity: &Identity| {
            let result = identity.while_assumed(|| Ok(work()?));
            result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        if let Some(identity) = self.identities.get(&thread) {
            let result = assume(identity);
            if !lacks(&result) {
                return result;
            }
        }
        let identity = Identity::of(thread).map_err(|_| Errno::ACCESS)?;
        if self.identities.len() > 1024 {
            self.identities.clear();
        }
        assume(self.identities.entry(thread).insert_entry(identity).get())
    }

    /// Returns `true` if a process or thread belongs to the step.
    pub(super) fn has(&self, number: i32) -> bool {
        descendants::has(self.supervisor, number)
    }

    /// Returns the step's processes, with their process groups.
    pub(super) fn all(&self) -> Vec<(i32, i32)> {
        descendants::all(self.supervisor)
    }

    /// Answers a call that names a process, a process group or a user. Returns `None` if the call
    /// is another one.
    pub(super) fn answer(&self, thread: u32, call: i64, arguments: &[u64; 6]) -> Option<Answer> {
        let number = |index: usize| arguments[index] as u32 as i32;
        let missing = Answer::Error(libc::ESRCH);
        let one = |target: i32| if self.has(target) { Answer::Continue } else { missing };
        let or_own = |target: i32| if target == 0 { Answer::Continue } else { one(target) };
        let group = |group: i32| match group {
            0 => Answer::Continue,
            group if descendants::has_group(self.supervisor, group) => Answer::Continue,
            _ => missing,
        };
        Some(match call {
            libc::SYS_getpid => self.own_number(thread),
            libc::SYS_gettid if thread.cast_signed() == self.first => self.own_number(thread),
            libc::SYS_gettid => Answer::Continue,
            libc::SYS_getppid => self.number_of_parent(thread),
            libc::SYS_kill | libc::SYS_tkill if self.is_first(number(0)) => {
                self.signal_first(thread, number(1))
            }
            libc::SYS_tgkill if self.is_first(number(0)) && self.is_first(number(1)) => {
                self.signal_first(thread, number(2))
            }
            libc::SYS_kill => match number(0) {
                -1 => self.signal_all(thread, number(1)),
                target @ 1.. => one(target),
                target => group(target.wrapping_neg()),
            },
            libc::SYS_tkill
            | libc::SYS_tgkill
            | libc::SYS_rt_sigqueueinfo
            | libc::SYS_rt_tgsigqueueinfo
            | libc::SYS_pidfd_open
            | libc::SYS_process_vm_readv
            | libc::SYS_process_vm_writev
            | libc::SYS_kcmp => one(number(0)),
            libc::SYS_ptrace => match number(0) {
                // PTRACE_TRACEME
                0 => Answer::Continue,
                _ => one(number(1)),
            },
            libc::SYS_prlimit64
            | libc::SYS_sched_setaffinity
            | libc::SYS_sched_setscheduler
            | libc::SYS_sched_setparam
            | libc::SYS_sched_setattr
            | libc::SYS_move_pages
            | libc::SYS_migrate_pages => or_own(number(0)),
            // The kinds are process, process group and user; those of `ioprio_set` begin with 1.
            libc::SYS_setpriority | libc::SYS_ioprio_set => {
                match number(0) - i32::from(call == libc::SYS_ioprio_set) {
                    0 => or_own(number(1)),
                    1 => group(number(1)),
                    2 => Answer::Error(libc::EPERM),
                    _ => Answer::Continue,
                }
            }
            libc::SYS_fcntl => match number(2) {
                0 => Answer::Continue,
                target @ 1.. => one(target),
                target => group(target.wrapping_neg()),
            },
            _ => return None,
        })
    }

    /// Returns the number that a process sees as its own.
    fn own_number(&self, thread: u32) -> Answer {
        // A process with another thread than its first one has several.
        let is_first = self.is_numbered
            && thread.cast_signed() == self.first
            && Stat::of(self.first).is_some_and(|stat| stat.threads == 1);
        if is_first { Answer::Value(1) } else { Answer::Continue }
    }

    /// Returns the number that a process sees as its parent's. The program's parent is outside of
    /// the container, and an orphan's is process 1.
    fn number_of_parent(&self, thread: u32) -> Answer {
        match Stat::of(thread.cast_signed()) {
            _ if !self.is_numbered => Answer::Continue,
            _ if thread.cast_signed() == self.first => Answer::Value(0),
            Some(stat) if stat.parent == self.first || stat.parent == self.supervisor => {
                Answer::Value(1)
            }
            _ => Answer::Continue,
        }
    }

    /// Returns `true` if a number is one of the first process.
    fn is_first(&self, number: i32) -> bool {
        self.is_numbered && (number == 1 || number == self.first)
    }

    /// Sends a signal to the first process if that has a handler for it.
    fn signal_first(&self, thread: u32, signal: i32) -> Answer {
        let (Ok(caller), Ok(first)) = (Caller::of(thread), Caller::of(self.first.cast_unsigned()))
        else {
            return missing_process();
        };
        if !(0..=LAST_SIGNAL).contains(&signal) {
            return Answer::Error(libc::EINVAL);
        }
        let own = caller.identity.uid;
        if own != 0 && own != first.identity.uid {
            return Answer::Error(libc::EPERM);
        }
        let is_caught = signal > 0 && first.caught & (1 << (signal - 1)) != 0;
        if is_caught {
            send(self.first, signal);
        }
        Answer::Value(0)
    }

    /// Sends a signal to all processes of the step except the caller's own and the first one, which
    /// is process 1 on other rungs.
    fn signal_all(&self, thread: u32, signal: i32) -> Answer {
        let (Ok(caller), 0..=LAST_SIGNAL) = (Caller::of(thread), signal) else {
            return Answer::Error(libc::EINVAL);
        };
        let own = caller.process.cast_signed();
        let mut sent = false;
        for (target, _) in self.all() {
            let may = caller.identity.uid == 0
                || Identity::of(target.cast_unsigned())
                    .is_ok_and(|identity| identity.uid == caller.identity.uid);
            if target != own && target != self.first && may {
                sent |= send(target, signal);
            }
        }
        if sent { Answer::Value(0) } else { missing_process() }
    }
}

fn missing_process() -> Answer {
    Answer::Error(libc::ESRCH)
}

/// Sends a signal of any number, or none for 0.
fn send(target: i32, signal: i32) -> bool {
    use nix::sys::signal::Signal;
    match (signal, Signal::try_from(signal)) {
        (0, _) => kill(Pid::from_raw(target), None).is_ok(),
        (_, Ok(signal)) => kill(Pid::from_raw(target), signal).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn descendants_belong_to_the_step_and_others_do_not() {
        let own = std::process::id().cast_signed();
        let mut child = Command::new("sh")
            .args(["-c", "sleep 20 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        let processes = Processes::new(own);
        let number = child.id().cast_signed();
        assert!(processes.has(number) && processes.has(grandchild));
        assert!(!processes.has(own) && !processes.has(1) && !processes.has(0));
        let all: Vec<i32> = processes.all().into_iter().map(|(number, _)| number).collect();
        assert!(all.contains(&number) && all.contains(&grandchild) && !all.contains(&own));
        let answer = |target: i32| {
            let arguments = [u64::from(target.cast_unsigned()), 0, 0, 0, 0, 0];
            processes.answer(own.cast_unsigned(), libc::SYS_kill, &arguments)
        };
        assert_eq!(answer(grandchild), Some(Answer::Continue));
        assert_eq!(answer(own), Some(Answer::Error(libc::ESRCH)));
        assert_eq!(answer(-1_000_000), Some(Answer::Error(libc::ESRCH)));
        kill(Pid::from_raw(grandchild), nix::sys::signal::Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!processes.has(grandchild));
    }
}
