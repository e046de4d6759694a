//! Decoding of header fields.

use std::io;

use tar::{EntryType, Header};

use super::malformed;

/// The largest mode in seven octal digits.
const LARGEST_MODE: u32 = 0o777_7777;

pub(super) fn id(what: &str, record: Option<u64>, field: &[u8]) -> io::Result<u32> {
    let id = match record {
        Some(id) => id,
        None => unsigned(what, field)?,
    };
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| malformed(format!("{what} is not a number below 2^32 - 1")))
}

/// Decodes a mode. Some writers store the file's type above the permissions.
pub(super) fn mode(field: &[u8]) -> io::Result<u32> {
    let mode = unsigned("mode", field)?;
    let mode = u32::try_from(mode).ok().filter(|mode| *mode <= LARGEST_MODE);
    mode.map(|mode| mode & 0o7777).ok_or_else(|| malformed("mode is not a number of seven digits"))
}

/// Returns `true` if the magic of a header is POSIX's or GNU's.
pub(super) fn is_known(header: &Header) -> bool {
    let magic = &header.as_bytes()[257..265];
    magic.starts_with(b"ustar\0") || magic == b"ustar  \0"
}

pub(super) fn device(header: &Header, kind: EntryType) -> io::Result<(u32, u32)> {
    let bytes = header.as_bytes();
    let magic = &bytes[257..265];
    if kind != EntryType::Char && kind != EntryType::Block || !magic.starts_with(b"ustar") {
        return Ok((0, 0));
    }
    if !is_known(header) {
        return Err(malformed("device of an unknown dialect"));
    }
    let number = |field: &[u8]| {
        let number = unsigned("device", field)?;
        u32::try_from(number).map_err(|_| malformed("device is not a number"))
    };
    Ok((number(&bytes[329..337])?, number(&bytes[337..345])?))
}

/// Decodes a number that must not be negative.
pub(crate) fn unsigned(what: &str, field: &[u8]) -> io::Result<u64> {
    let number = numeric(field).and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| malformed(format!("{what} is not a number")))
}

/// Decodes a number: octal digits between spaces up to a NUL, an empty field for 0, or GNU's base
/// 256.
pub(crate) fn numeric(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 is the sign bit.
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
