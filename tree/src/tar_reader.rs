//! A reader for untrusted tars.
//!
//! This module parses the framing; the `tar` crate decodes the fields of headers. Tar readers
//! disagree about malformed archives: one skips an entry that another unpacks. So this reader
//! rejects everything about which others disagree: a PAX size that differs from the header's, a
//! directory or link with content, a block of zeros in the middle. The data kept in memory is
//! bounded: 1 MiB for all extended headers of an entry, 4 KiB for names, 1 MiB for sparse maps.

mod extended;
mod fields;

use std::io::{self, Read};

use tar::Header;

use crate::metadata::Timestamp;
pub(crate) use crate::tar_sparse::Segment;
use extended::{Extended, agreed_size, check_global, text};
pub(crate) use extended::{number, record, text_without_nul, time};
use fields::{device, id, is_known, mode};
pub(crate) use fields::{numeric, unsigned};
pub use tar::EntryType;

/// The size of a block in bytes.
const BLOCK: usize = 512;
/// The maximal size in bytes of the extended headers of an entry.
const LARGEST_EXTENDED: u64 = 1 << 20;

/// An entry of a tar. Its names are unchecked.
#[derive(Clone, Debug)]
pub struct TarEntry {
    /// The name, as in the archive.
    pub name: Vec<u8>,
    /// The type of the entry.
    pub kind: EntryType,
    /// The target of a link; empty for other types.
    pub link: Vec<u8>,
    /// The permission bits, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// The user ID of the owner.
    pub uid: u32,
    /// The group ID of the owner.
    pub gid: u32,
    /// The size of the file in bytes, including holes.
    pub size: u64,
    /// The time of the last modification.
    pub mtime: Timestamp,
    /// The major and minor number of a device.
    pub device: (u32, u32),
    /// The extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The parts of a sparse file that are in the archive.
    pub segments: Option<Vec<Segment>>,
    /// The names of user and group, which are not used.
    pub owner_names: (Vec<u8>, Vec<u8>),
    /// The dialect of the header.
    pub dialect: Dialect,
}

/// The dialect of an entry's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The format before POSIX.
    Old,
    /// The format of POSIX.
    Ustar,
    /// The format of POSIX, with PAX extended headers.
    Pax,
    /// The format of GNU tar.
    Gnu,
}

/// A reader of the entries of a tar and their contents.
pub struct TarReader<'a> {
    inner: &'a mut dyn Read,
    /// The number of unread bytes of content.
    left: u64,
    /// The number of bytes between the content and the next header.
    padding: u64,
    ended: bool,
}

pub(crate) fn malformed(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

impl std::fmt::Debug for TarReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarReader").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'a> TarReader<'a> {
    /// Creates a reader for `inner`, which is uncompressed.
    pub fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, left: 0, padding: 0, ended: false }
    }

    /// Returns the next entry, or `None` at the end. Skips the rest of the previous entry's
    /// content.
    ///
    /// # Errors
    /// Fails if the archive is malformed or can't be read.
    pub fn next_entry(&mut self) -> io::Result<Option<TarEntry>> {
        self.next()
    }

    /// Returns the next entry, or `None` at the end. Skips the rest of the previous entry's
    /// content.
    pub(crate) fn next(&mut self) -> io::Result<Option<TarEntry>> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                let pending = extended.pending;
                return if pending {
                    Err(malformed("extended header without entry"))
                } else {
                    Ok(None)
                };
            };
            let size = unsigned("size", &header.as_bytes()[124..136])?;
            let kind = header.entry_type();
            match kind {
                // With two headers, some readers use only the last, and some use both.
                EntryType::XHeader if extended.posix => {
                    return Err(malformed("two PAX headers for an entry"));
                }
                EntryType::XHeader => {
                    let data = self.extended_data(size, &mut extended)?;
                    (extended.pending, extended.posix) = (true, true);
                    extended.records(&data)?;
                }
                EntryType::GNULongName | EntryType::GNULongLink => {
                    let long = self.long_text(size, &mut extended)?;
                    extended.pending = true;
                    match kind {
                        EntryType::GNULongName => extended.long_name = Some(long),
                        _ => extended.long_link = Some(long),
                    }
                }
                EntryType::XGlobalHeader => {
                    check_global(&self.extended_data(size, &mut extended)?)?;
                }
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
    }

    /// Reads some of the entry's content. Returns 0 at its end. The content of a sparse file
    /// excludes its holes.
    ///
    /// # Errors
    /// Fails if the archive ends too early.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.left -= read as u64;
        Ok(read)
    }

    /// Fills the buffer from the entry's content.
    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => return Err(malformed("content is too short")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn skip(&mut self) -> io::Result<()> {
        let skipped = self.left + self.padding;
        if skipped > 0 {
            let found = io::copy(&mut (&mut *self.inner).take(skipped), &mut io::sink())?;
            // Some archives lack the padding of their last entry.
            if found < self.left {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads a header. Returns `None` at the end: two blocks of zeros, or the end of the data.
    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            self.ended = true;
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.ended = true;
            let mut second = [0; BLOCK];
            if self.block(&mut second)? && second.iter().any(|byte| *byte != 0) {
                return Err(malformed("a lone block of zeros"));
            }
            return Ok(None);
        }
        let wanted =
            numeric(&header.as_bytes()[148..156]).ok_or_else(|| malformed("not a tar header"))?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, byte) in header.as_bytes().iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if wanted != unsigned && wanted != signed {
            return Err(malformed("header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    /// Reads a block. Returns `false` at the end of the data.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn content(&mut self, size: u64) -> io::Result<()> {
        self.left = size;
        let padded = size.checked_next_multiple_of(BLOCK as u64);
        self.padding = padded.ok_or_else(|| malformed("size is too large"))? - size;
        Ok(())
    }

    fn extended_data(&mut self, size: u64, extended: &mut Extended) -> io::Result<Vec<u8>> {
        // Empty headers count too, so that an archive can't have an unlimited number of them.
        extended.bytes = extended.bytes.saturating_add(size.max(BLOCK as u64));
        if extended.bytes > LARGEST_EXTENDED {
            return Err(malformed("extended header is too large"));
        }
        self.content(size)?;
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    /// Reads a long name. Some readers read up to the next NUL, even beyond the name's end.
    fn long_text(&mut self, size: u64, extended: &mut Extended) -> io::Result<Vec<u8>> {
        let padded = size.checked_next_multiple_of(BLOCK as u64);
        let padded = padded.ok_or_else(|| malformed("size is too large"))?;
        let data = self.extended_data(padded, extended)?;
        let long = text(&data)?;
        if long.len() as u64 > size {
            return Err(malformed("long name without an end"));
        }
        Ok(long)
    }

    fn entry(
        &mut self,
        header: &Header,
        header_size: u64,
        mut extended: Extended,
    ) -> io::Result<TarEntry> {
        if extended.posix && !is_known(header) {
            return Err(malformed("PAX header before a header that knows of none"));
        }
        let name = extended.name(header)?;
        let link = extended.link(header)?;
        let mut kind = header.entry_type();
        // Before POSIX, a directory was a file with a slash at the end of its name.
        if header.as_bytes()[156] == 0 && name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let size = agreed_size(header_size, extended.size)?;
        match kind {
            // Some readers see a directory, others a file.
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
                if name.ends_with(b"/") =>
            {
                return Err(malformed("name of a file with a slash at its end"));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.content(size)?;
            }
            // A hard link may have the size of its file, but never has content.
            EntryType::Link => self.content(0)?,
            _ if size == 0 => self.content(0)?,
            _ => return Err(malformed("content of what has none")),
        }
        let mut entry = TarEntry {
            name,
            kind,
            link,
            mode: mode(&header.as_bytes()[100..108])?,
            uid: id("uid", extended.uid, &header.as_bytes()[108..116])?,
            gid: id("gid", extended.gid, &header.as_bytes()[116..124])?,
            size,
            mtime: match extended.mtime {
                Some(mtime) => mtime,
                None => Timestamp {
                    seconds: numeric(&header.as_bytes()[136..148])
                        .ok_or_else(|| malformed("mtime is not a number"))?,
                    nanoseconds: 0,
                },
            },
            device: device(header, kind)?,
            xattrs: std::mem::take(&mut extended.xattrs),
            segments: None,
            owner_names: owner_names(header)?,
            dialect: dialect(header, extended.posix),
        };
        if kind == EntryType::GNUSparse {
            let (real_size, segments) = crate::tar_sparse::old_gnu(header, self)?;
            (entry.size, entry.segments) = (real_size, Some(segments));
            entry.kind = EntryType::Regular;
        } else if let Some(sparse) = extended.sparse.resolve(self, kind)? {
            (entry.size, entry.segments) = (sparse.size, Some(sparse.segments));
            entry.name = sparse.name.unwrap_or(entry.name);
            if entry.name.ends_with(b"/") {
                return Err(malformed("name of a file with a slash at its end"));
            }
        }
        if let Some(segments) = &entry.segments {
            crate::tar_sparse::check(segments, entry.size, self.left)?;
        }
        Ok(entry)
    }

    /// Reads a block of GNU's sparse map, which follows the header.
    pub(crate) fn header_block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        if self.block(&mut block)? { Ok(block) } else { Err(malformed("sparse map is too short")) }
    }
}

fn dialect(header: &Header, has_pax: bool) -> Dialect {
    let magic = &header.as_bytes()[257..265];
    match magic {
        b"ustar  \0" => Dialect::Gnu,
        _ if has_pax => Dialect::Pax,
        _ if magic.starts_with(b"ustar\0") => Dialect::Ustar,
        _ => Dialect::Old,
    }
}

fn owner_names(header: &Header) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let bytes = header.as_bytes();
    if !bytes[257..].starts_with(b"ustar") {
        return Ok((Vec::new(), Vec::new()));
    }
    Ok((text(&bytes[265..297])?, text(&bytes[297..329])?))
}

#[cfg(test)]
mod differential;
