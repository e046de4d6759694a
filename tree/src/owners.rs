//! Giving files to owners, those that aren't there too; see [`mod@crate::ids`].

use std::io::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Uid, XattrFlags, chownat, fchown, fremovexattr, fsetxattr, lremovexattr,
    lsetxattr,
};
use rustix::io::Errno;

use crate::ids::{Ids, RECORD, record};
use crate::metadata::{FileKind, Owner};
use crate::names;

/// Gives an open file or directory to `owner`.
pub(crate) fn give(fd: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
    let (uid, gid) = possible(owner)?;
    fchown(fd, Some(uid), Some(gid))?;
    match note(owner) {
        Note::Nothing => Ok(()),
        Note::NoRecord => tolerate(fremovexattr(fd, names::path(RECORD))),
        Note::Record(value) => {
            fsetxattr(fd, names::path(RECORD), value.as_bytes(), XattrFlags::empty())
        }
    }
}

/// Gives a directory's entry to `owner`, never following a link. Nothing is recorded of what is
/// neither a file nor a directory: such an attribute can't be had there.
pub(crate) fn give_entry(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: FileKind,
    owner: Owner,
) -> Result<(), Errno> {
    let (uid, gid) = possible(owner)?;
    chownat(dir, names::path(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(kind, FileKind::File | FileKind::Directory) {
        return Ok(());
    }
    // There is no such call relative to a directory before Linux 6.13.
    let mut path = Vec::with_capacity(32 + name.len());
    // Writing to a vector can't fail.
    let _ = write!(path, "/proc/self/fd/{}/", dir.as_raw_fd());
    path.extend_from_slice(name);
    match note(owner) {
        Note::Nothing => Ok(()),
        Note::NoRecord => tolerate(lremovexattr(path.as_slice(), names::path(RECORD))),
        Note::Record(value) => {
            lsetxattr(path.as_slice(), names::path(RECORD), value.as_bytes(), XattrFlags::empty())
        }
    }
}

/// What is to be noted besides the owner that the file gets.
enum Note {
    /// Nothing, since nothing ever is.
    Nothing,
    /// That nothing is recorded any more.
    NoRecord,
    /// Whose it is to be.
    Record(String),
}

fn note(owner: Owner) -> Note {
    let ids = Ids::current();
    if !ids.is_namespace() {
        Note::Nothing
    } else if ids.possible(owner) == owner {
        Note::NoRecord
    } else {
        Note::Record(record(owner))
    }
}

/// Returns the ids that a file gets as the kernel takes them; the highest, which means "as it was",
/// is refused.
fn possible(owner: Owner) -> Result<(Uid, Gid), Errno> {
    if owner.uid == u32::MAX || owner.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    let owner = Ids::current().possible(owner);
    Ok((Uid::from_raw(owner.uid), Gid::from_raw(owner.gid)))
}

/// Makes it fine that there was no record.
fn tolerate(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}
