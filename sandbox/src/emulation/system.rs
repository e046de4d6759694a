//! Calls that name a process, and calls about the machine.

#![expect(clippy::unnecessary_wraps, reason = "all handlers of calls have one type")]

use rustix::io::Errno;

use super::processes;
use super::repeat::Repetition;
use super::{Emulation, Pending, Reply, Request};
use crate::uname::utsname;

type Done = Result<Reply, Errno>;

/// The number of the resource limit that carries the state: `RLIMIT_RTTIME`.
const CARRIER: u64 = 15;

/// Lets the kernel execute a call if its argument of this index is a process of the program. Zero is
/// the caller. Process 1 is the program itself, whose number the call is repeated with.
fn for_process(
    emulation: &mut Emulation,
    request: &Request<'_>,
    index: usize,
    otherwise: Errno,
) -> Done {
    let process = request.arguments[index] as u32;
    if process == 1 && emulation.first != 0 {
        return repeat_with(emulation, request, &[index]);
    }
    let is_ours = process == 0 || processes::is_ours(process);
    if is_ours { Ok(Reply::Continue) } else { Err(otherwise) }
}

/// Repeats a call with the number of the program in place of these arguments.
fn repeat_with(emulation: &mut Emulation, request: &Request<'_>, indexes: &[usize]) -> Done {
    let mut arguments = request.arguments;
    for index in indexes {
        arguments[*index] = emulation.first.into();
    }
    let repetition = Repetition { arguments, memory: Vec::new() };
    emulation.repeat(request, &repetition, Pending::Continue)
}

pub(super) fn of_first(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    for_process(emulation, request, 0, Errno::SRCH)
}

/// `ptrace`, whose first argument is the request.
pub(super) fn of_second(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    for_process(emulation, request, 1, Errno::SRCH)
}

/// `tgkill` and its like, whose second argument is a thread of the first.
pub(super) fn of_thread(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [process, thread, ..] = request.arguments;
    if process == 1 && thread == 1 && emulation.first != 0 {
        return repeat_with(emulation, request, &[0, 1]);
    }
    for_process(emulation, request, 0, Errno::SRCH)
}

/// `kill`, which may name a group or all processes.
pub(super) fn kill(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [target, signal, ..] = request.arguments;
    let target = target as i32;
    match target {
        0 => Ok(Reply::Continue),
        // The kernel would signal every process of the same user.
        -1 => signal_all(request, signal),
        1.. => for_process(emulation, request, 0, Errno::SRCH),
        group if processes::is_our_group(group.unsigned_abs()) => Ok(Reply::Continue),
        _ => Err(Errno::SRCH),
    }
}

/// Returns the process group of a process.
fn group_of(process: u32) -> Result<u32, Errno> {
    let process = rustix::process::Pid::from_raw(process.cast_signed());
    Ok(rustix::process::getpgid(process)?.as_raw_nonzero().get().cast_unsigned())
}

/// Returns a number of a process as the program sees it.
fn seen(emulation: &Emulation, process: u32) -> Done {
    let is_first = process == emulation.first;
    Ok(Reply::Value(if is_first { 1 } else { process.into() }))
}

pub(super) fn getpid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    if emulation.first == 0 {
        return Ok(Reply::Continue);
    }
    seen(emulation, processes::leader(request.caller.thread)?)
}

pub(super) fn gettid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    seen(emulation, request.caller.thread)
}

/// The program's own parent is outside of the container, and so its number is zero.
pub(super) fn getppid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let parent = processes::parent(request.caller.thread)?;
    match parent {
        // An orphan's parent is the supervisor, in place of the program.
        parent if parent == processes::supervisor() && emulation.first != 0 => {
            let is_program = processes::leader(request.caller.thread)? == emulation.first;
            Ok(Reply::Value(i64::from(!is_program)))
        }
        parent => seen(emulation, parent),
    }
}

pub(super) fn getpgid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let process = named(emulation, request);
    seen(emulation, group_of(process)?)
}

#[cfg(target_arch = "x86_64")]
pub(super) fn getpgrp(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    seen(emulation, group_of(request.caller.thread)?)
}

pub(super) fn getsid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let process = named(emulation, request);
    let process = rustix::process::Pid::from_raw(process.cast_signed());
    let session = rustix::process::getsid(process)?.as_raw_nonzero().get().cast_unsigned();
    seen(emulation, session)
}

/// Returns the process that the first argument names.
fn named(emulation: &Emulation, request: &Request<'_>) -> u32 {
    match request.arguments[0] as u32 {
        0 => request.caller.thread,
        1 if emulation.first != 0 => emulation.first,
        process => process,
    }
}

pub(super) fn setpgid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [process, group, ..] = request.arguments.map(|argument| argument == 1);
    match (process, group) {
        _ if emulation.first == 0 => Ok(Reply::Continue),
        (true, true) => repeat_with(emulation, request, &[0, 1]),
        (true, false) => repeat_with(emulation, request, &[0]),
        (false, true) => repeat_with(emulation, request, &[1]),
        (false, false) => Ok(Reply::Continue),
    }
}

/// `setpriority` and `ioprio_set`, whose first argument is the kind of the second.
pub(super) fn priority(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [kind, who, ..] = request.arguments;
    let is_process = |kind| matches!(kind, 0 | 1);
    match who {
        0 => Ok(Reply::Continue),
        _ if is_process(kind) => for_process(emulation, request, 1, Errno::SRCH),
        _ => Err(Errno::PERM),
    }
}

/// `fcntl` with a receiver of signals, which may be a process or, below zero, a group.
pub(super) fn fcntl(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let target = request.arguments[2] as i32;
    match target {
        0.. => for_process(emulation, request, 2, Errno::PERM),
        group if processes::is_our_group(group.unsigned_abs()) => Ok(Reply::Continue),
        _ => Err(Errno::PERM),
    }
}

pub(super) fn prlimit64(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [_, resource, _, old, ..] = request.arguments;
    if resource != CARRIER {
        return for_process(emulation, request, 0, Errno::SRCH);
    }
    if old == 0 {
        return Ok(Reply::Value(0));
    }
    emulation.write(request, old, &[0xff; 16])
}

pub(super) fn getrlimit(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [resource, at, ..] = request.arguments;
    if resource != CARRIER {
        return Ok(Reply::Continue);
    }
    emulation.write(request, at, &[0xff; 16])
}

pub(super) fn setrlimit(_: &mut Emulation, request: &Request<'_>) -> Done {
    Ok(if request.arguments[0] == CARRIER { Reply::Value(0) } else { Reply::Continue })
}

pub(super) fn uname(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let bytes = utsname(&emulation.hostname, emulation.domain.as_deref());
    emulation.write(request, request.arguments[0], &bytes)
}

/// A call that programs can do without. They use another one, as on an older kernel.
pub(super) fn missing(_: &mut Emulation, _: &Request<'_>) -> Done {
    Err(Errno::NOSYS)
}

pub(super) fn not_supported(_: &mut Emulation, _: &Request<'_>) -> Done {
    Err(Errno::OPNOTSUPP)
}

pub(super) fn not_permitted(_: &mut Emulation, _: &Request<'_>) -> Done {
    Err(Errno::PERM)
}

/// Sends a signal to all of the program's processes except the caller.
fn signal_all(request: &Request<'_>, signal: u64) -> Done {
    let caller = processes::leader(request.caller.thread)?;
    let mut is_sent = false;
    for process in processes::ours().filter(|process| *process != caller) {
        let process = nix::unistd::Pid::from_raw(process.cast_signed());
        let signal = nix::sys::signal::Signal::try_from(signal as i32).ok();
        is_sent |= nix::sys::signal::kill(process, signal).is_ok();
    }
    if is_sent { Ok(Reply::Value(0)) } else { Err(Errno::SRCH) }
}
