//! The conversion of an archive's entries: contents, attributes and times.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::attributes::{self, Attributes};
use crate::metadata::Timestamp;
use crate::tar_reader::{TarEntry, TarReader};
use crate::{edit, names};

/// Returns a time that all file systems can store. The bounds are containerd's: 1970 and 2262.
pub(crate) fn bounded_time(time: Timestamp) -> Timestamp {
    const LATEST: i64 = i64::MAX / 1_000_000_000;
    if (0..LATEST).contains(&time.seconds) { time } else { Timestamp::default() }
}

/// Copies bytes of the archive into a file that has nothing there. Where a whole buffer is zeros the file
/// keeps a hole: archives have zeros in place of the holes of the files that they were made of, which
/// may be larger than any disk.
pub(super) fn copy_at(
    file: &File,
    offset: u64,
    length: u64,
    reader: &mut TarReader<'_>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let (mut done, mut ends_in_hole) = (0, false);
    while done < length {
        let wanted = buffer.len().min(usize::try_from(length - done).unwrap_or(usize::MAX));
        reader.read_exact(&mut buffer[..wanted])?;
        ends_in_hole = wanted == buffer.len() && is_zero(buffer);
        if !ends_in_hole {
            file.write_all_at(&buffer[..wanted], offset + done)?;
        }
        done += wanted as u64;
    }
    if ends_in_hole { file.set_len(offset + length) } else { Ok(()) }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|part| part == &ZEROS[..part.len()])
}

/// Sets owner, extended attributes, mode and time of an open file or directory, in this order:
/// changing the owner clears `security.capability` and the setuid bit.
pub(super) fn finish_open(
    fd: BorrowedFd<'_>,
    entry: &TarEntry,
    attributes: &Attributes,
) -> Result<(), Errno> {
    let owner = Attributes { owner: attributes.owner, ..Attributes::default() };
    owner.apply_to_fd(fd)?;
    for (name, value) in &entry.xattrs {
        // These attributes have a meaning for the host's kernel, not for the image.
        if name.starts_with(b"trusted.") || attributes::is_reserved_xattr(name) {
            continue;
        }
        match attributes::set_xattr(fd, name, value) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            // Only some kernels and users may write these namespaces.
            Err(Errno::PERM) if !name.starts_with(b"security.capability") => {
                let name = String::from_utf8_lossy(name);
                tracing::debug!(%name, "extended attribute left out");
            }
            Err(errno) => return Err(errno),
        }
    }
    Attributes { owner: None, ..*attributes }.apply_to_fd(fd)
}

/// Creates a directory, or uses the existing one, and applies the entry's attributes.
pub(super) fn make_directory(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &TarEntry,
    attributes: &Attributes,
) -> Result<(), Errno> {
    edit::make_dir(dir, name, &Attributes { mode: Some(0o700), ..Attributes::default() })?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(dir, names::path(name), flags, Mode::empty())?;
    finish_open(fd.as_fd(), entry, attributes)
}
