//! Reading tars that nobody vouches for.
//!
//! The framing is ours, the fields of a header are decoded by the `tar` crate. Readers disagree about
//! malformed tars, and what one of them skips another unpacks; so what they disagree about is
//! refused: a PAX size that isn't the header's, a directory or link with content, a block of zeros
//! in the middle. What is read into memory is bounded: extended headers to 1 MiB in all for an
//! entry, names to 4 KiB, sparse maps to 1 MiB.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::metadata::Timestamp;
use crate::tar_sparse::{Segment, SparseFormat};

/// Size of a block.
const BLOCK: usize = 512;
/// Prefix of the PAX records that hold extended attributes.
const XATTR_RECORD: &[u8] = b"SCHILY.xattr.";
/// Most bytes of the extended headers of an entry.
const LARGEST_EXTENDED: u64 = 1 << 20;
/// Most bytes of a name or a link target.
const LONGEST_NAME: usize = 4096;
/// Sizes from here on don't fit a ustar header, and are in a PAX record only.
const LARGEST_OCTAL: u64 = 0o777_7777_7777;

/// An entry of a tar.
#[derive(Clone, Debug)]
pub(crate) struct TarEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of the file, holes counted.
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What of a sparse file is in the archive.
    pub(crate) segments: Option<Vec<Segment>>,
}

/// Reads the entries of a tar, and the content of each.
pub(crate) struct TarReader<'a> {
    inner: &'a mut dyn Read,
    /// Bytes of content that have not been read.
    left: u64,
    /// Bytes between the content and the next header.
    padding: u64,
    ended: bool,
}

/// What extended headers say of the entry behind them.
#[derive(Default)]
struct Extended {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Timestamp>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: SparseFormat,
    bytes: u64,
    /// Whether there was any that speaks of the next entry.
    pending: bool,
    /// Whether one was of PAX.
    posix: bool,
}

pub(crate) fn malformed(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

impl<'a> TarReader<'a> {
    pub(crate) fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, left: 0, padding: 0, ended: false }
    }

    /// Returns the next entry; `None` at the end. What is left of the content before is skipped.
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
                // Of two, some take the last alone, and some both.
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

    /// Reads some of the entry's content; 0 at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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

    /// Reads a header; `None` at the end: two blocks of zeros, or nothing any more.
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

    /// Reads a block; false where the archive has ended.
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
        // Empty ones count, too, so that nobody sends them without end.
        extended.bytes = extended.bytes.saturating_add(size.max(BLOCK as u64));
        if extended.bytes > LARGEST_EXTENDED {
            return Err(malformed("extended header is too large"));
        }
        self.content(size)?;
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    /// Reads a long name. Some readers take it to the next NUL, be that behind its end.
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
        if extended.posix && !header.as_bytes()[257..].starts_with(b"ustar") {
            return Err(malformed("PAX header before a header that knows of none"));
        }
        let name = extended.name(header)?;
        let link = extended.link(header)?;
        let mut kind = header.entry_type();
        // Before POSIX a directory was a file with a slash at the end of its name.
        if header.as_bytes()[156] == 0 && name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let size = agreed_size(header_size, extended.size)?;
        match kind {
            // A directory to some, a file to others.
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => {
                return Err(malformed("name of a file with a slash at its end"));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.content(size)?;
            }
            // A hard link may tell the size of its file, and never has content.
            EntryType::Link => self.content(0)?,
            _ if size == 0 => self.content(0)?,
            _ => return Err(malformed("content of what has none")),
        }
        let mut entry = TarEntry {
            name,
            kind,
            link,
            mode: (unsigned("mode", &header.as_bytes()[100..108])? & 0o7777) as u32,
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
        };
        if kind == EntryType::GNUSparse {
            let (real_size, segments) = crate::tar_sparse::old_gnu(header, self)?;
            (entry.size, entry.segments) = (real_size, Some(segments));
            entry.kind = EntryType::Regular;
        } else if let Some(sparse) = extended.sparse.resolve(self, kind)? {
            (entry.size, entry.segments) = (sparse.size, Some(sparse.segments));
            entry.name = sparse.name.unwrap_or(entry.name);
        }
        if let Some(segments) = &entry.segments {
            crate::tar_sparse::check(segments, entry.size, self.left)?;
        }
        Ok(entry)
    }

    /// Reads a block that belongs to the header, of GNU's sparse map.
    pub(crate) fn header_block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        if self.block(&mut block)? { Ok(block) } else { Err(malformed("sparse map is too short")) }
    }
}

impl Extended {
    fn records(&mut self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        // Some writers pad the records with NUL.
        while rest.first().is_some_and(|byte| *byte != 0) {
            let (key, value, after) = record(rest).ok_or_else(|| malformed("PAX record"))?;
            self.record(key, value)?;
            rest = after;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let some = (!value.is_empty()).then_some(value);
        match key {
            // POSIX has the header's name count then; others take the empty one.
            b"path" | b"linkpath" if value.is_empty() => {
                return Err(malformed("PAX record with an empty name"));
            }
            b"path" => self.path = Some(text_without_nul(value)?),
            b"linkpath" => self.link = Some(text_without_nul(value)?),
            b"size" => self.size = some.map(number).transpose()?,
            b"uid" => self.uid = some.map(number).transpose()?,
            b"gid" => self.gid = some.map(number).transpose()?,
            b"mtime" => self.mtime = some.map(time).transpose()?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_RECORD) {
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let long = agreed(self.long_name.take(), self.path.take())?;
        bounded(long.unwrap_or_else(|| header.path_bytes().into_owned()))
    }

    fn link(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let long = agreed(self.long_link.take(), self.link.take())?;
        bounded(long.unwrap_or_else(|| {
            header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
        }))
    }
}

/// Returns the name that a GNU header or a PAX record tells; both may, if it is the same.
fn agreed(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => {
            Err(malformed("GNU header and PAX record disagree about a name"))
        }
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn bounded(name: Vec<u8>) -> io::Result<Vec<u8>> {
    if name.len() > LONGEST_NAME { Err(malformed("name is too long")) } else { Ok(name) }
}

/// Splits off a PAX record: its length in decimal digits, a space, key, `=`, value, line feed.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&data[..space]).ok()?).ok()?;
    if length <= space || length > data.len() {
        return None;
    }
    let (record, rest) = data.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = &record[..equals];
    (!key.is_empty() && !key.contains(&0)).then_some((key, &record[equals + 1..], rest))
}

/// Checks a header that speaks of all entries, as `git archive` writes one with a comment. Go's reader
/// takes nothing from it; others take names and sizes, so that there may be none.
fn check_global(data: &[u8]) -> io::Result<()> {
    let mut rest = data;
    while rest.first().is_some_and(|byte| *byte != 0) {
        let (key, _, after) = record(rest).ok_or_else(|| malformed("PAX record"))?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(malformed("global PAX header with names or sizes"));
        }
        rest = after;
    }
    Ok(())
}

/// Returns the text up to the first NUL.
fn text(data: &[u8]) -> io::Result<Vec<u8>> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    bounded(data[..end].to_vec())
}

pub(crate) fn text_without_nul(data: &[u8]) -> io::Result<Vec<u8>> {
    if data.contains(&0) {
        return Err(malformed("name with a NUL byte"));
    }
    bounded(data.to_vec())
}

pub(crate) fn number(digits: &[u8]) -> io::Result<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("PAX number"))
}

/// Parses seconds with a fraction, as `-1.5`.
fn time(text: &[u8]) -> io::Result<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = number(parts.next().unwrap_or_default())?;
    let seconds = i64::try_from(seconds).map_err(|_| malformed("PAX time"))?;
    let mut nanoseconds = 0;
    let fraction = parts.next().unwrap_or_default();
    if fraction.iter().any(|byte| !byte.is_ascii_digit()) {
        return Err(malformed("PAX time"));
    }
    for at in 0..9 {
        let digit = fraction.get(at).map_or(0, |digit| digit - b'0');
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Returns the size that both the header and the PAX record tell. A header can't hold a large one,
/// and says 0 then.
fn agreed_size(header: u64, record: Option<u64>) -> io::Result<u64> {
    match record {
        None => Ok(header),
        Some(record) if record == header || header == 0 && record > LARGEST_OCTAL => Ok(record),
        Some(record) => Err(malformed(format!(
            "header and PAX record disagree about the size: {header}, {record}"
        ))),
    }
}

fn id(what: &str, record: Option<u64>, field: &[u8]) -> io::Result<u32> {
    let id = match record {
        Some(id) => id,
        None => unsigned(what, field)?,
    };
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| malformed(format!("{what} is not a number below 2^32 - 1")))
}

fn device(header: &Header, kind: EntryType) -> io::Result<(u32, u32)> {
    let bytes = header.as_bytes();
    let magic = &bytes[257..265];
    if kind != EntryType::Char && kind != EntryType::Block || !magic.starts_with(b"ustar") {
        return Ok((0, 0));
    }
    if !magic.starts_with(b"ustar\0") && magic != b"ustar  \0" {
        return Err(malformed("device of an unknown dialect"));
    }
    let number = |field: &[u8]| {
        let number = unsigned("device", field)?;
        u32::try_from(number).map_err(|_| malformed("device is not a number"))
    };
    Ok((number(&bytes[329..337])?, number(&bytes[337..345])?))
}

/// Decodes a field that may not be negative.
pub(crate) fn unsigned(what: &str, field: &[u8]) -> io::Result<u64> {
    let number = numeric(field).and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| malformed(format!("{what} is not a number")))
}

/// Decodes a number: octal digits between spaces up to a NUL, nothing for 0, or GNU's base 256.
fn numeric(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 is the sign.
        let negative = first & 0x40 != 0;
        let mut number = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        for byte in rest {
            number = number.checked_mul(256)?.checked_add(i128::from(*byte))?;
        }
        return i64::try_from(number).ok();
    }
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    if field[end..].iter().any(|byte| *byte != 0 && *byte != b' ') {
        return None;
    }
    let digits = field[..end].trim_ascii();
    let mut number = 0_i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        number = number.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(number)
}

#[cfg(test)]
mod differential;
