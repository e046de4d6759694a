//! The headers of the dialects of tar.

use super::random::Random;

const BLOCK: usize = 512;

/// The writer that an archive imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Gnu,
    Pax,
}

/// The fields of a header.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) device: (i64, i64),
}

impl Fields {
    pub(super) fn new(kind: u8, name: &[u8]) -> Self {
        Self {
            name: name.to_vec(),
            link: Vec::new(),
            kind,
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 1_000_000_000,
            device: (0, 0),
        }
    }
}

/// Encodes the header's block.
pub(super) fn block(fields: &Fields, dialect: Dialect, random: &mut Random) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let (prefix, name) = split(&fields.name, dialect);
    text(&mut block[..100], name);
    number(&mut block[100..108], fields.mode, random);
    number(&mut block[108..116], fields.uid, random);
    number(&mut block[116..124], fields.gid, random);
    number(&mut block[124..136], fields.size, random);
    number(&mut block[136..148], fields.mtime, random);
    block[156] = fields.kind;
    text(&mut block[157..257], &fields.link);
    match dialect {
        Dialect::V7 => {}
        Dialect::Gnu => block[257..265].copy_from_slice(b"ustar  \0"),
        Dialect::Ustar | Dialect::Pax => block[257..265].copy_from_slice(b"ustar\x0000"),
    }
    if dialect != Dialect::V7 {
        text(&mut block[265..297], b"root");
        text(&mut block[297..329], b"root");
        if matches!(fields.kind, b'3' | b'4') || random.once_in(3) {
            number(&mut block[329..337], fields.device.0, random);
            number(&mut block[337..345], fields.device.1, random);
        }
    }
    if matches!(dialect, Dialect::Ustar | Dialect::Pax) {
        text(&mut block[345..500], prefix);
    }
    seal(&mut block);
    block
}

/// Writes the checksum into a header.
pub(super) fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Splits a name for ustar if it is too long.
fn split(name: &[u8], dialect: Dialect) -> (&[u8], &[u8]) {
    let fits = |at: usize| at <= 155 && at > 0 && name.len() - at - 1 <= 100;
    if dialect == Dialect::Ustar && name.len() > 100 {
        let slashes = (0..name.len()).filter(|at| name[*at] == b'/');
        if let Some(at) = slashes.rev().find(|at| fits(*at)) {
            return (&name[..at], &name[at + 1..]);
        }
    }
    (b"", name)
}

fn text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Writes a number in one of the formats that readers accept, and in base 256 if it doesn't fit.
pub(super) fn number(field: &mut [u8], value: i64, random: &mut Random) {
    let width = field.len();
    let fits = value >= 0 && value < 1_i64 << (3 * (width - 1)).min(62);
    if !fits || random.once_in(12) {
        let sign = if value < 0 { 0xff } else { 0 };
        field.fill(sign);
        let bytes = value.to_be_bytes();
        let count = bytes.len().min(width);
        field[width - count..].copy_from_slice(&bytes[bytes.len() - count..]);
        field[0] |= 0x80;
        return;
    }
    let digits = width - 1;
    let text = match random.below(6) {
        0 if value < 1_i64 << (3 * (width - 2)) => {
            format!("{value:0width$o} \0", width = width - 2)
        }
        1 if value < 1_i64 << (3 * (width - 2)) => {
            format!("{value:>width$o} \0", width = width - 2)
        }
        2 => format!("{value:0width$o}"),
        3 => format!("{value:0digits$o} "),
        4 => format!("{value:o}\0"),
        _ => format!("{value:0digits$o}\0"),
    };
    field.fill(0);
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// Returns a PAX record.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}
