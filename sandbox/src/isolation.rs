//! The ways to isolate programs, from the strongest to the one that requires the fewest privileges.

mod probe;

use std::fmt;
use std::io;
use std::str::FromStr;

use kiln_tree::Ids;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};
use serde::{Deserialize, Serialize};

use super::error::SandboxError;
use super::identity;

pub use probe::{ProbeError, is_confined, is_filtered, probe};

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

    /// Gives up, for good, the privileges of this process that the rung doesn't have. Requires a
    /// single thread.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub fn give_up_privileges(self) -> io::Result<()> {
        let kept = match self {
            Self::Root | Self::UserNamespace => return Ok(()),
            Self::Chroot => CapabilitySet::all() - CapabilitySet::SYS_ADMIN,
            Self::None => CapabilitySet::empty(),
        };
        if self == Self::None {
            // Root would otherwise get its capabilities back with the next program.
            set_no_new_privs(true)?;
        }
        let own = capabilities(None)?;
        // This requires a capability. Without it, the privileges are those of a container already.
        let _ = identity::drop_bounding(kept);
        Ok(set_capabilities(
            None,
            CapabilitySets {
                effective: own.effective & kept,
                permitted: own.permitted & kept,
                inheritable: own.inheritable & kept,
            },
        )?)
    }

    /// Returns `true` if programs have mounts and namespaces of their own.
    pub fn has_namespaces(self) -> bool {
        matches!(self, Self::Root | Self::UserNamespace)
    }
}

/// The reason why a rung can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The rung.
    pub isolation: Isolation,
    /// The reason, such as `needs CAP_SYS_ADMIN`.
    pub reason: String,
    /// The reason in a word or two, such as `seccomp`.
    pub cause: String,
}

impl Obstacle {
    /// Describes, in one line, a rung on which programs have no namespaces, and why they have none.
    /// Returns `None` for the rungs above.
    pub fn describe(isolation: Isolation, obstacles: &[Self]) -> Option<String> {
        if isolation.has_namespaces() {
            return None;
        }
        let obstacle = obstacles.iter().find(|found| found.isolation == Isolation::UserNamespace);
        Some(match obstacle {
            Some(found) => format!("isolation: {isolation} (no user namespaces: {})", found.cause),
            None => format!("isolation: {isolation}"),
        })
    }

    /// Checks that programs can run on the rung.
    ///
    /// # Errors
    /// Fails if the rung itself has an obstacle.
    pub fn check(isolation: Isolation, obstacles: &[Self]) -> Result<(), SandboxError> {
        if obstacles.iter().all(|found| found.isolation != isolation) {
            return Ok(());
        }
        let all: Vec<_> = obstacles
            .iter()
            .map(|found| format!("{}: {}", found.isolation, found.reason))
            .collect();
        Err(SandboxError::NoIsolation(all.join("; ")))
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|isolation| isolation.name() == text);
        found.ok_or_else(|| format!("no isolation {text:?}: root, userns, chroot or none"))
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
