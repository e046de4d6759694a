//! The system call filter: Docker's default profile for any set of capabilities.
//!
//! A processor may run programs of several architectures, each with its own call numbers. The
//! filter checks a call's architecture first and then its number. On `x86_64` it knows the native
//! calls, those of x32 (native ones with a bit set) and those of i386; on aarch64 the native calls
//! and those of arm. A call of any other architecture kills the program.
//!
//! - Calls of the table ([`calls::CALLS`]) are allowed. So are those of the container's additional
//!   capabilities ([`more_calls::CALLS_OF_CAPABILITIES`]).
//! - `socket`, `clone` and `personality` depend on their first argument.
//! - `clone3` fails with ENOSYS, because a filter can't see its flags. Programs fall back to
//!   `clone`. Calls that are newer than the profile fail with ENOSYS too, as on an older kernel.
//! - All others fail with EPERM.
//!
//! A profile of the user ([`SeccompProfile`]) replaces these rules. It compiles to the same kind of
//! program.
//!
//! With `SYS_ADMIN`, `clone3` and all arguments of `clone` are allowed. Without `SYS_CHROOT`,
//! `chroot` isn't.
//!
//! The helper compiles the default filter once for all its children.

mod calls;
mod compile;
mod custom;
mod document;
mod more_calls;
mod other_calls;
mod profile;
#[cfg(any(test, fuzzing))]
#[expect(clippy::panic, reason = "tests and fuzz targets fail by it")]
mod simulate;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use self::calls::CALLS;
use self::compile::{ALLOW, Architecture, ERRNO, Verdict, compile};
pub use self::custom::SeccompProfile;
use self::custom::{Comparison, Condition};
use self::more_calls::CALLS_OF_CAPABILITIES;
pub(super) use self::profile::profile;
use super::capabilities::Capabilities;
use crate::sys::{self, FilterInstruction};

/// The address families that sockets must not have: `AF_ALG` and `AF_VSOCK`.
const REFUSED_FAMILIES: [u32; 2] = [38, 40];

/// The allowed execution domains: Linux, with variations of `uname` and of short inodes, and the
/// query of the current domain.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The flags of `clone` that create namespaces.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// The highest call number in the profile.
const LAST: u32 = 466;
/// The highest call number of x32, which has some calls of its own after a gap.
const LAST_X32: u32 = 547;
/// The bit that marks the call numbers of x32.
const X32: u32 = 0x4000_0000;

/// The numbers of calls that depend on their arguments, by column. The table leaves them out.
const SOCKET: [i32; 5] = [41, 41, 359, 198, 281];
const CLONE: [i32; 5] = [56, 56, 120, 220, 120];
const PERSONALITY: [i32; 5] = [135, 135, 136, 92, 136];
/// The number of `clone3`, which is the same on all architectures.
const CLONE3: u32 = 435;

/// Architectures by their numbers in the kernel's audit interface.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

/// A column of the table: the architecture of call numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    X86_64,
    X32,
    I386,
    Aarch64,
    Arm,
}

/// A filter in its compiled form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    program: Vec<FilterInstruction>,
    /// The flags of seccomp(2).
    options: libc::c_ulong,
}

/// The verdict of a filter that asks its listener.
const ASK: u32 = 0x7fc0_0000;

/// The kernel's limit on the number of instructions.
const MOST: usize = 4096;

/// Returns this machine's filter for programs with these capabilities.
pub(super) fn filter(capabilities: Capabilities) -> io::Result<Filter> {
    let program = compile(&architectures(std::env::consts::ARCH, capabilities)?);
    Ok(Filter { program, options: libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW })
}

/// Returns this machine's filter for a profile of the user.
pub(super) fn filter_of(profile: &SeccompProfile) -> io::Result<Filter> {
    let program = compile(&profile.compile(std::env::consts::ARCH)?);
    if program.len() > MOST {
        let length = program.len();
        return Err(io::Error::other(format!(
            "the profile becomes {length} instructions, and the kernel takes {MOST} at most"
        )));
    }
    let options = profile.options().unwrap_or(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    Ok(Filter { program, options })
}

/// Returns the calls that programs with these capabilities can make with any arguments.
fn allowed(capabilities: Capabilities) -> impl Iterator<Item = &'static (&'static str, [i32; 5])> {
    let more = CALLS_OF_CAPABILITIES
        .iter()
        .filter(move |(capability, _)| capabilities.contain(*capability))
        .flat_map(|(_, calls)| calls.iter());
    let changes_root = capabilities.contain(Capabilities::SYS_CHROOT);
    CALLS.iter().filter(move |(name, _)| changes_root || *name != "chroot").chain(more)
}

/// Installs a filter for this thread and its future children and programs.
pub(super) fn install(filter: &Filter) -> io::Result<()> {
    if filter.program.is_empty() {
        return Err(io::Error::other("the filter is empty"));
    }
    sys::install_filter(&filter.program, filter.options)
}

/// The commands of `fcntl` that name the process that receives a file's signals: by a number, and
/// by a structure in memory, which the supervisor can't check.
pub(super) const SIGNALS_OF_FILE: When = When::Among(1, &[8], &[15]);
/// The requests of `ioctl` that name it by a structure: `FIOSETOWN` and `SIOCSPGRP`.
pub(super) const SIGNALS_OF_SOCKET: When = When::Among(1, &[], &[0x8901, 0x8902]);

/// The calls with a number that a filter asks about. It allows all others.
///
/// The kernel takes only the lower half of most arguments, so values are compared with that half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// All of them.
    Always,
    /// Those whose argument of this index is one of the first values. Those whose argument is one of
    /// the second values fail with EPERM.
    Among(u32, &'static [u64], &'static [u64]),
    /// Those whose argument of this index isn't this value in its whole width.
    Unless(u32, u64),
    /// Those whose argument of this index doesn't have this bit.
    Without(u32, u64),
}

impl When {
    fn verdict(self) -> Verdict {
        let condition =
            |index, comparison, value, second| Condition { index, comparison, value, second };
        let word = |index, value| condition(index, Comparison::Masked, 0xffff_ffff, value);
        let unless =
            |condition| Verdict::Choose { rules: vec![(vec![condition], ALLOW)], otherwise: ASK };
        match self {
            Self::Always => Verdict::Return(ASK),
            Self::Among(index, asked, refused) => {
                let asked = asked.iter().map(|value| (value, ASK));
                let refusal = ERRNO | libc::EPERM.cast_unsigned();
                let all = asked.chain(refused.iter().map(|value| (value, refusal)));
                let rules = all.map(|(value, verdict)| (vec![word(index, *value)], verdict));
                Verdict::Choose { rules: rules.collect(), otherwise: ALLOW }
            }
            Self::Unless(index, value) => unless(condition(index, Comparison::Equal, value, 0)),
            Self::Without(index, bit) => unless(condition(index, Comparison::Masked, bit, bit)),
        }
    }
}

/// Returns a filter that asks the supervisor about these calls of the machine's own architecture and
/// allows all others. With `refuses_others`, the calls of other architectures fail with ENOSYS.
pub(super) fn notifying(
    calls: &[(libc::c_long, When)],
    refuses_others: bool,
) -> io::Result<Filter> {
    let calls =
        calls.iter().filter_map(|(call, when)| Some((u32::try_from(*call).ok()?, when.verdict())));
    filter_with(calls, refuses_others)
}

fn filter_with(
    calls: impl IntoIterator<Item = (u32, Verdict)>,
    refuses_others: bool,
) -> io::Result<Filter> {
    let missing = Verdict::Refuse(libc::ENOSYS.cast_unsigned());
    let others = if refuses_others { missing.clone() } else { Verdict::Allow };
    let known: BTreeMap<u32, Verdict> = calls.into_iter().collect();
    let mut verdicts = vec![(0, Verdict::Allow)];
    for (number, verdict) in known {
        verdicts.pop_if(|(same, _)| *same == number);
        verdicts.push((number, verdict));
        verdicts.push((number + 1, Verdict::Allow));
    }
    let (native, foreign) = match std::env::consts::ARCH {
        "x86_64" => {
            verdicts.push((X32, others.clone()));
            (X86_64, I386)
        }
        "aarch64" => (AARCH64, ARM),
        other => return Err(io::Error::other(format!("there is no supervisor for {other}"))),
    };
    let program = compile(&[
        Architecture { number: native, verdicts },
        Architecture { number: foreign, verdicts: vec![(0, others)] },
    ]);
    Ok(Filter { program, options: 0 })
}

/// Returns a filter that refuses all sockets except local ones.
pub(super) fn without_network() -> io::Result<Filter> {
    const LOCAL: u64 = libc::AF_UNIX as u64;
    let refused = ERRNO | libc::EAFNOSUPPORT.cast_unsigned();
    let local =
        Condition { index: 0, comparison: Comparison::Masked, value: 0xffff_ffff, second: LOCAL };
    let verdict = Verdict::Choose { rules: vec![(vec![local], ALLOW)], otherwise: refused };
    let socket = u32::try_from(libc::SYS_socket).map_err(io::Error::other)?;
    filter_with([(socket, verdict)], true)
}

/// Installs a filter of [`notifying`] and returns its listener.
pub(super) fn install_notifying(filter: &Filter) -> io::Result<OwnedFd> {
    sys::install_listener(&filter.program)
}

/// Returns the architectures that a machine runs, with their verdicts.
fn architectures(machine: &str, capabilities: Capabilities) -> io::Result<Vec<Architecture>> {
    let one = |number, column| Architecture { number, verdicts: verdicts(column, 0, capabilities) };
    match machine {
        "x86_64" => {
            let mut native = one(X86_64, Column::X86_64);
            native.verdicts.extend(verdicts(Column::X32, X32, capabilities));
            Ok(vec![native, one(I386, Column::I386)])
        }
        "aarch64" => Ok(vec![one(AARCH64, Column::Aarch64), one(ARM, Column::Arm)]),
        other => Err(io::Error::other(format!("there is no system call filter for {other}"))),
    }
}

/// Returns the verdicts in the order of call numbers. Each verdict is valid from its number on.
/// `bit` is set in all numbers.
fn verdicts(column: Column, bit: u32, capabilities: Capabilities) -> Vec<(u32, Verdict)> {
    let missing = Verdict::Refuse(libc::ENOSYS.cast_unsigned());
    let refused = Verdict::Refuse(libc::EPERM.cast_unsigned());
    let last = if column == Column::X32 { LAST_X32 } else { LAST };
    let number = |numbers: &[i32; 5]| u32::try_from(numbers[column as usize]).ok();
    let allowed = allowed(capabilities).filter_map(|(_, numbers)| number(numbers));
    let special = [
        (SOCKET, Verdict::UnlessFirst(REFUSED_FAMILIES.to_vec())),
        (PERSONALITY, Verdict::IfFirst(PERSONALITIES.to_vec())),
        (CLONE, Verdict::IfFirstWithout(NAMESPACE_FLAGS)),
    ];
    // Later entries replace earlier ones with the same number.
    let mut known: Vec<(u32, Verdict)> = (0..=last).map(|call| (call, refused.clone())).collect();
    known.push((CLONE3, missing.clone()));
    known.extend(allowed.map(|call| (call, Verdict::Allow)));
    let makes_namespaces = capabilities.contain(Capabilities::SYS_ADMIN);
    let special = special.into_iter().filter(|(numbers, _)| !makes_namespaces || *numbers != CLONE);
    known.extend(special.filter_map(|(numbers, it)| Some((number(&numbers)?, it))));
    if makes_namespaces {
        let clone = number(&CLONE).into_iter().chain([CLONE3]);
        known.extend(clone.map(|call| (call, Verdict::Allow)));
    }
    known.sort_by_key(|(call, _)| *call);
    let mut verdicts: Vec<(u32, Verdict)> = Vec::new();
    let mut next = 0;
    for (call, verdict) in known {
        if call > next {
            // The numbers in between have no calls.
            verdicts.push((next | bit, missing.clone()));
        }
        verdicts.pop_if(|(same, _)| *same == call | bit);
        verdicts.push((call | bit, verdict));
        next = call + 1;
    }
    verdicts.push((next | bit, missing));
    verdicts
}

/// Reads a profile of the user. Panics if its filter and its rules disagree.
#[cfg(fuzzing)]
pub fn check_seccomp_profile(text: &str) {
    simulate::check_profile(text);
}

#[cfg(test)]
mod tests;
