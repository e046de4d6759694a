//! Headers of tar entries: ustar, with a PAX header in front where a value doesn't fit.
//! (IEEE Std 1003.1, "pax", ustar interchange format.)

use std::borrow::Cow;

use crate::metadata::{FileKind, Owner};

/// The size of a block: headers and the padding of contents are made of them.
pub(super) const BLOCK: usize = 512;

/// The largest number in a field of seven octal digits.
const SEVEN_DIGITS: u64 = 0o7_777_777;
/// The largest number in a field of eleven octal digits.
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

const NAME_SIZE: usize = 100;
const PREFIX_SIZE: usize = 155;

/// What the header of an entry tells.
pub(super) struct Header<'a> {
    /// Path, without a slash at either end.
    pub(super) path: &'a [u8],
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    /// How many bytes follow.
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    /// What a link leads to; empty for others.
    pub(super) target: Cow<'a, [u8]>,
    pub(super) is_hard_link: bool,
    /// The `security.capability` attribute.
    pub(super) capability: Option<&'a [u8]>,
}

impl Header<'_> {
    /// Appends the blocks of the header.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut name = Vec::with_capacity(self.path.len() + 1);
        name.extend_from_slice(self.path);
        if self.kind == FileKind::Directory {
            name.push(b'/');
        }
        let split = split(&name);
        let records = self.records(&name, split);
        if !records.is_empty() {
            encode_records(&name, &records, out);
        }
        let mut block = [0_u8; BLOCK];
        match split {
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

    /// Returns the PAX records that are needed, sorted by key.
    fn records(&self, name: &[u8], split: Option<usize>) -> Vec<u8> {
        let mut records = Vec::new();
        if let Some(capability) = self.capability {
            record(&mut records, "SCHILY.xattr.security.capability", capability);
        }
        number(&mut records, "gid", self.owner.gid.into(), SEVEN_DIGITS);
        if self.target.len() > NAME_SIZE || !self.target.is_ascii() {
            record(&mut records, "linkpath", &self.target);
        }
        match u64::try_from(self.mtime) {
            Ok(mtime) => number(&mut records, "mtime", mtime, ELEVEN_DIGITS),
            Err(_) => record(&mut records, "mtime", self.mtime.to_string().as_bytes()),
        }
        if !name.is_ascii() || (name.len() > NAME_SIZE && split.is_none()) {
            record(&mut records, "path", name);
        }
        number(&mut records, "size", self.size, ELEVEN_DIGITS);
        number(&mut records, "uid", self.owner.uid.into(), SEVEN_DIGITS);
        records
    }
}

/// Returns the slash at which a name that is too long for its field is split, if it can be.
fn split(name: &[u8]) -> Option<usize> {
    if name.len() <= NAME_SIZE || !name.is_ascii() {
        return None;
    }
    // The part behind the slash must fit, and must not be empty or a mere slash.
    let first = name.len().saturating_sub(NAME_SIZE + 1).max(1);
    let last = PREFIX_SIZE.min(name.len() - 2);
    (first..=last).find(|index| name[*index] == b'/')
}

/// Returns what stands in a field whose value may stand in a PAX record instead.
fn fitting(value: u64, largest: u64) -> u64 {
    if value > largest { 0 } else { value }
}

/// Appends a PAX record: its length in decimal, which counts itself, the key and the value.
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

/// Appends a PAX record of a number that doesn't fit its field.
fn number(out: &mut Vec<u8>, key: &str, value: u64, largest: u64) {
    if value > largest {
        record(out, key, value.to_string().as_bytes());
    }
}

/// Appends the PAX header that tells `records` of the entry `name`.
fn encode_records(name: &[u8], records: &[u8], out: &mut Vec<u8>) {
    let base = name.strip_suffix(b"/").unwrap_or(name);
    let base = base.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut block = [0_u8; BLOCK];
    text(&mut block[..NAME_SIZE], &[b"PaxHeaders.0/", base].concat());
    octal(&mut block[100..108], 0o644);
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    octal(&mut block[124..136], records.len() as u64);
    octal(&mut block[136..148], 0);
    octal(&mut block[329..337], 0);
    octal(&mut block[337..345], 0);
    finish(&mut block, b'x');
    out.extend_from_slice(&block);
    out.extend_from_slice(records);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Fills a field with text; what isn't ASCII or doesn't fit is left out, a PAX record has it.
fn text(field: &mut [u8], value: &[u8]) {
    for (place, byte) in field.iter_mut().zip(value.iter().filter(|byte| byte.is_ascii())) {
        *place = *byte;
    }
}

/// Fills a field with octal digits and a NUL.
pub(crate) fn octal(field: &mut [u8], mut value: u64) {
    for place in field.iter_mut().rev().skip(1) {
        *place = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Fills in the type, the format and the checksum.
fn finish(block: &mut [u8; BLOCK], type_flag: u8) {
    block[156] = type_flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
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
        assert_eq!(split(name(&[155, 100]).as_bytes()), Some(155));
        assert_eq!(split(name(&[155, 101]).as_bytes()), None);
        assert_eq!(split(name(&[156, 100]).as_bytes()), None);
        assert_eq!(split(name(&[120, 0]).as_bytes()), None, "only the slash at the end");
        assert_eq!(split(name(&[60, 60, 0]).as_bytes()), Some(60));
        assert_eq!(split("ä/".repeat(60).as_bytes()), None);
    }
}
