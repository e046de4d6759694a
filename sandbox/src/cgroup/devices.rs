//! The device rules of control groups: docker's rules except for the console.
//!
//! A program may create device nodes of all kinds. It may open harmless ones: `null`, `zero`,
//! `full`, `random`, `urandom` and its own terminals. `5:1` isn't among them, because it is the
//! machine's console. A program's `/dev/console` is a terminal of its own. The user's rules may
//! allow more.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::{self, Device};

/// The major number of the terminals in `/dev/pts`.
const PTS: u32 = 136;

/// The harmless character devices by major and minor number. `None` means all minor numbers.
const OPEN: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (PTS, None),
];

/// A rule that allows the use of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// The kind of the devices.
    pub kind: DeviceKind,
    /// The major number; `None` for all.
    pub major: Option<u32>,
    /// The minor number; `None` for all.
    pub minor: Option<u32>,
    /// `true` if the program may read the devices.
    pub read: bool,
    /// `true` if the program may write to the devices.
    pub write: bool,
    /// `true` if the program may create nodes of the devices.
    pub make: bool,
}

/// The kind of a device rule's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Both character and block devices.
    All,
    /// Character devices, such as terminals.
    Character,
    /// Block devices, such as disks.
    Block,
}

impl DeviceKind {
    /// Returns the kind's letter in the `devices` controller: `a`, `c` or `b`.
    pub fn letter(self) -> char {
        match self {
            Self::All => 'a',
            Self::Character => 'c',
            Self::Block => 'b',
        }
    }
}

impl DeviceRule {
    /// Returns the letters of the allowed access, such as `rw`.
    pub fn access(&self) -> String {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.make, 'm')];
        letters.into_iter().filter_map(|(may, letter)| may.then_some(letter)).collect()
    }

    /// Returns the rule in the form of the BPF filter.
    fn device(&self) -> Device {
        let kind = Some(self.kind).filter(|kind| *kind != DeviceKind::All);
        Device {
            is_block: kind.map(|kind| kind == DeviceKind::Block),
            major: self.major,
            minor: self.minor,
            read: self.read,
            write: self.write,
        }
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |it| it.to_string());
        let (kind, major, minor) = (self.kind.letter(), number(self.major), number(self.minor));
        write!(f, "{kind} {major}:{minor} {}", self.access())
    }
}

/// Returns the rules for the harmless devices.
fn harmless() -> impl Iterator<Item = DeviceRule> {
    OPEN.into_iter().map(|(major, minor)| DeviceRule {
        kind: DeviceKind::Character,
        major: Some(major),
        minor,
        read: true,
        write: true,
        make: true,
    })
}

/// Sets a group of version 1 to allow the harmless devices and `more`. Returns `true` on success.
pub(super) fn filter(group: &Path, more: &[DeviceRule]) -> bool {
    let allow = |rule: &str| std::fs::write(group.join("devices.allow"), rule);
    let apply = || {
        std::fs::write(group.join("devices.deny"), "a")?;
        allow("c *:* m")?;
        allow("b *:* m")?;
        for rule in harmless().chain(more.iter().cloned()) {
            // The kernel takes the letter `a` as all devices, whatever numbers follow.
            if rule.kind == DeviceKind::All {
                for kind in [DeviceKind::Character, DeviceKind::Block] {
                    allow(&DeviceRule { kind, ..rule.clone() }.to_string())?;
                }
            } else {
                allow(&rule.to_string())?;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    apply().is_ok()
}

/// Sets a group of version 2 to allow the harmless devices and `more`. The rules apply to all
/// groups below it too. Returns `true` on success.
pub(super) fn filter_unified(group: &Path, more: &[DeviceRule]) -> bool {
    let open: Vec<Device> =
        harmless().chain(more.iter().cloned()).map(|rule| rule.device()).collect();
    File::open(group).and_then(|group| sys::filter_devices(&group, &open)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let rule = DeviceRule {
            kind: DeviceKind::Block,
            major: Some(7),
            minor: None,
            read: true,
            write: false,
            make: true,
        };
        assert_eq!(rule.to_string(), "b 7:* rm");
        assert_eq!(harmless().last().unwrap().to_string(), "c 136:* rwm");
    }
}
