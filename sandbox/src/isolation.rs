//! The ways to isolate programs, from the strongest to the one that requires the fewest privileges.

use std::fmt;

use kiln_tree::Ids;
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

/// A way to isolate programs (a *rung*). Every rung yields the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Isolation {
    /// Namespaces, mounts and control groups, as root of the machine.
    Root,
    /// Namespaces and mounts, as root of a user namespace.
    UserNamespace,
    /// A changed root directory, as root without the privilege to mount.
    Chroot,
    /// Neither namespaces nor a changed root directory: a supervisor answers the system calls that
    /// name files and users.
    None,
}

impl Isolation {
    /// All rungs, strongest first.
    pub const ALL: [Self; 4] = [Self::Root, Self::UserNamespace, Self::Chroot, Self::None];

    /// Returns the name that the command line uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::UserNamespace => "userns",
            Self::Chroot => "chroot",
            Self::None => "none",
        }
    }

    /// Returns the strongest rung that this process has the privileges for.
    pub fn strongest() -> Self {
        let has = |set| capabilities(None).is_ok_and(|sets| sets.effective.contains(set));
        match rustix::process::geteuid().is_root() {
            true if has(CapabilitySet::SYS_ADMIN) && Ids::current().is_namespace() => {
                Self::UserNamespace
            }
            true if has(CapabilitySet::SYS_ADMIN) => Self::Root,
            true if has(CapabilitySet::SYS_CHROOT) => Self::Chroot,
            _ => Self::None,
        }
    }

    /// Returns `true` if programs have mounts and namespaces of their own.
    pub fn has_namespaces(self) -> bool {
        matches!(self, Self::Root | Self::UserNamespace)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
