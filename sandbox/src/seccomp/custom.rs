//! A profile of the user's own: rules for calls by their names, and how they become verdicts.
//!
//! - Of several rules for a call, one without conditions holds whatever the others say; else the first one
//!   whose conditions are all met.
//! - A call that no rule is about meets the profile's default action. Where that refuses calls, those that
//!   are younger than all calls of the profile don't exist, as on an older kernel, so that programs fall back
//!   to others.
//! - Names that no architecture of this machine has are passed over: profiles are for several machines.
//! - A call of an architecture that the profile doesn't name ends the program.
//!
//! i386 has one call for all about sockets, and another for all of System V's interprocess communication. A rule
//! without conditions about one of these holds for both ways to make it.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::calls::CALLS;
use super::compile::{ALLOW, Architecture, ERRNO, KILL, Verdict};
use super::more_calls::CALLS_OF_CAPABILITIES;
use super::other_calls::OTHER_CALLS;
use super::{CLONE, CLONE3, Column, PERSONALITY, SOCKET, X32};

/// A system call filter of the user's own, for this machine and a container's capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompProfile {
    /// The action for calls that no rule is about.
    pub(super) default: Action,
    /// The architectures besides the machine's own, as `SCMP_ARCH_X86`.
    pub(super) architectures: Vec<String>,
    /// Options of the filter; `None` for kiln's own choice.
    pub(super) flags: Option<Vec<Flag>>,
    /// The rules, in the order in which they are written.
    pub(super) rules: Vec<Rule>,
}

/// The action for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
    /// The process gets SIGSYS.
    Trap,
    /// It fails with this error.
    Errno(u16),
    /// A tracer decides, and is told this number; without one the call doesn't exist.
    Trace(u16),
    /// It is made, and the kernel logs it.
    Log,
    /// It is made.
    Allow,
}

/// A rule about some calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rule {
    /// The calls.
    pub(super) names: Vec<String>,
    /// The action for them.
    pub(super) action: Action,
    /// The conditions on their arguments.
    pub(super) conditions: Vec<Condition>,
}

/// A condition on an argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Condition {
    /// Which argument, from 0 to 5.
    pub(super) index: u32,
    /// How it is compared.
    pub(super) comparison: Comparison,
    /// The value that it is compared with; the mask of a masked comparison.
    pub(super) value: u64,
    /// The result that a masked comparison is to have.
    pub(super) second: u64,
}

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Comparison {
    /// Differs.
    #[serde(rename = "SCMP_CMP_NE")]
    Different,
    /// Is less.
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// Is no more.
    #[serde(rename = "SCMP_CMP_LE")]
    AtMost,
    /// Is the same.
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// Is no less.
    #[serde(rename = "SCMP_CMP_GE")]
    AtLeast,
    /// Is more.
    #[serde(rename = "SCMP_CMP_GT")]
    More,
    /// Has, of the mask's bits, those of the second value.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    Masked,
}

/// An option of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Flag {
    /// All threads have it; there is one.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    AllThreads,
    /// The kernel logs what is refused.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// Speculation is as it was.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    Speculation,
}

impl Action {
    /// Returns it as a filter's return value.
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

    /// Tells whether calls are made.
    fn makes_calls(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }

    /// Returns it in the words of OCI runtimes, with its number.
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
    /// Returns it as the kernel sees arguments of 32 bits.
    fn narrowed(mut self) -> Self {
        self.value &= u64::from(u32::MAX);
        self.second &= u64::from(u32::MAX);
        self
    }
}

/// Calls that i386 makes by another call, `socketcall`, and the number that stands for them.
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

/// Calls that i386 makes by `ipc`, and the number that stands for them.
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

/// Returns the numbers of a call; `None` where no architecture has it.
fn numbers(name: &str) -> Option<[i32; 5]> {
    let special = [("socket", SOCKET), ("clone", CLONE), ("personality", PERSONALITY)];
    let special = special.into_iter().chain([("clone3", [CLONE3.cast_signed(); 5])]);
    let more = CALLS_OF_CAPABILITIES.iter().flat_map(|(_, calls)| calls.iter());
    let tables = CALLS.iter().chain(more).chain(OTHER_CALLS).copied();
    tables.chain(special).find(|(known, _)| *known == name).map(|(_, numbers)| numbers)
}

/// The rules about one call of an architecture.
type CallRules = Vec<(Vec<Condition>, u32)>;

impl SeccompProfile {
    /// Returns what this kind of machine runs, with the profile's verdicts.
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

    /// Returns the options that the filter is installed with, as the kernel takes them; `None` for kiln's own
    /// choice.
    pub(super) fn options(&self) -> Option<libc::c_ulong> {
        let bit = |flag: &Flag| match flag {
            Flag::AllThreads => libc::SECCOMP_FILTER_FLAG_TSYNC,
            Flag::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::Speculation => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        };
        self.flags.as_ref().map(|flags| flags.iter().map(bit).fold(0, |all, bit| all | bit))
    }

    /// Returns what becomes of an architecture's calls, in the order of their numbers: each verdict holds from
    /// its number on. `bit` is added to all.
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

    /// Returns the rules by the numbers of calls. One that says what the default says changes nothing.
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

    /// Returns `linux.seccomp` of a runtime's configuration.
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

    /// Returns arguments on which the last condition on each of them turns, `near` added to each.
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

    /// Returns what the rules say of a call, as a filter's return value.
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

/// Returns the conditions as sets of which one has to be met as a whole: two on the same argument are
/// alternatives, as with other runtimes.
fn alternatives(conditions: &[Condition]) -> Vec<Vec<Condition>> {
    let is_repeated = |(place, one): (usize, &Condition)| {
        conditions[..place].iter().any(|other| other.index == one.index)
    };
    if conditions.iter().enumerate().any(is_repeated) {
        return conditions.iter().map(|one| vec![*one]).collect();
    }
    vec![conditions.to_vec()]
}

/// Returns the calls that i386 has for many, with the condition that stands for a call of this name.
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
