//! Records: attributes that describe what a file should be.
//!
//! Without root's privileges, the kernel refuses some properties of files. kiln then stores them in
//! extended attributes of the file, in the namespace that every user may write:
//!
//! | attribute | value | counts |
//! | --- | --- | --- |
//! | `user.kiln.owner` | `UID:GID` of the intended owner | while the file has the owner that replaces it |
//! | `user.kiln.mode` | the intended mode in octal, with setuid, setgid and sticky | while the file has the mode that replaces it |
//! | `user.kiln.device` | `c:MAJOR:MINOR` or `b:MAJOR:MINOR` | on an empty regular file, which stands for the device |
//! | `user.kiln.xattr.NAME` | the value of the attribute `NAME` | always |
//!
//! All functions of this crate report what the records say, and layers are packed from that. The
//! records themselves never enter or leave a tree.
//!
//! Owners are recorded in user namespaces too. The other records exist only where kiln has neither
//! root's privileges nor a user namespace. Modes are recorded for processes that the kernel holds to
//! the modes of their own files: such a process could not open a file of mode 000 again. On the
//! disk, its files have at least mode 0600 and its directories 0700.
//!
//! Symbolic links and fifos can't have such attributes. Their directory records their owners:
//! `user.kiln.entries`, see [`set_entry_owner`].

mod entries;

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::attributes::Xattr;
use crate::ids::Ids;
use crate::metadata::{FileKind, Metadata, Owner};

pub use entries::{entry_owner, set_entry_owner};

/// The prefix of all records.
pub const PREFIX: &[u8] = b"user.kiln.";

/// The record of the intended owner.
pub const OWNER: &[u8] = b"user.kiln.owner";

/// The record of the intended mode.
pub const MODE: &[u8] = b"user.kiln.mode";

/// The record of the device that a file stands for.
pub const DEVICE: &[u8] = b"user.kiln.device";

/// The record of the owners of a directory's links and fifos.
pub const ENTRIES: &[u8] = b"user.kiln.entries";

/// The prefix of the records of extended attributes.
pub const XATTR: &[u8] = b"user.kiln.xattr.";

/// The setuid and setgid bits. The kernel may clear them.
const SET_ID: u32 = 0o6000;

/// Returns the record of an owner.
pub fn owner(owner: Owner) -> String {
    format!("{}:{}", owner.uid, owner.gid)
}

/// Parses the record of an owner.
pub fn parse_owner(value: &[u8]) -> Option<Owner> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some(Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

/// Returns the record of a mode.
pub fn mode(mode: u32) -> String {
    format!("{:o}", mode & 0o7777)
}

/// Parses the record of a mode.
pub fn parse_mode(value: &[u8]) -> Option<u32> {
    let mode = u32::from_str_radix(std::str::from_utf8(value).ok()?, 8).ok()?;
    (mode <= 0o7777).then_some(mode)
}

/// Returns the record of a device; `None` for other types.
pub fn device(kind: FileKind) -> Option<String> {
    match kind {
        FileKind::CharDevice { major, minor } => Some(format!("c:{major}:{minor}")),
        FileKind::BlockDevice { major, minor } => Some(format!("b:{major}:{minor}")),
        _ => None,
    }
}

/// Parses the record of a device.
pub fn parse_device(value: &[u8]) -> Option<FileKind> {
    let mut fields = std::str::from_utf8(value).ok()?.splitn(3, ':');
    let kind = fields.next()?;
    let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    match kind {
        "c" => Some(FileKind::CharDevice { major, minor }),
        "b" => Some(FileKind::BlockDevice { major, minor }),
        _ => None,
    }
}

/// Returns the name of the record of an extended attribute.
pub fn xattr(name: &[u8]) -> Vec<u8> {
    [XATTR, name].concat()
}

/// Returns the mode that a file or directory of an unprivileged process has on the disk.
pub fn mode_on_disk(mode: u32, is_dir: bool) -> u32 {
    (mode & 0o7777) | if is_dir { 0o700 } else { 0o600 }
}

/// Returns `true` if a record of the mode `recorded` counts for a file with the mode `actual`.
pub fn counts(recorded: u32, actual: u32, is_dir: bool) -> bool {
    let expected = mode_on_disk(recorded, is_dir);
    actual | (expected & SET_ID) == expected
}

/// Moves the records out of a file's attributes, and changes its metadata and the attributes to what
/// they say. Does nothing but remove them if `counts` is `false`, or if this process has no records.
pub fn resolve(metadata: &mut Metadata, xattrs: &mut Vec<Xattr>, counts: bool) {
    if !xattrs.iter().any(|(name, _)| name.starts_with(PREFIX)) {
        return;
    }
    resolve_with(Ids::current(), metadata, xattrs, counts);
}

fn resolve_with(ids: &Ids, metadata: &mut Metadata, xattrs: &mut Vec<Xattr>, counts: bool) {
    let all = std::mem::take(xattrs);
    let (records, mut others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(name, _)| name.starts_with(PREFIX));
    if counts && ids.has_records() {
        for (name, value) in records {
            apply(ids, metadata, &mut others, &name, value);
        }
        others.sort_unstable();
    }
    *xattrs = others;
}

/// Changes the metadata of a directory's entry to what the record of the directory says, if the
/// entry can't have records of its own.
pub(crate) fn resolve_entry(
    dir: BorrowedFd<'_>,
    name: &[u8],
    metadata: &mut Metadata,
) -> Result<(), Errno> {
    if has_entry_record(metadata.kind) {
        metadata.owner = entry_owner(dir, name)?.unwrap_or(metadata.owner);
    }
    Ok(())
}

/// Returns `true` if the owner of such an entry is recorded in its directory.
pub(crate) fn has_entry_record(kind: FileKind) -> bool {
    matches!(kind, FileKind::Symlink | FileKind::Fifo) && Ids::current().is_unprivileged()
}

/// Returns a file's extended attributes without records, and with the attributes that are recorded.
pub(crate) fn resolve_xattrs(mut xattrs: Vec<Xattr>) -> Vec<Xattr> {
    resolve(&mut Metadata::nothing(FileKind::File), &mut xattrs, true);
    xattrs
}

/// Applies one record.
fn apply(ids: &Ids, metadata: &mut Metadata, xattrs: &mut Vec<Xattr>, name: &[u8], value: Vec<u8>) {
    if name == OWNER {
        metadata.owner = ids.recorded(metadata.owner, &value).unwrap_or(metadata.owner);
    } else if name == MODE && ids.is_unprivileged() {
        let is_dir = metadata.is_dir();
        let recorded = parse_mode(&value).filter(|mode| counts(*mode, metadata.mode, is_dir));
        metadata.mode = recorded.unwrap_or(metadata.mode);
    } else if name == DEVICE && ids.records_devices() {
        let stands_for = parse_device(&value).filter(|_| metadata.is_file() && metadata.size == 0);
        metadata.kind = stands_for.unwrap_or(metadata.kind);
    } else if let Some(name) = name.strip_prefix(XATTR)
        && ids.records_devices()
        && !xattrs.iter().any(|(known, _)| known == name)
    {
        xattrs.push((name.to_vec(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let found = Owner { uid: 70_000, gid: 5 };
        assert_eq!(parse_owner(owner(found).as_bytes()), Some(found));
        assert_eq!((mode(0o4711), parse_mode(b"4711")), ("4711".to_owned(), Some(0o4711)));
        let null = FileKind::CharDevice { major: 1, minor: 3 };
        let disk = FileKind::BlockDevice { major: 8, minor: 0 };
        assert_eq!(device(null).as_deref(), Some("c:1:3"));
        assert_eq!(parse_device(b"b:8:0"), Some(disk));
        assert_eq!(device(FileKind::Fifo), None);
        for garbage in [&b""[..], b"8", b"10000", b"-1", b"\xff"] {
            assert_eq!(parse_mode(garbage), None);
        }
        for garbage in [&b""[..], b"c:1", b"p:1:3", b"c:1:3:4", b"c::3"] {
            assert_eq!(parse_device(garbage), None);
        }
    }

    #[test]
    fn modes_count_while_the_file_has_the_mode_that_replaces_them() {
        assert_eq!((mode_on_disk(0o444, false), mode_on_disk(0o555, true)), (0o644, 0o755));
        assert!(counts(0o444, 0o644, false));
        assert!(counts(0, 0o700, true));
        assert!(!counts(0o444, 0o600, false), "the mode was changed");
        assert!(!counts(0o444, 0o755, false), "the mode was changed");
        assert!(counts(0o4755, 0o755, false), "the kernel has cleared setuid");
        assert!(!counts(0o755, 0o4755, false), "setuid was added");
    }
}
