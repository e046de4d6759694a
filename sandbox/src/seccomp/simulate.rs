//! A simulation of the kernel's filters for tests and fuzz targets.

use std::collections::BTreeSet;

use super::compile::{
    AND, ARCHITECTURE, ARGUMENTS, CALL, JUMP, JUMP_AT_LEAST, JUMP_EQUAL, JUMP_MORE, LOAD,
    LOWER_HALF, RETURN, UPPER_HALF,
};
use super::custom::{Comparison, Condition};
use super::*;

/// Returns the filter's verdict on a call with one argument.
pub(super) fn verdict(
    program: &[FilterInstruction],
    architecture: u32,
    call: u32,
    first: u32,
) -> u32 {
    decide(program, architecture, call, &[first.into(), 0])
}

/// Returns the filter's verdict on a call with any arguments.
pub(super) fn decide(
    program: &[FilterInstruction],
    architecture: u32,
    call: u32,
    arguments: &[u64],
) -> u32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let FilterInstruction { code, jt, jf, k } = program[at];
        at += 1;
        let choose = |condition| usize::from(if condition { jt } else { jf });
        match code {
            LOAD => {
                value = match k {
                    CALL => call,
                    ARCHITECTURE => architecture,
                    ARGUMENTS.. => {
                        let (index, half) = ((k - ARGUMENTS) / 8, (k - ARGUMENTS) % 8);
                        let argument = arguments[index as usize];
                        match half {
                            LOWER_HALF => argument as u32,
                            UPPER_HALF => (argument >> 32) as u32,
                            _ => panic!("loads {k}"),
                        }
                    }
                    _ => panic!("loads {k}"),
                }
            }
            AND => value &= k,
            RETURN => return k,
            JUMP => at += k as usize,
            JUMP_EQUAL => at += choose(value == k),
            JUMP_AT_LEAST => at += choose(value >= k),
            JUMP_MORE => at += choose(value > k),
            _ => panic!("{code:#x}"),
        }
    }
}

/// Reads a profile. Checks that the kernel would accept its filter, and that filter and rules agree
/// on each call. Returns `true` if the text is a profile.
pub(super) fn check_profile(text: &str) -> bool {
    let Ok(profile) = SeccompProfile::read(text, Capabilities::DEFAULT) else { return false };
    let written = serde_json::to_string(&profile).expect("a profile has a text");
    let again: SeccompProfile = serde_json::from_str(&written).expect("which can be read");
    assert_eq!(again, profile);
    for (machine, number, column) in
        [("x86_64", X86_64, Column::X86_64), ("aarch64", AARCH64, Column::Aarch64)]
    {
        let program = compile(&profile.compile(machine).expect("a machine that is known"));
        if program.len() <= MOST {
            check_jumps(&program);
            check_calls(&profile, &program, number, column);
        }
    }
    true
}

/// Checks that each path through a program stays in it and ends.
fn check_jumps(program: &[FilterInstruction]) {
    for (at, instruction) in program.iter().enumerate() {
        let FilterInstruction { code, jt, jf, k } = *instruction;
        let next = at + 1;
        let furthest = match code {
            RETURN => continue,
            JUMP => next + k as usize,
            JUMP_EQUAL | JUMP_AT_LEAST | JUMP_MORE => next + usize::from(jt.max(jf)),
            LOAD => {
                assert!(k % 4 == 0 && k < ARGUMENTS + 6 * 8, "loads {k}");
                next
            }
            _ => next,
        };
        assert!(furthest < program.len(), "{at} leads to {furthest} of {}", program.len());
    }
}

/// Compares a filter with the rules, for the calls that they name and one other.
fn check_calls(
    profile: &SeccompProfile,
    program: &[FilterInstruction],
    architecture: u32,
    column: Column,
) {
    let numbers: BTreeSet<u32> = profile.numbers(column).collect();
    for call in &numbers {
        for near in [0, 1, u64::MAX] {
            let arguments = profile.telling_arguments(near);
            let found = decide(program, architecture, *call, &arguments);
            assert_eq!(found, profile.says(*call, column, &arguments), "{call} {arguments:?}");
        }
    }
    let between = (0..1000)
        .find(|call| !numbers.contains(call) && numbers.last().is_none_or(|last| call < last));
    if let Some(call) = between {
        let found = decide(program, architecture, call, &[0; 6]);
        assert_eq!(found, profile.default_value(), "{call}");
    }
}

/// Returns `true` if the arguments meet a condition.
pub(super) fn holds(condition: &Condition, arguments: &[u64]) -> bool {
    let Condition { index, comparison, value, second } = *condition;
    let argument = arguments[index as usize];
    match comparison {
        Comparison::Different => argument != value,
        Comparison::Less => argument < value,
        Comparison::AtMost => argument <= value,
        Comparison::Equal => argument == value,
        Comparison::AtLeast => argument >= value,
        Comparison::More => argument > value,
        Comparison::Masked => argument & value == second,
    }
}
