//! Changes of owners, including owners that must be recorded; see [`mod@crate::ids`].

use std::io::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Uid, XattrFlags, chownat, fchown, fremovexattr, fsetxattr, lremovexattr,
    lsetxattr,
};
use rustix::io::Errno;

use crate::ids::Ids;
use crate::metadata::{FileKind, Owner};
use crate::pack::CAPABILITY;
use crate::{names, records};

/// Changes the owner of an open file or directory to `owner`.
pub(crate) fn give(fd: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
    let (uid, gid) = possible(owner)?;
    if Ids::current().is_unprivileged() {
        // The kernel removes the capability itself when the owner changes.
        tolerate(fremovexattr(fd, names::path(&records::xattr(CAPABILITY))))?;
    } else {
        fchown(fd, Some(uid), Some(gid))?;
    }
    match note(owner) {
        Note::Nothing => Ok(()),
        Note::NoRecord => tolerate(fremovexattr(fd, names::path(records::OWNER))),
        Note::Record(value) => {
            fsetxattr(fd, names::path(records::OWNER), value.as_bytes(), XattrFlags::empty())
        }
    }
}

/// Changes the owner of a directory's entry to `owner`, without following a link. Types other than
/// files and directories can't have records.
pub(crate) fn give_entry(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: FileKind,
    owner: Owner,
) -> Result<(), Errno> {
    let (uid, gid) = possible(owner)?;
    if records::has_entry_record(kind) {
        return records::set_entry_owner(dir, name, owner);
    }
    if !Ids::current().is_unprivileged() {
        chownat(dir, names::path(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if !matches!(kind, FileKind::File | FileKind::Directory) {
        return Ok(());
    }
    // Before Linux 6.13, no such call accepts a directory.
    let mut path = Vec::with_capacity(32 + name.len());
    // Writing to a vector can't fail.
    let _ = write!(path, "/proc/self/fd/{}/", dir.as_raw_fd());
    path.extend_from_slice(name);
    match note(owner) {
        Note::Nothing => Ok(()),
        Note::NoRecord => tolerate(lremovexattr(path.as_slice(), names::path(records::OWNER))),
        Note::Record(value) => {
            let value = value.as_bytes();
            lsetxattr(path.as_slice(), names::path(records::OWNER), value, XattrFlags::empty())
        }
    }
}

/// The change to a file's record.
enum Note {
    /// No change, since this process keeps no records.
    Nothing,
    /// The removal of a record.
    NoRecord,
    /// The record of the intended owner.
    Record(String),
}

fn note(owner: Owner) -> Note {
    let ids = Ids::current();
    if !ids.is_namespace() {
        Note::Nothing
    } else if ids.possible(owner) == owner {
        Note::NoRecord
    } else {
        Note::Record(records::owner(owner))
    }
}

/// Returns the IDs that a file gets. Rejects the highest ID, which means "unchanged" to the kernel.
fn possible(owner: Owner) -> Result<(Uid, Gid), Errno> {
    if owner.uid == u32::MAX || owner.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    let owner = Ids::current().possible(owner);
    Ok((Uid::from_raw(owner.uid), Gid::from_raw(owner.gid)))
}

/// Ignores the error that there was no record.
pub(crate) fn tolerate(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}
