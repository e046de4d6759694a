//! Which devices can be opened: docker's rules but for the console.
//!
//! Device nodes of all kinds may be made. Opened can be what does no harm and leads nowhere:
//! `null`, `zero`, `full`, `random`, `urandom`, the program's own terminals. `5:1` isn't among them:
//! it is the machine's console, where somebody types. A program's `/dev/console` is a terminal of its
//! own. More may be opened by rules of the user's own.

use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::{self, Device};

/// The major number of the terminals of `/dev/pts`.
const PTS: u32 = 136;

/// Character devices that can be opened; `None` for all of a major number.
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

/// Devices that may be used, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Of which kind they are.
    pub kind: DeviceKind,
    /// Their major number; `None` for all.
    pub major: Option<u32>,
    /// Their minor number; `None` for all.
    pub minor: Option<u32>,
    /// Whether they may be read.
    pub read: bool,
    /// Whether they may be written.
    pub write: bool,
    /// Whether nodes of them may be made.
    pub make: bool,
}

/// A kind of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Both kinds.
    All,
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

impl DeviceKind {
    /// Returns its letter.
    pub fn letter(self) -> char {
        match self {
            Self::All => 'a',
            Self::Character => 'c',
            Self::Block => 'b',
        }
    }
}

impl DeviceRule {
    /// Returns the rule's letters, as `rw`.
    pub fn access(&self) -> String {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.make, 'm')];
        letters.into_iter().filter_map(|(may, letter)| may.then_some(letter)).collect()
    }

    /// Returns it as the kernel's program has it.
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

/// Returns the rules about what does no harm.
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

/// Has a group of version 1 keep to the rules, and to `more`. Tells whether it does.
pub(super) fn filter(group: &Path, more: &[DeviceRule]) -> bool {
    let allow = |rule: &str| std::fs::write(group.join("devices.allow"), rule);
    let apply = || {
        std::fs::write(group.join("devices.deny"), "a")?;
        allow("c *:* m")?;
        allow("b *:* m")?;
        for rule in harmless().chain(more.iter().cloned()) {
            // The letter for both kinds stands for everything there is, whatever follows.
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

/// Has a group of version 2, and all below it, keep to the rules, and to `more`. Tells whether it does.
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
