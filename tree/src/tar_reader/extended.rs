//! Extended headers, which apply to the entry behind them: GNU's long names and PAX records.

use std::io;

use tar::Header;

use super::malformed;
use crate::metadata::Timestamp;
use crate::path_limit::LONGEST;
use crate::tar_sparse::SparseFormat;

/// The prefix of the PAX records with extended attributes.
const XATTR_RECORD: &[u8] = b"SCHILY.xattr.";
/// The largest size that fits into a ustar header. Larger sizes are only in a PAX record.
const LARGEST_OCTAL: u64 = 0o777_7777_7777;

/// The values of the extended headers of an entry.
#[derive(Default)]
pub(super) struct Extended {
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseFormat,
    pub(super) bytes: u64,
    /// `true` if there was a header for the next entry.
    pub(super) pending: bool,
    /// `true` if there was a PAX header.
    pub(super) posix: bool,
}

impl Extended {
    pub(super) fn records(&mut self, data: &[u8]) -> io::Result<()> {
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
        match key {
            // In POSIX, the header's value applies then. Other readers use an empty name, or 0.
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {
                return Err(malformed("PAX record without a value"));
            }
            b"path" => self.path = Some(text_without_nul(value)?),
            b"linkpath" => self.link = Some(text_without_nul(value)?),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
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

    pub(super) fn name(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let long = agreed(self.long_name.take(), self.path.take())?;
        match long {
            Some(long) => bounded(long),
            None => short_name(header),
        }
    }

    pub(super) fn link(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let long = agreed(self.long_link.take(), self.link.take())?;
        bounded(long.unwrap_or_else(|| {
            header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
        }))
    }
}

/// Returns the name in a header, prepended with POSIX's prefix.
fn short_name(header: &Header) -> io::Result<Vec<u8>> {
    let bytes = header.as_bytes();
    let prefix = text(&bytes[345..500])?;
    let name = text(&bytes[..100])?;
    if prefix.is_empty() || !bytes[257..].starts_with(b"ustar\0") {
        return Ok(name);
    }
    // Some readers support the prefix in one version only, others in all.
    if &bytes[263..265] != b"00" {
        return Err(malformed("name with a prefix in a header of an unknown version"));
    }
    Ok([&prefix[..], b"/", &name].concat())
}

/// Returns the name from a GNU header or a PAX record. If both are present, they must agree.
fn agreed(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => {
            Err(malformed("GNU header and PAX record disagree about a name"))
        }
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn bounded(name: Vec<u8>) -> io::Result<Vec<u8>> {
    if name.len() > LONGEST { Err(malformed("name is too long")) } else { Ok(name) }
}

/// Splits off a PAX record: its length in decimal digits, a space, key, `=`, value, line feed.
/// Returns key, value and the rest.
pub(crate) fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
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

/// Checks a header for all entries, such as `git archive` writes for a comment. Go's reader ignores
/// it, but other readers use its names and sizes. So it must not contain any.
pub(super) fn check_global(data: &[u8]) -> io::Result<()> {
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
pub(super) fn text(data: &[u8]) -> io::Result<Vec<u8>> {
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

/// Parses seconds with a fraction, such as `-1.5`.
pub(crate) fn time(text: &[u8]) -> io::Result<Timestamp> {
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
/// Returns the size from the header and the PAX record, which must agree. If the size is too large
/// for the header, the header must have 0.
pub(super) fn agreed_size(header: u64, record: Option<u64>) -> io::Result<u64> {
    match record {
        None => Ok(header),
        Some(record) if record == header || header == 0 && record > LARGEST_OCTAL => Ok(record),
        Some(record) => Err(malformed(format!(
            "header and PAX record disagree about the size: {header}, {record}"
        ))),
    }
}
