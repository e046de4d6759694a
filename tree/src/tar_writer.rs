//! An encoder of tar headers for tests. The fields need not make sense.

use std::collections::BTreeMap;

const BLOCK: usize = 512;

const XATTR_RECORD: &[u8] = b"SCHILY.xattr.";

/// The fields of a header.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// The seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) device: (u32, u32),
    /// The extended attributes: names and values.
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Encodes a header and, if needed, the extended header before it.
pub(crate) fn encode(fields: &Fields<'_>) -> Vec<u8> {
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut text = |record: &str, value: &[u8], longest: usize| {
        if value.len() > longest || !value.is_ascii() {
            records.insert(record.as_bytes().to_vec(), value.to_vec());
        }
    };
    text("path", fields.name, 100);
    text("linkpath", fields.link, 100);
    let mut number = |record: &str, value: i128, digits: u32| {
        let fits = (0..1_i128 << (3 * digits)).contains(&value);
        if !fits {
            records.insert(record.as_bytes().to_vec(), value.to_string().into_bytes());
        }
        if fits { value as u64 } else { 0 }
    };
    let uid = number("uid", fields.uid.into(), 7);
    let gid = number("gid", fields.gid.into(), 7);
    let size = number("size", fields.size.into(), 11);
    let mtime = number("mtime", fields.mtime.into(), 11);
    for (name, value) in fields.xattrs {
        records.insert([XATTR_RECORD, name].concat(), value.clone());
    }
    let mut encoded = Vec::with_capacity(BLOCK * if records.is_empty() { 1 } else { 3 });
    if !records.is_empty() {
        extended_header(&mut encoded, fields.name, &records);
    }
    let mut block = Block::new(fields.name, fields.kind);
    block.text(157..257, fields.link);
    block.octal(100..108, u64::from(fields.mode & 0o7777));
    block.octal(108..116, uid);
    block.octal(116..124, gid);
    block.octal(124..136, size);
    block.octal(136..148, mtime);
    block.octal(329..337, fields.device.0.into());
    block.octal(337..345, fields.device.1.into());
    encoded.extend_from_slice(&block.finish());
    encoded
}

fn extended_header(encoded: &mut Vec<u8>, name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut data = Vec::new();
    for (key, value) in records {
        // The record's length includes its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        length = rest + length.to_string().len();
        data.extend_from_slice(format!("{length} ").as_bytes());
        data.extend_from_slice(key);
        data.push(b'=');
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    let trimmed = name.strip_suffix(b"/").unwrap_or(name);
    let directory = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (directory, file) =
        if name.len() == trimmed.len() { name.split_at(directory) } else { (name, &b""[..]) };
    let mut path = [directory, b"PaxHeaders.0/", file].concat();
    path.retain(u8::is_ascii);
    path.truncate(100);
    while path.last() == Some(&b'/') {
        path.pop();
    }
    let mut block = Block::new(&path, b'x');
    for field in [100..108, 108..116, 116..124, 136..148] {
        block.octal(field, 0);
    }
    block.octal(124..136, data.len() as u64);
    encoded.extend_from_slice(&block.finish());
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    encoded.extend_from_slice(&data);
}

struct Block([u8; BLOCK]);

impl Block {
    fn new(name: &[u8], kind: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.text(0..100, name);
        block.0[156] = kind;
        block.0[257..265].copy_from_slice(b"ustar\x0000");
        block
    }

    /// Writes the ASCII characters of a text, which may be cut. The PAX record has the whole text.
    fn text(&mut self, field: std::ops::Range<usize>, value: &[u8]) {
        let ascii = value.iter().copied().filter(u8::is_ascii);
        for (to, from) in self.0[field].iter_mut().zip(ascii) {
            *to = from;
        }
    }

    fn octal(&mut self, field: std::ops::Range<usize>, value: u64) {
        let width = field.len() - 1;
        self.0[field][..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148..155, sum);
        self.0[154] = 0;
        self.0
    }
}
