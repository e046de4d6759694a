//! The system call filter: Docker's default profile, for a container with the default capabilities
//! or with others.
//!
//! A processor runs programs of several architectures, each with its own numbers of calls: the
//! filter looks at a call's architecture first, and knows the numbers of each. On `x86_64` that are
//! the native ones, x32's (which count as native, with a bit set) and i386's, on aarch64 the native
//! ones and arm's. A call of any other architecture ends the program.
//!
//! - Calls of the table ([`calls::CALLS`]) are allowed, and those of the capabilities that the
//!   container has beyond the default ones ([`more_calls::CALLS_OF_CAPABILITIES`]).
//! - `socket`, `clone` and `personality` depend on their first argument.
//! - `clone3`, whose flags a filter can't see, doesn't exist, so that programs fall back to `clone`;
//!   calls that are younger than the profile don't exist either, as on an older kernel.
//! - All others are refused with EPERM.
//!
//! A profile of the user's own ([`SeccompProfile`]) takes the place of all that; it is compiled to the same kind of program.
//!
//! With `SYS_ADMIN`, `clone3` and all arguments of `clone` are allowed; without `SYS_CHROOT`, `chroot` isn't.
//!
//! The helper compiles the default filter once, and its children have it from there.

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

use std::io;

use self::calls::CALLS;
use self::compile::{Architecture, Verdict, compile};
pub use self::custom::SeccompProfile;
use self::more_calls::CALLS_OF_CAPABILITIES;
pub(super) use self::profile::profile;
use super::capabilities::Capabilities;
use crate::sys::{self, FilterInstruction};

/// Address families that a socket can't have: `AF_ALG` and `AF_VSOCK`.
const REFUSED_FAMILIES: [u32; 2] = [38, 40];

/// Execution domains that a program may take: Linux as it is, with variations of `uname` and of
/// short inodes, and the question which one it has.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// The last call that the profile knows.
const LAST: u32 = 466;
/// The last call of x32, which has some of its own behind a gap.
const LAST_X32: u32 = 547;
/// The bit that the numbers of x32 have set.
const X32: u32 = 0x4000_0000;

/// Calls that the table leaves out, because their arguments matter, in the table's architectures.
const SOCKET: [i32; 5] = [41, 41, 359, 198, 281];
const CLONE: [i32; 5] = [56, 56, 120, 220, 120];
const PERSONALITY: [i32; 5] = [135, 135, 136, 92, 136];
/// Calls whose number is the same everywhere.
const CLONE3: u32 = 435;

/// Architectures, as the kernel's audit numbers them.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

/// The table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    X86_64,
    X32,
    I386,
    Aarch64,
    Arm,
}

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    program: Vec<FilterInstruction>,
    /// The kernel's options.
    options: libc::c_ulong,
}

/// The most instructions that the kernel takes.
const MOST: usize = 4096;

/// Returns the filter of programs with these capabilities, for this machine.
pub(super) fn filter(capabilities: Capabilities) -> io::Result<Filter> {
    let program = compile(&architectures(std::env::consts::ARCH, capabilities)?);
    Ok(Filter { program, options: libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW })
}

/// Returns the filter of a profile of the user's own.
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

/// Returns the calls that a program with these capabilities can make, whatever their arguments.
fn allowed(capabilities: Capabilities) -> impl Iterator<Item = &'static (&'static str, [i32; 5])> {
    let more = CALLS_OF_CAPABILITIES
        .iter()
        .filter(move |(capability, _)| capabilities.contain(*capability))
        .flat_map(|(_, calls)| calls.iter());
    let changes_root = capabilities.contain(Capabilities::SYS_CHROOT);
    CALLS.iter().filter(move |(name, _)| changes_root || *name != "chroot").chain(more)
}

/// Installs a filter for this thread and everything that it becomes.
pub(super) fn install(filter: &Filter) -> io::Result<()> {
    if filter.program.is_empty() {
        return Err(io::Error::other("the filter is empty"));
    }
    sys::install_filter(&filter.program, filter.options)
}

/// Returns what a kind of machine runs.
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

/// Returns what becomes of calls, in the order of their numbers: each verdict holds from its number
/// on. `bit` is added to all.
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
    // What comes later counts more.
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
            // Nothing is known in between.
            verdicts.push((next | bit, missing.clone()));
        }
        verdicts.pop_if(|(same, _)| *same == call | bit);
        verdicts.push((call | bit, verdict));
        next = call + 1;
    }
    verdicts.push((next | bit, missing));
    verdicts
}

/// Reads a profile of the user's own, and panics where its filter doesn't say what the rules say.
#[cfg(fuzzing)]
pub fn check_seccomp_profile(text: &str) {
    simulate::check_profile(text);
}

#[cfg(test)]
mod tests;
