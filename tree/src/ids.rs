//! The user and group IDs that this process can assign to files.
//!
//! The root user of the machine can assign all IDs. A user namespace has as many as its creator
//! granted: root (the creator's own ID outside) and usually 65,536 more, or only root.
//!
//! An owner that doesn't exist in the namespace is *recorded*. The file then belongs to root, or to
//! the user or group that does exist, and the attribute `user.kiln.owner` stores the intended
//! owner. The functions of this crate report the recorded owner, and the layer packed from the tree
//! has it too. A record is valid as long as the file still has the owner that was set together with
//! the record. Links, fifos and devices can't have such attributes, and belong to root. If all IDs
//! exist, no owner is recorded, and records are ignored.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::sync::OnceLock;

use crate::metadata::Owner;

/// The attribute that stores the intended owner of a file.
pub(crate) const RECORD: &[u8] = b"user.kiln.owner";

/// The range of a process outside of any user namespace.
const ALL: (u32, u32, u32) = (0, 0, u32::MAX);

/// The user and group IDs that exist in a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// A range of IDs: the first inside the namespace, the first outside, and their number.
type Range = (u32, u32, u32);

impl Ids {
    /// Returns the IDs of this process. The first call looks them up, so the process must be in its
    /// final user namespace by then.
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<Ids> = OnceLock::new();
        CURRENT.get_or_init(|| {
            // Without `/proc`, or with a kernel without user namespaces, all IDs exist.
            let read = |name| std::fs::read_to_string(name).unwrap_or_default();
            Self::parse(&read("/proc/self/uid_map"), &read("/proc/self/gid_map"))
        })
    }

    fn parse(users: &str, groups: &str) -> Self {
        let ranges = |text: &str| {
            let ranges: Vec<Range> = text.lines().filter_map(range).collect();
            if ranges.is_empty() { vec![ALL] } else { ranges }
        };
        Self { users: ranges(users), groups: ranges(groups) }
    }

    /// Returns `true` if these are the IDs of a user namespace. There, devices can't be created,
    /// and overlayfs keeps its marks in `user.overlay.*`.
    pub fn is_namespace(&self) -> bool {
        self.users != [ALL]
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
        format!("users {}; groups {}\n", text(&self.users), text(&self.groups))
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
        let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
        let owner = Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? };
        let counts = owner != actual && self.possible(owner) == actual;
        (self.is_namespace() && counts).then_some(owner)
    }
}

/// Returns the record for the intended owner `owner`.
pub(crate) fn record(owner: Owner) -> String {
    format!("{}:{}", owner.uid, owner.gid)
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
