//! Owners, modes, times and extended attributes of files.

use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, Timestamps, XattrFlags, fgetxattr, flistxattr, fsetxattr, futimens, utimensat,
};
use rustix::io::Errno;

use crate::ids::Ids;
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::{names, owners, permissions, records};

/// The attributes of a new file. `None` keeps the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The permission bits, including setuid, setgid and sticky.
    pub mode: Option<u32>,
    /// The user ID and group ID of the owner.
    pub owner: Option<Owner>,
    /// The time of the last modification.
    pub mtime: Option<Timestamp>,
}

/// The maximal size in bytes of an extended attribute on Linux, and of the list of their names.
const LARGEST_XATTR: usize = 64 * 1024;

/// An extended attribute: its full name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

impl Attributes {
    /// Returns the attributes that differ from those of the new file `made`.
    pub(crate) fn beyond(&self, made: &Metadata) -> Self {
        Self {
            mode: self.mode.filter(|mode| *mode != made.mode),
            owner: self.owner.filter(|owner| *owner != made.owner),
            mtime: self.mtime,
        }
    }

    /// Applies the attributes to an open file or directory. The owner is set first, because
    /// changing the owner clears setuid and setgid.
    pub(crate) fn apply_to_fd(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        if let Some(owner) = self.owner {
            owners::give(fd, owner)?;
        }
        if let Some(mode) = self.mode {
            permissions::set(fd, mode)?;
        }
        if let Some(mtime) = self.mtime {
            futimens(fd, &times(mtime))?;
        }
        Ok(())
    }

    /// Applies the attributes to an entry of a directory, without following a link. A link's mode
    /// is ignored.
    pub(crate) fn apply_to_entry(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        kind: FileKind,
    ) -> Result<(), Errno> {
        let path = names::path(name);
        if let Some(owner) = self.owner {
            owners::give_entry(dir, name, kind, owner)?;
        }
        if let Some(mode) = self.mode
            && kind != FileKind::Symlink
        {
            permissions::set_entry(dir, name, kind, mode)?;
        }
        if let Some(mtime) = self.mtime {
            utimensat(dir, path, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

fn times(mtime: Timestamp) -> Timestamps {
    Timestamps { last_access: mtime.to_timespec(), last_modification: mtime.to_timespec() }
}

/// Calls a system call that fills a buffer, first with a small one. `None` means no data.
fn fill(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Option<Vec<u8>>, Errno> {
    let mut small = [0_u8; 512];
    match call(&mut small) {
        Ok(length) => Ok(Some(small[..length].to_vec())),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LARGEST_XATTR];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn collect(
    list: Option<Vec<u8>>,
    get: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, Errno>,
) -> Result<Vec<Xattr>, Errno> {
    let list = list.unwrap_or_default();
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Some(value) = get(name)? {
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns an open file's extended attributes, sorted by name. The list is empty if the file system
/// doesn't support them.
pub(crate) fn xattrs(fd: BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno> {
    let list = fill(|buffer| flistxattr(fd, buffer))?;
    collect(list, |name| fill(|buffer| fgetxattr(fd, names::path(name), buffer)))
}

/// Sets an extended attribute of an open file, or records it.
pub(crate) fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    match fsetxattr(fd, names::path(name), value, XattrFlags::empty()) {
        Err(Errno::PERM) if Ids::current().records_devices() && !name.starts_with(b"user.") => {
            fsetxattr(fd, names::path(&records::xattr(name)), value, XattrFlags::empty())
        }
        set => set,
    }
}

/// Returns `true` for attributes of overlayfs and for records. These never enter or leave a tree as
/// ordinary attributes.
pub(crate) fn is_reserved_xattr(name: &[u8]) -> bool {
    let prefixes = [&b"trusted.overlay."[..], b"user.overlay.", records::PREFIX];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}
