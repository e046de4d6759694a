//! Clamping of the times in a tar.
//!
//! All times later than a given one are set to it: those in headers, and those in records of PAX
//! headers. A record of such a time is removed if the header has room for it. Checksums are written
//! in a single format. Everything else is unchanged, byte for byte, so the output depends only on
//! the input and the time.

use std::io::{self, Read, Write};

use crate::metadata::Timestamp;
use crate::pack::{octal, put_sum, record as encode_record};
use crate::tar_reader::{malformed, number, numeric, record, time, unsigned};

const BLOCK: usize = 512;

/// The maximal size of a PAX header in bytes.
const LARGEST_EXTENDED: u64 = 1 << 20;

/// The field of the modification time.
const MTIME: std::ops::Range<usize> = 136..148;
/// The fields of the access and change times in GNU's headers.
const GNU_TIMES: [std::ops::Range<usize>; 2] = [345..357, 357..369];

/// Copies a tar to `sink`, with no time later than `latest`, in seconds since 1970.
///
/// # Errors
/// Fails if the archive is malformed, or can't be read or written.
pub fn retime(archive: &mut dyn Read, sink: &mut dyn Write, latest: i64) -> io::Result<()> {
    let mut copy = Retimed { archive, sink, latest, is_late: false };
    while copy.entry()? {}
    // The bytes behind the end are kept.
    io::copy(copy.archive, copy.sink).map(drop)
}

struct Retimed<'a> {
    archive: &'a mut dyn Read,
    sink: &'a mut dyn Write,
    latest: i64,
    /// `true` if the next header gets the latest time, because a record with a later time was
    /// removed.
    is_late: bool,
}

impl Retimed<'_> {
    /// Copies an entry and the headers before it. Returns `false` at the end.
    fn entry(&mut self) -> io::Result<bool> {
        // The entry's size according to a PAX header.
        let mut told = None;
        loop {
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? {
                return Ok(false);
            }
            if block.iter().all(|byte| *byte == 0) {
                self.sink.write_all(&block)?;
                return Ok(false);
            }
            check_sum(&block)?;
            let size = unsigned("size", &block[124..136])?;
            match block[156] {
                b'x' | b'g' => {
                    let size = self.extended(&mut block, size)?;
                    if block[156] == b'x' {
                        told = size;
                    }
                }
                b'L' | b'K' => {
                    self.sink.write_all(&block)?;
                    self.content(size)?;
                }
                kind => {
                    self.header(&mut block)?;
                    let size = told.unwrap_or(size);
                    if matches!(kind, b'1'..=b'6') && size != 0 {
                        return Err(malformed("link or directory with content"));
                    }
                    self.content(size)?;
                    return Ok(true);
                }
            }
        }
    }

    /// Copies the header of an entry, and the extended sparse map of a GNU sparse file.
    fn header(&mut self, block: &mut [u8; BLOCK]) -> io::Result<()> {
        if std::mem::take(&mut self.is_late) {
            octal(&mut block[MTIME], self.latest.cast_unsigned());
        }
        self.clamp(&mut block[MTIME])?;
        let is_gnu = &block[257..265] == b"ustar  \0";
        if is_gnu {
            for field in GNU_TIMES {
                self.clamp(&mut block[field])?;
            }
        }
        seal(block);
        self.sink.write_all(block)?;
        let mut goes_on = is_gnu && block[156] == b'S' && block[482] != 0;
        while goes_on {
            if !self.block(block)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.sink.write_all(block)?;
            goes_on = block[504] != 0;
        }
        Ok(())
    }

    /// Copies a PAX header. Returns the entry's size according to it.
    fn extended(&mut self, block: &mut [u8; BLOCK], size: u64) -> io::Result<Option<u64>> {
        if size > LARGEST_EXTENDED {
            return Err(malformed("PAX header is too long"));
        }
        let mut data = vec![0; (size as usize).next_multiple_of(BLOCK)];
        self.archive.read_exact(&mut data)?;
        let (records, told) = self.records(&data[..size as usize])?;
        if records.is_empty() && self.is_late {
            return Ok(told);
        }
        self.clamp(&mut block[MTIME])?;
        octal(&mut block[124..136], records.len() as u64);
        seal(block);
        self.sink.write_all(block)?;
        self.sink.write_all(&records)?;
        let padding = records.len().next_multiple_of(BLOCK) - records.len();
        self.sink.write_all(&[0; BLOCK][..padding])?;
        Ok(told)
    }

    /// Returns clamped PAX records, and the entry's size according to them.
    fn records(&mut self, data: &[u8]) -> io::Result<(Vec<u8>, Option<u64>)> {
        let (mut records, mut told) = (Vec::with_capacity(data.len()), None);
        let mut rest = data;
        while rest.first().is_some_and(|byte| *byte != 0) {
            let (key, value, after) = record(rest).ok_or_else(|| malformed("PAX record"))?;
            let whole = &rest[..rest.len() - after.len()];
            match key {
                // As in BuildKit, a record is only written if the value doesn't fit into the field.
                b"mtime" if (0..1 << 33).contains(&self.latest) && self.is_later(value)? => {
                    self.is_late = true;
                }
                b"mtime" | b"atime" | b"ctime" if !value.is_empty() && self.is_later(value)? => {
                    let key = std::str::from_utf8(key).map_err(io::Error::other)?;
                    encode_record(&mut records, key, self.latest.to_string().as_bytes());
                }
                b"size" => {
                    told = Some(number(value)?);
                    records.extend_from_slice(whole);
                }
                _ => records.extend_from_slice(whole),
            }
            rest = after;
        }
        records.extend_from_slice(rest);
        Ok((records, told))
    }

    fn is_later(&self, value: &[u8]) -> io::Result<bool> {
        let Timestamp { seconds, nanoseconds } = time(value)?;
        Ok((seconds, nanoseconds) > (self.latest, 0))
    }

    /// Sets a field of a header to the latest time if it is later.
    fn clamp(&self, field: &mut [u8]) -> io::Result<()> {
        if numeric(field).ok_or_else(|| malformed("time is not a number"))? <= self.latest {
            return Ok(());
        }
        let width = 3 * (field.len() - 1) as u32;
        match u64::try_from(self.latest) {
            Ok(latest) if latest < 1 << width => {
                octal(field, latest);
                if let Some(last) = field.last_mut() {
                    *last = 0;
                }
            }
            // The field is in GNU's base 256.
            _ => {
                let bytes = i128::from(self.latest).to_be_bytes();
                let from = bytes.len() - field.len();
                field.copy_from_slice(&bytes[from..]);
                field[0] |= 0x80;
            }
        }
        Ok(())
    }

    /// Copies the content of an entry and its padding. Some archives lack the padding of their last
    /// entry.
    fn content(&mut self, size: u64) -> io::Result<()> {
        let whole = size.next_multiple_of(BLOCK as u64);
        let copied = io::copy(&mut (&mut *self.archive).take(whole), self.sink)?;
        if copied < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads a block. Returns `false` at the end of the archive.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut read = 0;
        while read < BLOCK {
            match self.archive.read(&mut block[read..]) {
                Ok(0) if read == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Returns the checksum of a header: the sum of its bytes, with the checksum's own counted as
/// blanks.
fn sum(block: &[u8; BLOCK]) -> u64 {
    let bytes = block.iter().enumerate();
    bytes.map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum()
}

fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let told = numeric(&block[148..156]).and_then(|told| u64::try_from(told).ok());
    if told == Some(sum(block)) { Ok(()) } else { Err(malformed("not a tar header")) }
}

/// Writes the checksum into a header.
fn seal(block: &mut [u8; BLOCK]) {
    let sum = sum(block);
    put_sum(&mut block[148..156], sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_writer::{Fields, encode};

    const LATEST: i64 = 1_000_000_000;

    fn file(name: &str, mtime: i64, xattrs: &[(Vec<u8>, Vec<u8>)], content: &[u8]) -> Vec<u8> {
        let fields = Fields {
            name: name.as_bytes(),
            kind: b'0',
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: content.len() as u64,
            mtime,
            device: (0, 0),
            xattrs,
        };
        let mut encoded = encode(&fields);
        encoded.extend_from_slice(content);
        encoded.resize(encoded.len().next_multiple_of(BLOCK), 0);
        encoded
    }

    fn retimed(tar: &[u8], latest: i64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        retime(&mut &*tar, &mut out, latest).map(|()| out)
    }

    /// Returns the names, times and contents, as the `tar` crate reads them.
    fn listing(tar: &[u8]) -> Vec<(String, u64, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let mut mtime = entry.header().mtime().unwrap();
            for record in entry.pax_extensions().unwrap().into_iter().flatten() {
                let record = record.unwrap();
                if record.key() == Ok("mtime") {
                    mtime = record.value().unwrap().split('.').next().unwrap().parse().unwrap();
                }
            }
            (entry.path().unwrap().display().to_string(), mtime, content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn late_times_are_set_and_nothing_else() {
        let name = "n".repeat(120);
        let early = file("early", 7, &[], b"content");
        let late = file(&name, LATEST + 1, &[(b"user.x".to_vec(), b"y".to_vec())], &[b'z'; 600]);
        let end = [0; 1024 + 512];
        let tar = [&early[..], &late, &end].concat();
        let out = retimed(&tar, LATEST).unwrap();
        let expected = [
            &early[..],
            &file(&name, LATEST, &[(b"user.x".to_vec(), b"y".to_vec())], &[b'z'; 600]),
        ];
        assert_eq!(out, [&expected.concat()[..], &end].concat());
        // Earlier times are unchanged.
        assert_eq!(retimed(&tar, LATEST + 1).unwrap(), tar);
        assert_eq!(retimed(&out, LATEST).unwrap(), out);
    }

    #[test]
    fn times_in_records_are_set() {
        let far = 1 << 40;
        let tar = [&file("far", far, &[], b"x")[..], &[0; 1024]].concat();
        assert_eq!(listing(&tar), [("far".to_owned(), far as u64, b"x".to_vec())]);
        let out = retimed(&tar, LATEST).unwrap();
        assert_eq!(listing(&out), [("far".to_owned(), LATEST as u64, b"x".to_vec())]);
        assert_eq!(out, [&file("far", LATEST, &[], b"x")[..], &[0; 1024]].concat());
        assert_eq!(retimed(&tar, far).unwrap(), tar);
        let fraction = b"22 mtime=1000000000.5\n30 atime=1000000001.123456789\n12 ctime=12\n";
        let (archive, sink) = (&mut io::empty(), &mut io::sink());
        let mut records = Retimed { archive, sink, latest: LATEST, is_late: false };
        let (found, told) = records.records(fraction).unwrap();
        assert_eq!(found, b"20 atime=1000000000\n12 ctime=12\n");
        assert!(told.is_none() && records.is_late);
        records.latest = LATEST + 2;
        assert_eq!(records.records(fraction).unwrap().0, fraction);
    }

    #[test]
    fn gnu_headers_have_more_times() {
        let mut header = tar::Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_size(0);
        header.set_mtime(LATEST as u64 + 5);
        header.as_gnu_mut().unwrap().set_atime(LATEST as u64 + 6);
        header.as_gnu_mut().unwrap().set_ctime(3);
        header.set_cksum();
        let out = retimed(header.as_bytes(), LATEST).unwrap();
        let out = tar::Header::from_byte_slice(&out);
        assert_eq!(out.mtime().unwrap(), LATEST as u64);
        let gnu = out.as_gnu().unwrap();
        assert_eq!((gnu.atime().unwrap(), gnu.ctime().unwrap()), (LATEST as u64, 3));
    }

    #[test]
    fn times_before_1970_can_be_told() {
        let out = retimed(&file("x", 5, &[], b""), -3).unwrap();
        assert_eq!(numeric(&out[MTIME]), Some(-3));
    }

    #[test]
    fn malformed_archives_are_refused() {
        let good = file("x", 5, &[], b"content");
        let mut wrong = good.clone();
        wrong[0] ^= 1;
        for bad in [&wrong[..], &good[..600][..515], &good[..300], b"text"] {
            assert!(retimed(bad, LATEST).is_err());
        }
        assert!(retimed(b"", LATEST).unwrap().is_empty());
    }
}
