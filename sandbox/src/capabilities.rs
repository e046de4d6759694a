//! Sets of Linux capabilities and their names: capabilities(7).

use std::ops::{BitAnd, BitOr, Sub};

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

/// A set of capabilities, as a bit mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

/// The names of the capabilities in the order of their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capabilities {
    /// The set without any capability.
    pub const NONE: Self = Self(0);

    /// The set that Docker gives to containers by default.
    pub const DEFAULT: Self = Self(
        CapabilitySet::CHOWN
            .union(CapabilitySet::DAC_OVERRIDE)
            .union(CapabilitySet::FSETID)
            .union(CapabilitySet::FOWNER)
            .union(CapabilitySet::MKNOD)
            .union(CapabilitySet::NET_RAW)
            .union(CapabilitySet::SETGID)
            .union(CapabilitySet::SETUID)
            .union(CapabilitySet::SETFCAP)
            .union(CapabilitySet::SETPCAP)
            .union(CapabilitySet::NET_BIND_SERVICE)
            .union(CapabilitySet::SYS_CHROOT)
            .union(CapabilitySet::KILL)
            .union(CapabilitySet::AUDIT_WRITE)
            .bits(),
    );

    pub(super) const MKNOD: Self = Self(CapabilitySet::MKNOD.bits());
    pub(super) const BPF: Self = Self(CapabilitySet::BPF.bits());
    pub(super) const DAC_READ_SEARCH: Self = Self(CapabilitySet::DAC_READ_SEARCH.bits());
    pub(super) const PERFMON: Self = Self(CapabilitySet::PERFMON.bits());
    pub(super) const SYSLOG: Self = Self(CapabilitySet::SYSLOG.bits());
    pub(super) const SYS_ADMIN: Self = Self(CapabilitySet::SYS_ADMIN.bits());
    pub(super) const SYS_BOOT: Self = Self(CapabilitySet::SYS_BOOT.bits());
    pub(super) const SYS_CHROOT: Self = Self(CapabilitySet::SYS_CHROOT.bits());
    pub(super) const SYS_MODULE: Self = Self(CapabilitySet::SYS_MODULE.bits());
    pub(super) const SYS_NICE: Self = Self(CapabilitySet::SYS_NICE.bits());
    pub(super) const SYS_PACCT: Self = Self(CapabilitySet::SYS_PACCT.bits());
    pub(super) const SYS_PTRACE: Self = Self(CapabilitySet::SYS_PTRACE.bits());
    pub(super) const SYS_RAWIO: Self = Self(CapabilitySet::SYS_RAWIO.bits());
    pub(super) const SYS_TIME: Self = Self(CapabilitySet::SYS_TIME.bits());
    pub(super) const SYS_TTY_CONFIG: Self = Self(CapabilitySet::SYS_TTY_CONFIG.bits());

    /// Returns the permitted capabilities of this process, which are those that it can grant.
    ///
    /// # Errors
    /// Fails if the kernel doesn't report them.
    pub fn available() -> std::io::Result<Self> {
        Ok(Self(rustix::thread::capabilities(None)?.permitted.bits()))
    }

    /// Returns the effective capabilities of this process.
    ///
    /// # Errors
    /// Fails if the kernel doesn't report them.
    pub fn effective() -> std::io::Result<Self> {
        Ok(Self(rustix::thread::capabilities(None)?.effective.bits()))
    }

    /// Returns the capability with this name, such as `NET_ADMIN` or `cap_net_admin`. Returns
    /// `None` if the name is unknown.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let number = NAMES.iter().position(|known| *known == name)?;
        Some(Self(1 << number))
    }

    /// Returns the union of two sets.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns `true` if the set contains all of `other`.
    pub fn contain(self, other: Self) -> bool {
        self & other == other
    }

    /// Returns the names in the form of the kernel's documentation, such as `CAP_CHOWN`.
    pub fn names(self) -> Vec<String> {
        let has = |number: &usize| self.0 & (1 << number) != 0;
        let numbers = (0..NAMES.len()).filter(has);
        numbers.map(|number| format!("CAP_{}", NAMES[number])).collect()
    }

    /// Returns the set as rustix's type.
    pub(super) fn set(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.0)
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Capabilities {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Capabilities {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_dockers() {
        assert_eq!(Capabilities::DEFAULT.0, 0x0000_0000_a804_25fb);
        assert_eq!(Capabilities::DEFAULT.names().len(), 14);
    }

    #[test]
    fn names_are_taken_in_all_spellings() {
        for name in ["SYS_ADMIN", "CAP_SYS_ADMIN", "sys_admin", "cap_Sys_Admin"] {
            assert_eq!(Capabilities::named(name), Some(Capabilities::SYS_ADMIN));
        }
        for name in ["", "ADMIN", "CAP_CAP_SYS_ADMIN", "ALL"] {
            assert_eq!(Capabilities::named(name), None, "{name}");
        }
        let two = Capabilities::BPF | Capabilities::SYS_TIME;
        assert_eq!((two - Capabilities::BPF).names(), ["CAP_SYS_TIME"]);
        assert!(two.contain(Capabilities::BPF) && !two.contain(Capabilities::DEFAULT));
    }
}
