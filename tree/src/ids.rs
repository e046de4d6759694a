//! The user and group IDs that this process can assign to files, and its privileges over files.
//!
//! The root user of the machine can assign all IDs. A user namespace has as many as its creator
//! granted: root (the creator's own ID outside) and usually 65,536 more, or only root. A process
//! without privileges can assign only its own ID, which then stands for root's: kiln's own files
//! belong to root in images.
//!
//! An owner that can't be assigned is *recorded*. The file then belongs to root, or to the user or
//! group that does exist. See [`crate::records`] for the records, and for what else is recorded.
//! A record of an owner is valid as long as the file still has the owner that was set together with
//! the record. In a namespace, links and fifos belong to root. If all IDs exist, no
//! owner is recorded, and records are ignored.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::sync::OnceLock;

use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::metadata::Owner;
use crate::records;

/// The range of a process outside of any user namespace.
const ALL: (u32, u32, u32) = (0, 0, u32::MAX);

/// The capabilities without which a process can neither give files away nor ignore their modes.
const OVER_FILES: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::FOWNER);

/// The user and group IDs that a process can assign, and its privileges over files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    users: Vec<Range>,
    groups: Vec<Range>,
    privileges: Privileges,
}

/// The privileges of a process over files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Privileges {
    /// Those of root, which include mounts.
    All,
    /// Those of root in a container: owners and modes, but neither mounts nor trusted attributes.
    Files,
    /// None: all files belong to the process's own user and group.
    None {
        /// The process's own user and group.
        own: Owner,
    },
}

impl Privileges {
    fn current() -> Self {
        let has = |set| capabilities(None).is_ok_and(|sets| sets.effective.contains(set));
        let own = Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        if own.uid == 0 && has(CapabilitySet::SYS_ADMIN) {
            Self::All
        } else if own.uid == 0 && has(OVER_FILES) {
            Self::Files
        } else {
            Self::None { own }
        }
    }
}

/// A range of IDs: the first inside the namespace, the first outside, and their number.
type Range = (u32, u32, u32);

impl Ids {
    /// Returns the IDs of this process. The first call looks them up, so the process must be in its
    /// final user namespace and have its final privileges by then.
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<Ids> = OnceLock::new();
        CURRENT.get_or_init(|| {
            // Without `/proc`, or with a kernel without user namespaces, all IDs exist.
            let read = |name| std::fs::read_to_string(name).unwrap_or_default();
            let (users, groups) = (read("/proc/self/uid_map"), read("/proc/self/gid_map"));
            Self::parse(&users, &groups).with(Privileges::current())
        })
    }

    fn parse(users: &str, groups: &str) -> Self {
        let ranges = |text: &str| {
            let ranges: Vec<Range> = text.lines().filter_map(range).collect();
            if ranges.is_empty() { vec![ALL] } else { ranges }
        };
        Self { users: ranges(users), groups: ranges(groups), privileges: Privileges::All }
    }

    /// Returns the IDs that a process with these privileges can assign.
    fn with(self, privileges: Privileges) -> Self {
        match privileges {
            Privileges::None { own } => {
                Self { users: vec![(0, own.uid, 1)], groups: vec![(0, own.gid, 1)], privileges }
            }
            _ => Self { privileges, ..self },
        }
    }

    /// Returns `true` if some IDs can't be assigned: in a user namespace, or without privileges.
    /// There, overlayfs keeps its marks in `user.overlay.*`.
    pub fn is_namespace(&self) -> bool {
        self.users != [ALL]
    }

    /// Returns `true` if the process has no privileges over files. All files then belong to its own
    /// user and group, and modes that it can't do with are recorded.
    pub fn is_unprivileged(&self) -> bool {
        matches!(self.privileges, Privileges::None { .. })
    }

    /// Returns `true` if files may have records that count.
    pub fn has_records(&self) -> bool {
        self.is_namespace() || self.records_devices()
    }

    /// Returns `true` if devices and extended attributes are recorded when the kernel refuses them.
    pub fn records_devices(&self) -> bool {
        self.privileges != Privileges::All
    }

    /// Returns `true` if devices are neither created nor recorded.
    pub(crate) fn leaves_devices_out(&self) -> bool {
        self.is_namespace() && !self.records_devices()
    }

    /// Returns the owner that a file of `owner` has in images. The process's own user stands for root
    /// if it has no privileges, and any group of its files for root's: it depends on the directory.
    pub fn shown(&self, owner: Owner) -> Owner {
        match self.privileges {
            Privileges::None { own } if owner.uid == own.uid => Owner::default(),
            _ => owner,
        }
    }

    /// Returns `true` if only a single user ID exists.
    pub fn is_single(&self) -> bool {
        matches!(self.users.as_slice(), [(_, _, 1)])
    }

    /// Returns `true` if the user ID `uid` exists.
    pub fn has_user(&self, uid: u32) -> bool {
        contains(&self.users, uid)
    }

    /// Returns `true` if the group ID `gid` exists.
    pub fn has_group(&self, gid: u32) -> bool {
        contains(&self.groups, gid)
    }

    /// Returns a description of the IDs on the disk. Files created with a different mapping have
    /// different owners.
    pub fn on_disk(&self) -> String {
        let text = |ranges: &[Range]| {
            let ranges =
                ranges.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}"));
            ranges.collect::<Vec<_>>().join(", ")
        };
        let also = match self.privileges {
            Privileges::None { .. } => "; modes recorded",
            // Root's marks of overlayfs are in attributes that this process can't read.
            Privileges::Files if !self.is_namespace() => "; no trusted attributes",
            _ => "",
        };
        format!("users {}; groups {}{also}\n", text(&self.users), text(&self.groups))
    }

    /// Returns the owner that a file of `owner` can have: root replaces a user or group that
    /// doesn't exist.
    pub fn possible(&self, owner: Owner) -> Owner {
        Owner {
            uid: if self.has_user(owner.uid) { owner.uid } else { 0 },
            gid: if self.has_group(owner.gid) { owner.gid } else { 0 },
        }
    }

    /// Returns the recorded owner of a file that belongs to `actual` and has the record `value`, if
    /// the record is valid.
    pub(crate) fn recorded(&self, actual: Owner, value: &[u8]) -> Option<Owner> {
        let owner = records::parse_owner(value)?;
        let counts = owner != actual && self.possible(owner) == actual;
        (self.is_namespace() && counts).then_some(owner)
    }
}

fn range(line: &str) -> Option<Range> {
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

fn contains(ranges: &[Range], id: u32) -> bool {
    ranges.iter().any(|(first, _, count)| id.checked_sub(*first).is_some_and(|at| at < *count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "         0       1000          1\n         1     100000      65536\n";

    fn owner(uid: u32, gid: u32) -> Owner {
        Owner { uid, gid }
    }

    #[test]
    fn ranges_are_read() {
        let ids = Ids::parse(MAP, "0 1000 1\n");
        assert!(ids.is_namespace() && !ids.is_single());
        assert!(ids.has_user(0) && ids.has_user(65536) && !ids.has_user(65537));
        assert!(ids.has_group(0) && !ids.has_group(1));
        assert_eq!(ids.on_disk(), "users 0 1000 1, 1 100000 65536; groups 0 1000 1\n");
        for all in [Ids::parse("0 0 4294967295\n", "0 0 4294967295\n"), Ids::parse("", "")] {
            assert!(!all.is_namespace() && all.has_user(u32::MAX - 1) && all.has_group(7));
        }
        assert!(Ids::parse("0 5 1", "0 5 1").is_single());
    }

    #[test]
    fn a_process_without_privileges_has_one_id_that_stands_for_roots() {
        let own = owner(1000, 100);
        let ids = Ids::parse("0 0 4294967295\n", "").with(Privileges::None { own });
        assert!(ids.is_namespace() && ids.is_single() && ids.is_unprivileged());
        assert!(ids.has_records() && ids.records_devices());
        assert_eq!(ids.shown(own), owner(0, 0));
        assert_eq!(ids.shown(owner(1000, 7)), owner(0, 0));
        assert_eq!(ids.shown(owner(5, 100)), owner(5, 100));
        assert_eq!(ids.possible(owner(33, 44)), owner(0, 0));
        assert_eq!(ids.recorded(owner(0, 0), b"1000:100"), Some(own));
        assert_eq!(ids.on_disk(), "users 0 1000 1; groups 0 100 1; modes recorded\n");
        let container = Ids::parse("0 0 4294967295\n", "").with(Privileges::Files);
        assert!(!container.is_namespace() && container.has_records());
        assert!(!container.is_unprivileged() && container.has_user(7));
        assert_eq!(container.shown(own), own);
        assert!(container.on_disk().ends_with("; no trusted attributes\n"));
        let remapped = Ids::parse(MAP, MAP).with(Privileges::Files);
        assert_eq!(remapped.on_disk(), Ids::parse(MAP, MAP).on_disk());
    }

    #[test]
    fn records_count_while_the_owner_is_what_it_was() {
        let ids = Ids::parse(MAP, MAP);
        assert_eq!(ids.possible(owner(70_000, 5)), owner(0, 5));
        assert_eq!(ids.recorded(owner(0, 5), b"70000:5"), Some(owner(70_000, 5)));
        assert_eq!(ids.recorded(owner(9, 5), b"70000:5"), None);
        assert_eq!(ids.recorded(owner(0, 5), b"8:5"), None, "it could have been given");
        for garbage in [&b"x:1"[..], b"1", b"", b"1:", b"\xff:1", b"99999999999:1"] {
            assert_eq!(ids.recorded(owner(0, 0), garbage), None);
        }
        let all = Ids::parse("", "");
        assert_eq!(all.recorded(owner(0, 0), b"8:5"), None);
    }
}
