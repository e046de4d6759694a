//! The headers of tar entries: ustar, with a preceding PAX header for values that don't fit (IEEE
//! Std 1003.1, "pax", ustar interchange format).
//!
//! If the formats leave a choice, the output is the same as that of Go's `archive/tar`, with which
//! BuildKit writes layers. A long name is split at the last possible slash, and not at all after a
//! PAX header.

use std::borrow::Cow;

use crate::metadata::{FileKind, Owner};

/// The size of a block in bytes. Headers and padded contents consist of blocks.
pub(super) const BLOCK: usize = 512;

/// The largest number in a field of seven octal digits.
const SEVEN_DIGITS: u64 = 0o7_777_777;
/// The largest number in a field of eleven octal digits.
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

const NAME_SIZE: usize = 100;
const PREFIX_SIZE: usize = 155;

/// The fields of an entry's header.
pub(super) struct Header<'a> {
    /// The path, without a slash at either end.
    pub(super) path: &'a [u8],
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    /// The number of bytes that follow the header.
    pub(super) size: u64,
    /// The seconds since 1970.
    pub(super) mtime: i64,
    /// The target of a link; empty for other types.
    pub(super) target: Cow<'a, [u8]>,
    pub(super) is_hard_link: bool,
    /// The value of the `security.capability` attribute.
    pub(super) capability: Option<&'a [u8]>,
}

impl Header<'_> {
    /// Appends the blocks of the header to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut name = Vec::with_capacity(self.path.len() + 1);
        name.extend_from_slice(self.path);
        if self.kind == FileKind::Directory {
            name.push(b'/');
        }
        let split = split(&name);
        let mut records = self.records();
        let is_short = name.len() <= NAME_SIZE && name.is_ascii();
        let is_extended = !records.is_empty() || !(is_short || split.is_some());
        if is_extended {
            if !is_short {
                records.push(("path", name.clone()));
            }
            encode_records(&name, records, out);
        }
        let mut block = [0_u8; BLOCK];
        match split.filter(|_| !is_extended) {
            Some(slash) => {
                text(&mut block[345..500], &name[..slash]);
                text(&mut block[..NAME_SIZE], &name[slash + 1..]);
            }
            None => text(&mut block[..NAME_SIZE], &name),
        }
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], fitting(self.owner.uid.into(), SEVEN_DIGITS));
        octal(&mut block[116..124], fitting(self.owner.gid.into(), SEVEN_DIGITS));
        octal(&mut block[124..136], fitting(self.size, ELEVEN_DIGITS));
        let mtime = u64::try_from(self.mtime).unwrap_or_default();
        octal(&mut block[136..148], fitting(mtime, ELEVEN_DIGITS));
        text(&mut block[157..257], &self.target);
        let (major, minor) = self.device();
        octal(&mut block[329..337], major.into());
        octal(&mut block[337..345], minor.into());
        finish(&mut block, self.type_flag());
        out.extend_from_slice(&block);
    }

    fn type_flag(&self) -> u8 {
        match self.kind {
            _ if self.is_hard_link => b'1',
            FileKind::Symlink => b'2',
            FileKind::CharDevice { .. } => b'3',
            FileKind::BlockDevice { .. } => b'4',
            FileKind::Directory => b'5',
            FileKind::Fifo => b'6',
            FileKind::File | FileKind::Socket => b'0',
        }
    }

    fn device(&self) -> (u32, u32) {
        match self.kind {
            FileKind::CharDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
                (major, minor)
            }
            _ => (0, 0),
        }
    }

    /// Returns the required PAX records, except the one for the name.
    fn records(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut records = Vec::new();
        if let Some(capability) = self.capability {
            records.push(("SCHILY.xattr.security.capability", capability.to_vec()));
        }
        if self.target.len() > NAME_SIZE || !self.target.is_ascii() {
            records.push(("linkpath", self.target.to_vec()));
        }
        let numbers = [
            ("gid", i128::from(self.owner.gid), SEVEN_DIGITS),
            ("mtime", i128::from(self.mtime), ELEVEN_DIGITS),
            ("size", i128::from(self.size), ELEVEN_DIGITS),
            ("uid", i128::from(self.owner.uid), SEVEN_DIGITS),
        ];
        for (key, value, largest) in numbers {
            if !(0..=i128::from(largest)).contains(&value) {
                records.push((key, value.to_string().into_bytes()));
            }
        }
        records
    }
}

/// Returns the index of the slash at which a long name is split, if it can be split.
fn split(name: &[u8]) -> Option<usize> {
    if name.len() <= NAME_SIZE || !name.is_ascii() {
        return None;
    }
    // The part behind the slash must fit and must not be empty.
    let end = match name.len() {
        length if length > PREFIX_SIZE + 1 => PREFIX_SIZE + 1,
        length if name.ends_with(b"/") => length - 1,
        length => length,
    };
    let slash = name[..end].iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0)?;
    (1..=NAME_SIZE).contains(&(name.len() - slash - 1)).then_some(slash)
}

/// Returns the value of a field, or zero if a PAX record has the value.
fn fitting(value: u64, largest: u64) -> u64 {
    if value > largest { 0 } else { value }
}

/// Appends a PAX record: its length in decimal (which includes the length itself), the key and the
/// value.
pub(crate) fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends the PAX header with the `records` of the entry `name`.
fn encode_records(name: &[u8], mut records: Vec<(&'static str, Vec<u8>)>, out: &mut Vec<u8>) {
    records.sort_unstable();
    let mut content = Vec::new();
    for (key, value) in &records {
        record(&mut content, key, value);
    }
    let slash = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let mut title = [&name[..slash], b"PaxHeaders.0/", &name[slash..]].concat();
    title.retain(u8::is_ascii);
    title.truncate(NAME_SIZE);
    while title.ends_with(b"/") {
        title.pop();
    }
    let mut block = [0_u8; BLOCK];
    text(&mut block[..NAME_SIZE], &title);
    for field in [100..108, 108..116, 116..124, 136..148] {
        octal(&mut block[field], 0);
    }
    octal(&mut block[124..136], content.len() as u64);
    finish(&mut block, b'x');
    out.extend_from_slice(&block);
    out.append(&mut content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Fills a field with text. Characters outside of ASCII and excess characters are left out, since a
/// PAX record has the whole text. A truncated name must not look like a directory's.
fn text(field: &mut [u8], value: &[u8]) {
    let mut ascii = value.iter().filter(|byte| byte.is_ascii());
    for (place, byte) in field.iter_mut().zip(ascii.by_ref()) {
        *place = *byte;
    }
    if ascii.next().is_some()
        && let Some(last) = field.last_mut().filter(|last| **last == b'/')
    {
        *last = 0;
    }
}

/// Fills a field with octal digits and a NUL.
pub(crate) fn octal(field: &mut [u8], mut value: u64) {
    for place in field.iter_mut().rev().skip(1) {
        *place = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Fills in the type, the format and the checksum of a header.
fn finish(block: &mut [u8; BLOCK], type_flag: u8) {
    block[156] = type_flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put_sum(&mut block[148..156], sum);
}

/// Fills in a checksum as Go's writer does: six digits, a NUL and a space.
pub(crate) fn put_sum(field: &mut [u8], sum: u64) {
    octal(&mut field[..7], sum);
    field[6] = 0;
    field[7] = b' ';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for length in 0..2000 {
            let mut out = Vec::new();
            record(&mut out, "path", &vec![b'x'; length]);
            let digits = out.split(|byte| *byte == b' ').next().unwrap();
            assert_eq!(std::str::from_utf8(digits).unwrap(), out.len().to_string());
        }
    }

    #[test]
    fn long_names_are_split_where_both_parts_fit() {
        let name = |parts: &[usize]| {
            parts.iter().map(|length| "x".repeat(*length)).collect::<Vec<_>>().join("/")
        };
        assert_eq!(split(name(&[50, 49]).as_bytes()), None, "fits whole");
        assert_eq!(split(name(&[50, 50]).as_bytes()), Some(50));
        assert_eq!(split(name(&[40, 40, 40]).as_bytes()), Some(81), "the last slash");
        assert_eq!(split(name(&[155, 100]).as_bytes()), Some(155));
        assert_eq!(split(name(&[155, 101]).as_bytes()), None);
        assert_eq!(split(name(&[156, 100]).as_bytes()), None);
        assert_eq!(split(name(&[120, 0]).as_bytes()), None, "only the slash at the end");
        assert_eq!(split(name(&[60, 60, 0]).as_bytes()), Some(60));
        assert_eq!(split(name(&[155, 0]).as_bytes()), None, "only the slash at the end");
        assert_eq!(split("ä/".repeat(60).as_bytes()), None);
    }
}
