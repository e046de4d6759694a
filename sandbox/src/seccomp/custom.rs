//! Profiles of the user: rules for calls by name, and their translation into verdicts.
//!
//! - If a call has several rules, one without conditions takes precedence. Otherwise the first rule
//!   whose conditions are all met applies.
//! - The default action applies to calls without a rule. If it refuses calls, those that are newer
//!   than all calls of the profile fail with ENOSYS, as on an older kernel, so that programs use
//!   fallbacks.
//! - Names that no architecture of this machine has are ignored, because profiles cover several
//!   machines.
//! - A call of an architecture that the profile doesn't name kills the program.
//!
//! i386 has one call for all socket operations, and another for all of System V's interprocess
//! communication. A rule without conditions about one of these operations applies to both ways of
//! calling it.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::calls::CALLS;
use super::compile::{ALLOW, Architecture, ERRNO, KILL, Verdict};
use super::more_calls::CALLS_OF_CAPABILITIES;
use super::other_calls::OTHER_CALLS;
use super::{CLONE, CLONE3, Column, PERSONALITY, SOCKET, X32};

/// A system call filter of the user, resolved for this machine and a container's capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompProfile {
    /// The action for calls without a rule.
    pub(super) default: Action,
    /// The additional architectures, such as `SCMP_ARCH_X86`.
    pub(super) architectures: Vec<String>,
    /// The filter's flags. `None` for kiln's defaults.
    pub(super) flags: Option<Vec<Flag>>,
    /// The rules in the order of the profile.
    pub(super) rules: Vec<Rule>,
}

/// The action for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    /// The kernel kills the thread.
    KillThread,
    /// The kernel kills the process.
    KillProcess,
    /// The kernel sends the process SIGSYS.
    Trap,
    /// The call fails with this errno.
    Errno(u16),
    /// A tracer receives this number and decides. Without a tracer, the call fails with ENOSYS.
    Trace(u16),
    /// The kernel logs and executes the call.
    Log,
    /// The kernel executes the call.
    Allow,
}

/// A rule about some calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rule {
    /// The names of the calls.
    pub(super) names: Vec<String>,
    /// The action for the calls.
    pub(super) action: Action,
    /// The conditions on the calls' arguments.
    pub(super) conditions: Vec<Condition>,
}

/// A condition on an argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Condition {
    /// The index of the argument, from 0 to 5.
    pub(super) index: u32,
    /// The operator of the comparison.
    pub(super) comparison: Comparison,
    /// The right-hand side of the comparison, or the mask of a masked comparison.
    pub(super) value: u64,
    /// The required result of a masked comparison.
    pub(super) second: u64,
}

/// An operator that compares an argument with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Comparison {
    /// The argument differs from the value.
    #[serde(rename = "SCMP_CMP_NE")]
    Different,
    /// The argument is less than the value.
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// The argument is at most the value.
    #[serde(rename = "SCMP_CMP_LE")]
    AtMost,
    /// The argument equals the value.
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// The argument is at least the value.
    #[serde(rename = "SCMP_CMP_GE")]
    AtLeast,
    /// The argument is greater than the value.
    #[serde(rename = "SCMP_CMP_GT")]
    More,
    /// The masked argument equals the second value.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    Masked,
}

/// A flag of the filter, as in seccomp(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Flag {
    /// The filter applies to all threads. The process has only one.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    AllThreads,
    /// The kernel logs refused calls.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// The kernel keeps speculative execution enabled.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    Speculation,
}

impl Action {
    /// Returns the action as a filter's return value.
    fn value(self) -> u32 {
        match self {
            Self::KillThread => 0,
            Self::KillProcess => KILL,
            Self::Trap => 0x0003_0000,
            Self::Errno(error) => ERRNO | u32::from(error),
            Self::Trace(number) => 0x7ff0_0000 | u32::from(number),
            Self::Log => 0x7ffc_0000,
            Self::Allow => ALLOW,
        }
    }

    /// Returns `true` if the action executes the call.
    fn makes_calls(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }

    /// Returns the action's name in the OCI runtime specification, and its errno or number.
    fn words(self) -> (&'static str, Option<u16>) {
        match self {
            Self::KillThread => ("SCMP_ACT_KILL_THREAD", None),
            Self::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
            Self::Trap => ("SCMP_ACT_TRAP", None),
            Self::Errno(error) => ("SCMP_ACT_ERRNO", Some(error)),
            Self::Trace(number) => ("SCMP_ACT_TRACE", Some(number)),
            Self::Log => ("SCMP_ACT_LOG", None),
            Self::Allow => ("SCMP_ACT_ALLOW", None),
        }
    }
}

impl Condition {
    /// Returns the condition for 32-bit arguments.
    fn narrowed(mut self) -> Self {
        self.value &= u64::from(u32::MAX);
        self.second &= u64::from(u32::MAX);
        self
    }
}

/// The operations of i386's `socketcall`, with their numbers.
const SOCKET_CALLS: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// The operations of i386's `ipc`, with their numbers.
const IPC_CALLS: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// Returns the numbers of a call. Returns `None` if no architecture has it.
fn numbers(name: &str) -> Option<[i32; 5]> {
    let special = [("socket", SOCKET), ("clone", CLONE), ("personality", PERSONALITY)];
    let special = special.into_iter().chain([("clone3", [CLONE3.cast_signed(); 5])]);
    let more = CALLS_OF_CAPABILITIES.iter().flat_map(|(_, calls)| calls.iter());
    let tables = CALLS.iter().chain(more).chain(OTHER_CALLS).copied();
    tables.chain(special).find(|(known, _)| *known == name).map(|(_, numbers)| numbers)
}

/// The rules about one call of an architecture, as conditions and return values.
type CallRules = Vec<(Vec<Condition>, u32)>;

impl SeccompProfile {
    /// Returns the architectures of a machine with the profile's verdicts.
    pub(super) fn compile(&self, machine: &str) -> io::Result<Vec<Architecture>> {
        let has = |name: &str| self.architectures.iter().any(|known| known == name);
        let one = |number, column| Architecture { number, verdicts: self.verdicts(column, 0) };
        let mut all = Vec::new();
        match machine {
            "x86_64" => {
                let mut native = one(super::X86_64, Column::X86_64);
                if has("SCMP_ARCH_X32") {
                    native.verdicts.extend(self.verdicts(Column::X32, X32));
                } else {
                    native.verdicts.push((X32, Verdict::Return(KILL)));
                }
                all.push(native);
                if has("SCMP_ARCH_X86") {
                    all.push(one(super::I386, Column::I386));
                }
            }
            "aarch64" => {
                all.push(one(super::AARCH64, Column::Aarch64));
                if has("SCMP_ARCH_ARM") {
                    all.push(one(super::ARM, Column::Arm));
                }
            }
            other => {
                return Err(io::Error::other(format!(
                    "there is no system call filter for {other}"
                )));
            }
        }
        Ok(all)
    }

    /// Returns the flags for seccomp(2). Returns `None` for kiln's defaults.
    pub(super) fn options(&self) -> Option<libc::c_ulong> {
        let bit = |flag: &Flag| match flag {
            Flag::AllThreads => libc::SECCOMP_FILTER_FLAG_TSYNC,
            Flag::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::Speculation => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        };
        self.flags.as_ref().map(|flags| flags.iter().map(bit).fold(0, |all, bit| all | bit))
    }

    /// Returns the verdicts in the order of call numbers. Each verdict is valid from its number on.
    /// `bit` is set in all numbers.
    fn verdicts(&self, column: Column, bit: u32) -> Vec<(u32, Verdict)> {
        let default = Verdict::Return(self.default.value());
        let rules = self.rules_of(column);
        let mut verdicts = vec![(bit, default.clone())];
        let last = rules.keys().next_back().copied();
        for (call, rules) in rules {
            verdicts.pop_if(|(same, _)| *same == call | bit);
            verdicts.push((call | bit, self.verdict(rules)));
            verdicts.push(((call + 1) | bit, default.clone()));
        }
        if let Some(last) = last.filter(|_| !self.default.makes_calls()) {
            verdicts.pop();
            let missing = Verdict::Refuse(libc::ENOSYS.cast_unsigned());
            verdicts.push(((last + 1) | bit, missing));
        }
        verdicts
    }

    /// Returns the rules by call number. Leaves out rules whose action is the default one.
    fn rules_of(&self, column: Column) -> BTreeMap<u32, CallRules> {
        let mut all: BTreeMap<u32, CallRules> = BTreeMap::new();
        let is_narrow = matches!(column, Column::I386 | Column::Arm);
        for rule in &self.rules {
            let narrow = |it: &Condition| if is_narrow { it.narrowed() } else { *it };
            let conditions: Vec<Condition> = rule.conditions.iter().map(narrow).collect();
            for name in &rule.names {
                let number = numbers(name).map(|numbers| numbers[column as usize]);
                if let Some(number) = number.and_then(|number| u32::try_from(number).ok()) {
                    let of_call = all.entry(number).or_default();
                    if rule.action != self.default {
                        let alternatives = alternatives(&conditions).into_iter();
                        of_call.extend(alternatives.map(|it| (it, rule.action.value())));
                    }
                }
                let changes = rule.action != self.default && conditions.is_empty();
                if column == Column::I386 && changes {
                    for (call, condition) in multiplexed(name) {
                        let rules = all.entry(call).or_default();
                        rules.push((vec![condition], rule.action.value()));
                    }
                }
            }
        }
        all
    }

    fn verdict(&self, rules: CallRules) -> Verdict {
        match rules.iter().find(|(conditions, _)| conditions.is_empty()) {
            Some((_, action)) => Verdict::Return(*action),
            None if rules.is_empty() => Verdict::Return(self.default.value()),
            None => Verdict::Choose { rules, otherwise: self.default.value() },
        }
    }

    /// Returns the `linux.seccomp` property of a runtime's configuration.
    pub(crate) fn for_runtime(&self) -> Value {
        let native = match std::env::consts::ARCH {
            "aarch64" => "SCMP_ARCH_AARCH64",
            _ => "SCMP_ARCH_X86_64",
        };
        let mut architectures = vec![native];
        let others = self.architectures.iter().map(String::as_str);
        architectures.extend(others.filter(|name| *name != native));
        let rule = |rule: &Rule| {
            let (action, number) = rule.action.words();
            let condition = |it: &Condition| {
                json!({
                    "index": it.index,
                    "value": it.value,
                    "valueTwo": it.second,
                    "op": it.comparison,
                })
            };
            let conditions: Vec<Value> = rule.conditions.iter().map(condition).collect();
            let mut document = json!({ "names": rule.names, "action": action, "args": conditions });
            if let Some(number) = number {
                document["errnoRet"] = number.into();
            }
            document
        };
        let (default, number) = self.default.words();
        let mut document = json!({
            "defaultAction": default,
            "architectures": architectures,
            "syscalls": self.rules.iter().map(rule).collect::<Vec<_>>(),
        });
        if let Some(number) = number {
            document["defaultErrnoRet"] = number.into();
        }
        if let Some(flags) = &self.flags {
            document["flags"] = json!(flags);
        }
        document
    }
}

#[cfg(any(test, fuzzing))]
impl SeccompProfile {
    /// Returns the numbers of the calls that rules name.
    pub(super) fn numbers(&self, column: Column) -> impl Iterator<Item = u32> {
        let names = self.rules.iter().flat_map(|rule| &rule.names);
        names.filter_map(move |name| u32::try_from(numbers(name)?[column as usize]).ok())
    }

    /// Returns the default action as a filter's return value.
    pub(super) fn default_value(&self) -> u32 {
        self.default.value()
    }

    /// Returns six arguments at the limits of the conditions, each plus `near`.
    pub(super) fn telling_arguments(&self, near: u64) -> [u64; 6] {
        let mut arguments = [near; 6];
        for condition in self.rules.iter().flat_map(|rule| &rule.conditions) {
            let value = match condition.comparison {
                Comparison::Masked => condition.second,
                _ => condition.value,
            };
            arguments[condition.index as usize] = value.wrapping_add(near);
        }
        arguments
    }

    /// Returns the rules' verdict on a call as a filter's return value.
    pub(super) fn says(&self, call: u32, column: Column, arguments: &[u64]) -> u32 {
        let is_it = |name: &String| {
            numbers(name).is_some_and(|all| u32::try_from(all[column as usize]) == Ok(call))
        };
        let rules = self.rules.iter().filter(|rule| rule.action != self.default);
        let rules: Vec<&Rule> = rules.filter(|rule| rule.names.iter().any(is_it)).collect();
        let is_met = |rule: &&&Rule| {
            let held =
                |all: &Vec<Condition>| all.iter().all(|it| super::simulate::holds(it, arguments));
            alternatives(&rule.conditions).iter().any(held)
        };
        let unconditional = rules.iter().find(|rule| rule.conditions.is_empty());
        let rule = unconditional.or_else(|| rules.iter().find(is_met));
        rule.map_or(self.default, |rule| rule.action).value()
    }
}

/// Returns alternative sets of conditions. Two conditions on the same argument are alternatives, as
/// in other runtimes.
fn alternatives(conditions: &[Condition]) -> Vec<Vec<Condition>> {
    let is_repeated = |(place, one): (usize, &Condition)| {
        conditions[..place].iter().any(|other| other.index == one.index)
    };
    if conditions.iter().enumerate().any(is_repeated) {
        return conditions.iter().map(|one| vec![*one]).collect();
    }
    vec![conditions.to_vec()]
}

/// Returns the i386 calls that include the operation `name`, each with the condition that selects
/// it.
fn multiplexed(name: &str) -> impl Iterator<Item = (u32, Condition)> {
    let find = |table: &[(&str, u64)]| {
        table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    };
    let found = [(SOCKETCALL, find(&SOCKET_CALLS)), (IPC, find(&IPC_CALLS))];
    found.into_iter().filter_map(|(call, value)| {
        let comparison = Comparison::Equal;
        Some((call, Condition { index: 0, comparison, value: value?, second: 0 }))
    })
}
