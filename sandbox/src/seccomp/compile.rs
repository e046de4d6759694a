//! The compiler from verdicts to a BPF program: a binary search over call numbers.

use super::custom::{Comparison, Condition};
use crate::sys::FilterInstruction;

/// The filter's decision about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The call is allowed.
    Allow,
    /// The call fails with this errno.
    Refuse(u32),
    /// The call is allowed if its first argument is one of these, and fails with EPERM otherwise.
    IfFirst(Vec<u32>),
    /// The call is allowed unless its first argument is one of these, and fails with EPERM
    /// otherwise.
    UnlessFirst(Vec<u32>),
    /// The call is allowed if its first argument has none of these bits, and fails with EPERM
    /// otherwise.
    IfFirstWithout(u32),
    /// The filter returns this value.
    Return(u32),
    /// The filter returns the value of the first rule whose conditions are all met.
    Choose {
        /// The conditions of each rule, and its return value.
        rules: Vec<(Vec<Condition>, u32)>,
        /// The return value if no rule matches.
        otherwise: u32,
    },
}

/// The calls of an architecture.
#[derive(Clone, Debug)]
pub(super) struct Architecture {
    /// The architecture's number in the kernel's audit interface.
    pub(super) number: u32,
    /// The verdicts in the order of call numbers. Each is valid from its number on. The first
    /// number is 0.
    pub(super) verdicts: Vec<(u32, Verdict)>,
}

/// Loads a word of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
pub(super) const JUMP_MORE: u16 = 0x25;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const KILL: u32 = 0x8000_0000;

/// The offsets in `struct seccomp_data`: call, architecture, arguments, and the half of the first
/// argument that the built-in profile checks.
pub(super) const CALL: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;
pub(super) const FIRST: u32 = ARGUMENTS + LOWER_HALF;
/// The offsets of the halves of an argument.
#[cfg(target_endian = "little")]
pub(super) const LOWER_HALF: u32 = 0;
#[cfg(target_endian = "big")]
pub(super) const LOWER_HALF: u32 = 4;
pub(super) const UPPER_HALF: u32 = 4 - LOWER_HALF;

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

/// Merges neighbouring ranges with the same verdict.
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
        Verdict::Return(value) => vec![plain(RETURN, *value)],
        Verdict::Choose { rules, otherwise } => {
            let mut part: Vec<_> =
                rules.iter().flat_map(|(all, value)| when(all, *value)).collect();
            part.push(plain(RETURN, *otherwise));
            part
        }
    }
}

/// Returns `value` if all conditions are met, and continues after itself otherwise.
fn when(conditions: &[Condition], value: u32) -> Vec<FilterInstruction> {
    let mut part = vec![plain(RETURN, value)];
    for condition in conditions.iter().rev() {
        // There are six arguments, and a condition on each takes at most seven instructions.
        let past = u8::try_from(part.len()).unwrap_or(u8::MAX);
        let mut check = check(condition, past);
        check.append(&mut part);
        part = check;
    }
    part
}

/// Continues if a condition is met, and otherwise jumps over `past` instructions after itself.
fn check(condition: &Condition, past: u8) -> Vec<FilterInstruction> {
    let half = |value: u64, bits: u32| (value >> bits) as u32;
    let place = ARGUMENTS + 8 * condition.index;
    let (load_upper, load_lower) =
        (plain(LOAD, place + UPPER_HALF), plain(LOAD, place + LOWER_HALF));
    let (upper, lower) = (half(condition.value, 32), half(condition.value, 0));
    let more = |code| {
        let above = jump(JUMP_MORE, upper, 3, 0);
        vec![
            load_upper,
            above,
            jump(JUMP_EQUAL, upper, 0, 2 + past),
            load_lower,
            jump(code, lower, 0, past),
        ]
    };
    let less = |code| {
        let above = jump(JUMP_MORE, upper, 3 + past, 0);
        vec![
            load_upper,
            above,
            jump(JUMP_EQUAL, upper, 0, 2),
            load_lower,
            jump(code, lower, past, 0),
        ]
    };
    match condition.comparison {
        Comparison::Equal => vec![
            load_upper,
            jump(JUMP_EQUAL, upper, 0, 2 + past),
            load_lower,
            jump(JUMP_EQUAL, lower, 0, past),
        ],
        Comparison::Different => vec![
            load_upper,
            jump(JUMP_EQUAL, upper, 0, 2),
            load_lower,
            jump(JUMP_EQUAL, lower, past, 0),
        ],
        Comparison::AtLeast => more(JUMP_AT_LEAST),
        Comparison::More => more(JUMP_MORE),
        Comparison::Less => less(JUMP_AT_LEAST),
        Comparison::AtMost => less(JUMP_MORE),
        Comparison::Masked => vec![
            load_upper,
            plain(AND, upper),
            jump(JUMP_EQUAL, half(condition.second, 32), 0, 3 + past),
            load_lower,
            plain(AND, lower),
            jump(JUMP_EQUAL, half(condition.second, 0), 0, past),
        ],
    }
}

/// Returns the length of a part as a jump distance. All filters have at most a few thousand
/// instructions.
fn distance(part: &[FilterInstruction]) -> u32 {
    u32::try_from(part.len()).unwrap_or(u32::MAX)
}
