//! From verdicts to a program of the kernel's: a binary search over the numbers of calls.

use crate::sys::FilterInstruction;

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this error.
    Refuse(u32),
    /// It is made where its first argument is one of these, else refused with EPERM.
    IfFirst(Vec<u32>),
    /// It is made where its first argument is none of these, else refused with EPERM.
    UnlessFirst(Vec<u32>),
    /// It is made where its first argument has none of these bits, else refused with EPERM.
    IfFirstWithout(u32),
}

/// The calls of an architecture.
#[derive(Clone, Debug)]
pub(super) struct Architecture {
    /// Its number, as the kernel's audit has it.
    pub(super) number: u32,
    /// What becomes of calls, in the order of their numbers: each holds from its number on. The first
    /// one is of number 0.
    pub(super) verdicts: Vec<(u32, Verdict)>,
}

/// Loads a word of what the kernel says of a call.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_AT_LEAST: u16 = 0x35;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const KILL: u32 = 0x8000_0000;

/// Where the kernel says what: the call, the architecture, and of the first argument the half that
/// the calls of this profile look at.
pub(super) const CALL: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
#[cfg(target_endian = "little")]
pub(super) const FIRST: u32 = 16;
#[cfg(target_endian = "big")]
pub(super) const FIRST: u32 = 20;

fn plain(code: u16, k: u32) -> FilterInstruction {
    FilterInstruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> FilterInstruction {
    FilterInstruction { code, jt, jf, k }
}

/// Compiles the filter of a machine.
pub(super) fn compile(architectures: &[Architecture]) -> Vec<FilterInstruction> {
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    for architecture in architectures {
        let mut part = vec![plain(LOAD, CALL)];
        let ranges = merge(&architecture.verdicts);
        part.extend(search(&ranges));
        program.push(jump(JUMP_EQUAL, architecture.number, 1, 0));
        program.push(plain(JUMP, distance(&part)));
        program.extend(part);
    }
    program.push(plain(RETURN, KILL));
    program
}

/// Leaves out what is the same as before.
fn merge(verdicts: &[(u32, Verdict)]) -> Vec<(u32, &Verdict)> {
    let mut ranges: Vec<(u32, &Verdict)> = Vec::new();
    for (call, verdict) in verdicts {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((*call, verdict));
        }
    }
    ranges
}

fn search(ranges: &[(u32, &Verdict)]) -> Vec<FilterInstruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let [(start, verdict), ..] = upper else { return vec![plain(RETURN, KILL)] };
    if lower.is_empty() {
        return leaf(verdict);
    }
    let lower = search(lower);
    let mut part = match u8::try_from(lower.len()) {
        Ok(length) => vec![jump(JUMP_AT_LEAST, *start, length, 0)],
        Err(_) => vec![jump(JUMP_AT_LEAST, *start, 0, 1), plain(JUMP, distance(&lower))],
    };
    part.extend(lower);
    part.extend(search(upper));
    part
}

fn leaf(verdict: &Verdict) -> Vec<FilterInstruction> {
    const REFUSE: u32 = ERRNO | libc::EPERM.cast_unsigned();
    let first = |values: &[u32], found, otherwise| {
        let mut part = vec![plain(LOAD, FIRST)];
        for value in values {
            part.push(jump(JUMP_EQUAL, *value, 0, 1));
            part.push(plain(RETURN, found));
        }
        part.push(plain(RETURN, otherwise));
        part
    };
    match verdict {
        Verdict::Allow => vec![plain(RETURN, ALLOW)],
        Verdict::Refuse(error) => vec![plain(RETURN, ERRNO | error)],
        Verdict::IfFirst(values) => first(values, ALLOW, REFUSE),
        Verdict::UnlessFirst(values) => first(values, REFUSE, ALLOW),
        Verdict::IfFirstWithout(bits) => {
            let mut part = first(&[0], ALLOW, REFUSE);
            part.insert(1, plain(AND, *bits));
            part
        }
    }
}

/// Returns how far it is past a part; no filter is longer than a few thousand instructions.
fn distance(part: &[FilterInstruction]) -> u32 {
    u32::try_from(part.len()).unwrap_or(u32::MAX)
}
