//! Calls that name a process, and calls about the machine.

use rustix::io::Errno;

use super::processes;
use super::{Emulation, Reply, Request};

type Done = Result<Reply, Errno>;

/// The length of each field of `struct utsname`.
const FIELD: usize = 65;

/// The number of the resource limit that carries the state: `RLIMIT_RTTIME`.
const CARRIER: u64 = 15;

/// Lets the kernel execute a call whose first argument is a process of the program.
fn for_process(process: u64, otherwise: Errno) -> Done {
    let process = process as u32;
    let is_ours = process == 0 || processes::is_ours(process);
    if is_ours { Ok(Reply::Continue) } else { Err(otherwise) }
}

pub(super) fn of_first(_: &mut Emulation, request: &Request<'_>) -> Done {
    for_process(request.arguments[0], Errno::SRCH)
}

/// `ptrace`, whose first argument is the request.
pub(super) fn of_second(_: &mut Emulation, request: &Request<'_>) -> Done {
    for_process(request.arguments[1], Errno::SRCH)
}

/// `kill`, which may name a group or all processes.
pub(super) fn kill(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [target, signal, ..] = request.arguments;
    let target = target as i32;
    match target {
        0 => Ok(Reply::Continue),
        // The kernel would signal every process of the same user.
        -1 => emulation.signal_all(request, signal),
        1.. => for_process(u64::from(target.cast_unsigned()), Errno::SRCH),
        _ => {
            let group = target.unsigned_abs();
            let own = rustix::process::Pid::from_raw(request.caller.thread.cast_signed());
            let own = rustix::process::getpgid(own)?.as_raw_nonzero().get().cast_unsigned();
            let is_ours = own == group || processes::is_ours(group);
            if is_ours { Ok(Reply::Continue) } else { Err(Errno::SRCH) }
        }
    }
}

/// `setpriority` and `ioprio_set`, whose first argument is the kind of the second.
pub(super) fn priority(_: &mut Emulation, request: &Request<'_>) -> Done {
    let [kind, who, ..] = request.arguments;
    let is_process = |kind| matches!(kind, 0 | 1);
    match who {
        0 => Ok(Reply::Continue),
        _ if is_process(kind) => for_process(who, Errno::SRCH),
        _ => Err(Errno::PERM),
    }
}

/// `fcntl` with a receiver of signals, which may be a process or, below zero, a group.
pub(super) fn fcntl(_: &mut Emulation, request: &Request<'_>) -> Done {
    let target = request.arguments[2] as i32;
    for_process(target.unsigned_abs().into(), Errno::PERM)
}

pub(super) fn prlimit64(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [process, resource, _, old, ..] = request.arguments;
    for_process(process, Errno::SRCH)?;
    if resource != CARRIER {
        return Ok(Reply::Continue);
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
    let system = rustix::system::uname();
    let domain = emulation.domain.as_deref();
    let fields: [&[u8]; 6] = [
        system.sysname().to_bytes(),
        emulation.hostname.as_bytes(),
        system.release().to_bytes(),
        system.version().to_bytes(),
        system.machine().to_bytes(),
        domain.map_or(system.domainname().to_bytes(), str::as_bytes),
    ];
    let mut bytes = [0; FIELD * 6];
    for (place, field) in bytes.chunks_exact_mut(FIELD).zip(fields) {
        let length = field.len().min(FIELD - 1);
        place[..length].copy_from_slice(&field[..length]);
    }
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

impl Emulation {
    /// Sends a signal to all of the program's processes except the caller.
    fn signal_all(&self, request: &Request<'_>, signal: u64) -> Done {
        let caller = processes::leader(request.caller.thread)?;
        let others = processes::all().into_iter().filter(|process| *process != caller);
        let mut is_sent = false;
        for process in others.filter(|process| processes::is_ours(*process)) {
            let process = nix::unistd::Pid::from_raw(process.cast_signed());
            let signal = nix::sys::signal::Signal::try_from(signal as i32).ok();
            is_sent |= nix::sys::signal::kill(process, signal).is_ok();
        }
        if is_sent { Ok(Reply::Value(0)) } else { Err(Errno::SRCH) }
    }
}
