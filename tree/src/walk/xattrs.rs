//! Reading of the extended attributes of entries that are not open.

use std::io::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::Errno;

use crate::attributes::Xattr;
use crate::metadata::{FileKind, Metadata};
use crate::names;

/// The maximal size in bytes of an extended attribute on Linux, and of the list of their names.
const LARGEST: usize = 64 * 1024;

/// Returns the attributes of `name` in `dir`, sorted by name. Links are not followed. The list is
/// empty if the file system doesn't support attributes.
///
/// Before Linux 6.13, no such call accepts a directory. But the descriptor's entry in `/proc` leads
/// to the directory, and only `name` is looked up from there. Unlike a descriptor of the file, this
/// also works for links and for files that can't be opened.
pub(crate) fn read(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let mut path = Vec::with_capacity(32 + name.len());
    // Writing to a vector can't fail.
    let _ = write!(path, "/proc/self/fd/{}/", dir.as_raw_fd());
    path.extend_from_slice(name);
    let list = filled(|buffer| llistxattr(path.as_slice(), buffer));
    let list = names_of(list, || Metadata::of_entry(dir, name).map(|metadata| metadata.kind))?;
    values(&list, |name, buffer| lgetxattr(path.as_slice(), names::path(name), buffer))
}

/// Returns the attributes of a file or directory that was opened with `O_PATH`, sorted by name. The
/// list is empty if the file system doesn't support attributes.
pub(crate) fn of_path(fd: BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let list = match filled(|buffer| listxattr(path.as_str(), buffer)) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        list => list?,
    };
    values(&list, |name, buffer| getxattr(path.as_str(), names::path(name), buffer))
}

/// Reads the values of a list of attributes.
fn values(
    list: &[u8],
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<Xattr>, Errno> {
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match filled(|buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // `EOVERFLOW` means capabilities that are only valid in another user namespace.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::OVERFLOW) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the names in a file's list of attributes. The list is empty if the file system doesn't
/// support attributes.
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

/// Calls `read` with a buffer that is large enough, and returns the data.
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
