//! The comparison of two entries.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use kiln_oci::{Digest, DigestHasher};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use crate::ids::Ids;
use crate::inspected::open_inspected;
use crate::metadata::{FileKind, Metadata};
use crate::names;
use crate::pack::{CAPABILITY, overlay};
use crate::records;
use crate::walk::xattrs;

/// The number of bytes that are read of each file at a time.
const PIECE: usize = 64 * 1024;

/// An entry of an open directory, with its metadata.
#[derive(Clone, Debug)]
pub struct Located<'a> {
    dir: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
    /// The entry's metadata, as its records say.
    pub metadata: Metadata,
}

impl<'a> Located<'a> {
    /// Looks up `name` in a directory, without following a link. Returns `None` if it doesn't
    /// exist.
    ///
    /// # Errors
    /// Fails if the metadata can't be read.
    pub fn look(dir: BorrowedFd<'a>, name: &'a [u8]) -> Result<Option<Self>, Errno> {
        let mut metadata = match Metadata::of_entry(dir, name) {
            Ok(metadata) => metadata,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if Ids::current().has_records() {
            records::resolve(&mut metadata, &mut xattrs::read(dir, name)?, true);
            records::resolve_entry(dir, name, &mut metadata)?;
        }
        Ok(Some(Self { dir, name, metadata }))
    }

    /// Returns `true` if overlayfs interprets the entry as a deletion.
    pub(super) fn is_whiteout(&self) -> bool {
        self.metadata.kind == (FileKind::CharDevice { major: 0, minor: 0 })
    }

    /// Returns the name whose deletion the entry marks, if it is a file in place of overlayfs's
    /// device.
    pub(super) fn hides(&self) -> Option<&'a [u8]> {
        let is_nothing = (self.metadata.mode, self.metadata.size) == (0, 0);
        let hidden = self.name.strip_prefix(overlay::FILE_MARK).filter(|hidden| !hidden.is_empty());
        hidden.filter(|_| self.metadata.is_file() && is_nothing)
    }

    /// Returns `true` if overlayfs interprets the entry as a directory that hides the one below.
    pub(super) fn is_opaque(&self) -> Result<bool, Errno> {
        let found = xattrs::read(self.dir, self.name)?;
        Ok(found.iter().any(|(name, value)| {
            (name == b"trusted.overlay.opaque" || name == b"user.overlay.opaque") && value == b"y"
        }))
    }

    /// Returns the digest of the content of a file, or of the target of a link. Returns `None` for
    /// other types.
    pub(crate) fn content(&self) -> Result<Option<Digest>, Errno> {
        match self.metadata.kind {
            FileKind::Symlink => Ok(Some(Digest::of(&self.target()?))),
            FileKind::File => digest_of(&self.open()?).map(Some),
            _ => Ok(None),
        }
    }

    pub(crate) fn capability(&self) -> Result<Vec<u8>, Errno> {
        let found = records::resolve_xattrs(xattrs::read(self.dir, self.name)?);
        let capability = found.into_iter().find(|(name, _)| name == CAPABILITY);
        Ok(capability.map(|(_, value)| value).unwrap_or_default())
    }

    fn target(&self) -> Result<Vec<u8>, Errno> {
        let size = self.metadata.size as usize;
        Ok(readlinkat(self.dir, self.name, Vec::with_capacity(size + 1))?.into_bytes())
    }

    fn open(&self) -> Result<File, Errno> {
        let path = names::path(self.name);
        let find = |flags| openat(self.dir, path, flags | OFlags::NOFOLLOW, Mode::empty());
        let opened = open_inspected(OFlags::RDONLY, FileKind::is_file, find)?;
        // Another entry has replaced the file since its metadata was read.
        opened.map(File::from).ok_or(Errno::STALE)
    }
}

/// Returns `true` if `new` equals `old`: they have the same type, mode, owner, device number and
/// file capability and, unless they are directories, the same size and time. Times without a
/// fraction of a second, such as those from archives, prove nothing. In that case the contents are
/// compared.
///
/// # Errors
/// Fails if an entry can't be read.
pub fn is_unchanged(old: &Located<'_>, new: &Located<'_>) -> Result<bool, Errno> {
    let (before, after) = (&old.metadata, &new.metadata);
    if !has_same_attributes(before, after) {
        return Ok(false);
    }
    if before.is_same_file(after) {
        return Ok(true);
    }
    if old.capability()? != new.capability()? {
        return Ok(false);
    }
    if before.is_dir() || after.mtime.nanoseconds != 0 {
        return Ok(true);
    }
    match after.kind {
        FileKind::Symlink => Ok(old.target()? == new.target()?),
        FileKind::File if after.size > 0 => has_same_content(&old.open()?, &new.open()?),
        _ => Ok(true),
    }
}

/// Compares two entries as far as possible without opening them.
pub(crate) fn has_same_attributes(before: &Metadata, after: &Metadata) -> bool {
    let is_same = (before.kind, before.mode, before.owner) == (after.kind, after.mode, after.owner);
    is_same && (before.is_dir() || (before.size, before.mtime) == (after.size, after.mtime))
}

fn has_same_content(mut old: &File, mut new: &File) -> Result<bool, Errno> {
    let (mut before, mut after) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let count = fill(&mut old, &mut before)?;
        if fill(&mut new, &mut after)? != count || before[..count] != after[..count] {
            return Ok(false);
        }
        if count < PIECE {
            return Ok(true);
        }
    }
}

/// Returns the digest of a file's content.
pub(crate) fn digest_of(mut file: &File) -> Result<Digest, Errno> {
    let (mut hasher, mut buffer) = (DigestHasher::new(), vec![0; PIECE]);
    loop {
        let count = fill(&mut file, &mut buffer)?;
        hasher.update(&buffer[..count]);
        if count < PIECE {
            return Ok(hasher.finish());
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut &File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(filled)
}
