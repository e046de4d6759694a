//! The system call filter: Docker's default profile.
//!
//! There are two filters, since a filter has one answer to what it doesn't allow. The first one
//! allows what the profile allows and answers EPERM to the rest. The second one, installed later
//! and so asked first, answers ENOSYS to `clone3`, whose flags a filter can't see, so that programs
//! fall back to `clone`; and to calls that are younger than the profile, as an older kernel would.
//!
//! Both are compiled once per process and handed over as bytes, eight per instruction.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use super::syscalls::{COMMON, LAST, NATIVE, YOUNG};
use crate::sys;

/// Address families that a socket can't have: `AF_ALG` and `AF_VSOCK`.
const REFUSED_FAMILIES: [u64; 2] = [38, 40];

/// Execution domains that a program may take: Linux as it is, with variations of `uname` and of
/// short inodes, and the question which one it has.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Returns the default filter: the two programs, one after the other, each behind its number of
/// instructions (four bytes).
pub(super) fn default_filter() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for program in [allow_list()?, refusals()] {
        bytes.extend(u32::try_from(program.len()).map_err(io::Error::other)?.to_ne_bytes());
        for instruction in program {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
    }
    Ok(bytes)
}

/// Reads the programs from the bytes that [`default_filter`] returned; what is malformed is cut
/// off.
pub(super) fn from_bytes(mut bytes: &[u8]) -> Vec<BpfProgram> {
    let mut programs = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = (u32::from_ne_bytes(*length) as usize).saturating_mul(8).min(rest.len());
        let (program, rest) = rest.split_at(length);
        programs.push(program.as_chunks::<8>().0.iter().copied().map(instruction).collect());
        bytes = rest;
    }
    programs
}

fn instruction([a, b, jt, jf, k @ ..]: [u8; 8]) -> sock_filter {
    let code = u16::from_ne_bytes([a, b]);
    sock_filter { code, jt, jf, k: u32::from_ne_bytes(k) }
}

/// Installs the filters for this thread and everything that it becomes.
pub(super) fn install(programs: &[BpfProgram]) -> io::Result<()> {
    if programs.len() != 2 {
        return Err(io::Error::other("the filter is incomplete"));
    }
    programs.iter().try_for_each(|program| sys::install_filter(program))
}

fn allow_list() -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in COMMON.iter().chain(YOUNG).chain(NATIVE) {
        rules.insert(*call, Vec::new());
    }
    let families = REFUSED_FAMILIES.map(|family| (SeccompCmpOp::Ne, family));
    rules.insert(libc::SYS_socket, vec![all_of(&families)?]);
    let personalities = PERSONALITIES
        .iter()
        .map(|personality| all_of(&[(SeccompCmpOp::Eq, *personality)]))
        .collect::<io::Result<_>>()?;
    rules.insert(libc::SYS_personality, personalities);
    let no_namespace = all_of(&[(SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS), 0)])?;
    rules.insert(libc::SYS_clone, vec![no_namespace]);
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)
}

/// Returns a rule about the first argument, which is looked at as 32 bits: the kernel takes no
/// more of it either.
fn all_of(conditions: &[(SeccompCmpOp, u64)]) -> io::Result<SeccompRule> {
    let conditions = conditions
        .iter()
        .map(|(op, value)| SeccompCondition::new(0, SeccompCmpArgLen::Dword, op.clone(), *value))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}

/// Loads the call's number; returns a value; jumps where equal; jumps where greater.
const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;

/// The bit of the calls of the x32 architecture; their numbers say nothing about their age.
const X32: u32 = 0x4000_0000;

fn refusals() -> BpfProgram {
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    vec![
        statement(LOAD, 0),
        jump(JUMP_EQUAL, libc::SYS_clone3 as u32, 3, 0),
        jump(JUMP_GREATER, X32 - 1, 1, 0),
        jump(JUMP_GREATER, LAST, 1, 0),
        statement(RETURN, RETURN_ALLOW),
        statement(RETURN, RETURN_ERRNO | libc::ENOSYS.cast_unsigned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_survives_the_way_to_the_sandbox() {
        let programs = from_bytes(&default_filter().unwrap());
        assert_eq!(programs, [allow_list().unwrap(), refusals()]);
        assert!(install(&programs[..1]).is_err());
    }

    #[test]
    fn no_call_is_allowed_that_needs_more_than_a_container_has() {
        let allowed: Vec<i64> = COMMON.iter().chain(YOUNG).chain(NATIVE).copied().collect();
        for call in [
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_init_module,
            libc::SYS_open_by_handle_at,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_clone3,
            libc::SYS_clone,
            libc::SYS_socket,
            libc::SYS_personality,
        ] {
            assert!(!allowed.contains(&call), "{call} is allowed");
        }
        assert!(allowed.contains(&libc::SYS_execve));
    }
}
