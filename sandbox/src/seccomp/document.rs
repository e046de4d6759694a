//! The parser of profiles in docker's JSON format.
//!
//! Unknown properties are ignored, as in docker. A rule's requirements (capabilities, kernel,
//! machine) are evaluated when the profile is read. The result is for one container on one machine.

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use super::custom::{Action, Comparison, Condition, Flag, Rule, SeccompProfile};
use crate::capabilities::Capabilities;

/// The whole profile, validated.
#[derive(Deserialize)]
#[serde(try_from = "Members")]
struct Document {
    members: Members,
}

/// The properties of a profile.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    default_action: ActionName,
    default_errno_ret: Option<u16>,
    architectures: Option<Vec<ArchitectureName>>,
    arch_map: Option<Vec<ArchitectureGroup>>,
    flags: Option<Vec<Flag>>,
    listener_path: Option<String>,
    syscalls: Option<Vec<Calls>>,
}

/// The name of an action. Its number is a separate property.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum ActionName {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// An architecture, with others whose programs the same machines run.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureGroup {
    architecture: ArchitectureName,
    sub_architectures: Option<Vec<ArchitectureName>>,
}

/// The name of an architecture, such as `SCMP_ARCH_X86_64`.
struct ArchitectureName(String);

/// A rule after its validation.
#[derive(Deserialize)]
#[serde(try_from = "CallMembers")]
struct Calls {
    names: Vec<String>,
    action: Action,
    conditions: Vec<Condition>,
    includes: Requirements,
    excludes: Requirements,
}

/// The properties of a rule.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallMembers {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: ActionName,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    includes: Option<Requirements>,
    excludes: Option<Requirements>,
}

/// A condition on an argument.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    #[serde(deserialize_with = "argument_index")]
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Comparison,
}

/// The requirements that include or exclude a rule.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requirements {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    #[serde(default, deserialize_with = "kernel")]
    min_kernel: Option<(u32, u32)>,
}

/// The container's capabilities, the machine and the kernel's version.
struct Conditions {
    capabilities: Capabilities,
    machine: &'static str,
    kernel: (u32, u32),
}

impl SeccompProfile {
    /// Reads a profile in docker's format for a container with these capabilities on this machine.
    ///
    /// # Errors
    /// Fails if the text isn't a valid profile. The error contains the line and the expected value.
    pub fn read(text: &str, capabilities: Capabilities) -> serde_json::Result<Self> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = version(&release).unwrap_or_default();
        let machine = std::env::consts::ARCH;
        read(text, &Conditions { capabilities, machine, kernel })
    }
}

fn read(text: &str, here: &Conditions) -> serde_json::Result<SeccompProfile> {
    let members = serde_json::from_str::<Document>(text)?.members;
    let default = action(members.default_action, members.default_errno_ret)
        .map_err(serde_json::Error::custom)?;
    let rules = members.syscalls.unwrap_or_default().into_iter();
    let rules =
        rules.filter(|rule| rule.includes.are_met_by(here) && !rule.excludes.is_any_met_by(here));
    let rules = rules.map(|rule| Rule {
        names: rule.names,
        action: rule.action,
        conditions: rule.conditions,
    });
    let names = |list: Vec<ArchitectureName>| list.into_iter().map(|name| name.0);
    let mut architectures: Vec<String> = names(members.architectures.unwrap_or_default()).collect();
    let native = if here.machine == "aarch64" { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    let groups = members.arch_map.unwrap_or_default().into_iter();
    for group in groups.filter(|group| group.architecture.0 == native) {
        architectures.extend(names(group.sub_architectures.unwrap_or_default()));
    }
    Ok(SeccompProfile { default, architectures, flags: members.flags, rules: rules.collect() })
}

impl TryFrom<Members> for Document {
    type Error = &'static str;

    fn try_from(members: Members) -> Result<Self, Self::Error> {
        if members.architectures.is_some() && members.arch_map.is_some() {
            return Err("use either architectures or archMap");
        }
        if members.listener_path.as_ref().is_some_and(|path| !path.is_empty()) {
            return Err(NO_LISTENER);
        }
        Ok(Self { members })
    }
}

impl TryFrom<CallMembers> for Calls {
    type Error = &'static str;

    fn try_from(members: CallMembers) -> Result<Self, Self::Error> {
        let names = match (members.name, members.names.unwrap_or_default()) {
            (Some(_), names) if !names.is_empty() => return Err("use either name or names"),
            (Some(name), _) => vec![name],
            (None, names) => names,
        };
        let condition = |it: Argument| Condition {
            index: it.index,
            comparison: it.op,
            value: it.value,
            second: it.value_two,
        };
        Ok(Self {
            names,
            action: action(members.action, members.errno_ret)?,
            conditions: members.args.unwrap_or_default().into_iter().map(condition).collect(),
            includes: members.includes.unwrap_or_default(),
            excludes: members.excludes.unwrap_or_default(),
        })
    }
}

const NO_LISTENER: &str =
    "no program listens to calls: SCMP_ACT_NOTIFY and listenerPath can't be had";

/// Returns an action with its number. The default number is that of EPERM.
fn action(name: ActionName, number: Option<u16>) -> Result<Action, &'static str> {
    const EPERM: u16 = 1;
    let number = number.unwrap_or(EPERM);
    Ok(match name {
        ActionName::KillThread => Action::KillThread,
        ActionName::KillProcess => Action::KillProcess,
        ActionName::Trap => Action::Trap,
        ActionName::Errno => Action::Errno(number),
        ActionName::Trace => Action::Trace(number),
        ActionName::Log => Action::Log,
        ActionName::Allow => Action::Allow,
        ActionName::Notify => return Err(NO_LISTENER),
    })
}

impl Requirements {
    /// Returns `true` if all requirements are met.
    fn are_met_by(&self, here: &Conditions) -> bool {
        let caps = self.caps.iter().flatten().all(|name| here.has(name));
        let machine =
            self.arches.as_ref().is_none_or(|names| names.is_empty() || here.is_one_of(names));
        caps && machine && self.min_kernel.is_none_or(|kernel| here.kernel >= kernel)
    }

    /// Returns `true` if one of the requirements is met.
    fn is_any_met_by(&self, here: &Conditions) -> bool {
        self.caps.iter().flatten().any(|name| here.has(name))
            || self.arches.as_ref().is_some_and(|names| here.is_one_of(names))
            || self.min_kernel.is_some_and(|kernel| here.kernel >= kernel)
    }
}

impl Conditions {
    fn has(&self, name: &str) -> bool {
        Capabilities::named(name).is_some_and(|one| self.capabilities.contain(one))
    }

    fn is_one_of(&self, machines: &[String]) -> bool {
        let own = if self.machine == "aarch64" { "arm64" } else { "amd64" };
        machines.iter().any(|name| name == own)
    }
}

impl<'de> Deserialize<'de> for ArchitectureName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        if name.starts_with("SCMP_ARCH_") {
            return Ok(Self(name));
        }
        Err(D::Error::invalid_value(Unexpected::Str(&name), &"an architecture as SCMP_ARCH_X86_64"))
    }
}

fn argument_index<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let index = u32::deserialize(from)?;
    if index < 6 {
        return Ok(index);
    }
    Err(D::Error::invalid_value(Unexpected::Unsigned(index.into()), &"an argument from 0 to 5"))
}

fn kernel<'de, D: Deserializer<'de>>(from: D) -> Result<Option<(u32, u32)>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let exact = text.split_once('.').filter(|(_, minor)| minor.bytes().all(|b| b.is_ascii_digit()));
    let version = exact.and_then(|_| version(&text));
    version
        .map(Some)
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a kernel version as 4.8"))
}

/// Returns the first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let digits = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circumstances(capabilities: Capabilities) -> Conditions {
        Conditions { capabilities, machine: "x86_64", kernel: (5, 10) }
    }

    fn names(text: &str, capabilities: Capabilities) -> String {
        let profile = read(text, &circumstances(capabilities)).unwrap();
        profile.rules.iter().flat_map(|rule| rule.names.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_are_for_some_containers_on_some_machines() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "comment": 1,
            "syscalls": [
                { "names": ["a", "b"], "action": "SCMP_ACT_ALLOW", "comment": "x", "args": null },
                { "name": "c", "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN", "CAP_SYS_TIME"] } },
                { "name": "d", "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN", "CAP_SYS_TIME"] } },
                { "name": "e", "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["arm64"] } },
                { "name": "f", "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["amd64", "x32"] } },
                { "name": "g", "action": "SCMP_ACT_ALLOW", "excludes": { "arches": ["amd64"] } },
                { "name": "h", "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "5.10" } },
                { "name": "i", "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "5.11" } },
                { "name": "j", "action": "SCMP_ACT_ERRNO" }
            ]
        }"#;
        assert_eq!(names(text, Capabilities::NONE), "a b d f h j");
        assert_eq!(names(text, Capabilities::SYS_TIME), "a b f h j");
        assert_eq!(names(text, Capabilities::SYS_TIME | Capabilities::SYS_ADMIN), "a b c f h j");
    }

    #[test]
    fn what_can_not_be_understood_is_told_by_its_line() {
        let problem = |text: &str| {
            let error = read(text, &circumstances(Capabilities::NONE)).err();
            error.map(|error| error.to_string()).unwrap_or_default()
        };
        for (text, expected) in [
            ("", "EOF while parsing"),
            ("{}", "missing field `defaultAction` at line 1"),
            (
                "{\n\"defaultAction\": \"ALLOW\" }",
                "unknown variant `ALLOW`, expected one of `SCMP_ACT_KILL`",
            ),
            ("{\n\"defaultAction\": \"ALLOW\" }", "at line 2 column"),
            (
                "{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n\"syscalls\": {}}",
                "expected a sequence at line 2",
            ),
            (
                "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"architectures\": [], \"archMap\": []}",
                "use either architectures or archMap",
            ),
            (
                "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"architectures\": [\"amd64\"]}",
                "expected an architecture as SCMP_ARCH_X86_64",
            ),
            ("{\"defaultAction\": \"SCMP_ACT_NOTIFY\"}", "no program listens"),
        ] {
            assert!(problem(text).contains(expected), "{text}: {}", problem(text));
        }
        for (rule, expected) in [
            (
                "\"name\": \"a\", \"names\": [\"b\"], \"action\": \"SCMP_ACT_ALLOW\"",
                "use either name or names",
            ),
            ("\"name\": \"a\"", "missing field `action` at line 2"),
            (
                "\"name\": \"a\", \"action\": \"SCMP_ACT_TRAP\", \"errnoRet\": \"x\"",
                "expected u16 at line 2",
            ),
            (
                "\"name\": \"a\", \"action\": \"SCMP_ACT_TRAP\", \"includes\": { \"minKernel\": \"5\" }",
                "expected a kernel version as 4.8 at line 2",
            ),
            (
                "\"name\": \"a\", \"action\": \"SCMP_ACT_TRAP\", \"args\": [{ \"index\": 6, \"value\": 1, \"op\": \"SCMP_CMP_EQ\" }]",
                "expected an argument from 0 to 5",
            ),
            (
                "\"name\": \"a\", \"action\": \"SCMP_ACT_TRAP\", \"args\": [{ \"index\": 0, \"value\": 1, \"op\": \"==\" }]",
                "unknown variant `==`, expected one of `SCMP_CMP_NE`",
            ),
        ] {
            let text = format!(
                "{{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [\n{{ {rule} }}]}}"
            );
            assert!(problem(&text).contains(expected), "{rule}: {}", problem(&text));
        }
    }
}
