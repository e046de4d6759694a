//! Reading extended attributes of entries that are not open.

use std::io::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::attributes::Xattr;
use crate::metadata::{FileKind, Metadata};
use crate::names;

/// The most bytes that Linux keeps in an extended attribute, and in a list of their names.
const LARGEST: usize = 64 * 1024;

/// Returns the attributes of `name` in `dir`, sorted by name; links are not followed. None where
/// the file system has none.
///
/// There is no such call relative to a directory before Linux 6.13, but `/proc` leads to where the
/// descriptor leads, and only `name` is looked up from there. Unlike through a descriptor of the
/// file, this works on links and on what can't be opened.
pub(crate) fn read(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let mut path = Vec::with_capacity(32 + name.len());
    // Writing to a vector can't fail.
    let _ = write!(path, "/proc/self/fd/{}/", dir.as_raw_fd());
    path.extend_from_slice(name);
    let list = filled(|buffer| llistxattr(path.as_slice(), buffer));
    let list = names_of(list, || Metadata::of_entry(dir, name).map(|metadata| metadata.kind))?;
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match filled(|buffer| lgetxattr(path.as_slice(), names::path(name), buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // The last: capabilities that count in another user namespace only.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::OVERFLOW) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the names that a file's list of attributes has; none where the file system has none.
fn names_of(
    list: Result<Vec<u8>, Errno>,
    kind: impl FnOnce() -> Result<FileKind, Errno>,
) -> Result<Vec<u8>, Errno> {
    match list {
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        // NFS grants access to the attributes of files and directories alone.
        Err(Errno::ACCESS) if !matches!(kind()?, FileKind::File | FileKind::Directory) => {
            Ok(Vec::new())
        }
        list => list,
    }
}

/// Returns what `read` puts into a buffer that is large enough.
fn filled(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0_u8; 512];
    match read(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LARGEST];
            let length = read(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_whose_attributes_are_refused_have_none() {
        let refused = |kind| names_of(Err(Errno::ACCESS), || Ok(kind));
        assert_eq!(refused(FileKind::Symlink), Ok(Vec::new()));
        assert_eq!(refused(FileKind::Fifo), Ok(Vec::new()));
        for kind in [FileKind::File, FileKind::Directory] {
            assert_eq!(refused(kind), Err(Errno::ACCESS));
        }
        let unknown = || Err(Errno::NOENT);
        assert_eq!(names_of(Err(Errno::ACCESS), unknown), Err(Errno::NOENT));
        assert_eq!(names_of(Err(Errno::OPNOTSUPP), unknown), Ok(Vec::new()));
        assert_eq!(names_of(Ok(b"user.a\0".to_vec()), unknown), Ok(b"user.a\0".to_vec()));
    }
}
