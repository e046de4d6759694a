//! The segments of a tar that arrives as a stream.
//!
//! A tar that [`super::Plan`] writes gets the same segments as from [`super::Segments`]. For that
//! purpose the slicer reads the headers: their lengths, the sizes in them and their names. It
//! changes nothing, and can't fail. Where it doesn't understand a header, and after the end of the
//! archive, it cuts after a fixed number of bytes.

use super::cut::{Cutter, MOST, PART, Shape};
use super::header::BLOCK;

/// The maximal length in bytes of the extended headers of an entry.
const LONGEST_HEAD: u64 = 1 << 20;

/// The length in bytes of segments without headers. It exceeds the length of other segments with
/// the end of the tar.
const RAW: usize = MOST as usize + (64 << 10);

/// A slicer of a tar into segments.
#[derive(Debug)]
pub struct Slicer {
    cutter: Cutter,
    /// The bytes since the last cut, without those in `head`.
    segment: Vec<u8>,
    /// The headers of the current entry, as far as they are complete.
    head: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The next bytes belong to headers, which have `needed` bytes in total, or more.
    Head { needed: usize },
    /// The next `left` bytes are content and padding. The tar is cut after `cut` bytes, if they
    /// aren't the last ones.
    Content { left: u64, cut: u64 },
    /// The rest of the stream is unknown.
    Raw,
}

/// The meaning of a header's last block.
enum Header {
    /// An extended header with this number of content bytes, including padding.
    Extended(u64),
    /// An entry with this number of content bytes.
    Entry(u64),
    /// The end of the archive, or no header.
    Unknown,
}

impl Default for Slicer {
    fn default() -> Self {
        let state = State::Head { needed: BLOCK };
        Self { cutter: Cutter::default(), segment: Vec::new(), head: Vec::new(), state }
    }
}

impl Slicer {
    /// Adds the next bytes of the tar. Calls `emit` with each segment that ends.
    ///
    /// # Errors
    /// Returns the error of `emit`.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        emit: &mut dyn FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let count = self.take(bytes, emit)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Returns the last segment. It is empty if the tar is.
    pub fn finish(mut self) -> Vec<u8> {
        self.segment.append(&mut self.head);
        self.segment
    }

    /// Takes some of the bytes, at least one, and returns their number.
    fn take<E>(
        &mut self,
        bytes: &[u8],
        emit: &mut dyn FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let count = match &mut self.state {
            State::Head { needed } => {
                let count = bytes.len().min(*needed - self.head.len());
                self.head.extend_from_slice(&bytes[..count]);
                if self.head.len() == *needed {
                    self.end_head(emit)?;
                }
                return Ok(count);
            }
            State::Content { left, cut } => {
                let count = bytes.len().min((*left).min(*cut).try_into().unwrap_or(usize::MAX));
                (*left, *cut) = (*left - count as u64, *cut - count as u64);
                count
            }
            State::Raw => bytes.len().min(RAW.saturating_sub(self.segment.len()).max(1)),
        };
        self.segment.extend_from_slice(&bytes[..count]);
        match &mut self.state {
            State::Content { left: 0, .. } => self.state = State::Head { needed: BLOCK },
            State::Content { cut, .. } if *cut == 0 => {
                *cut = PART;
                emit(std::mem::take(&mut self.segment))?;
            }
            State::Raw if self.segment.len() >= RAW => emit(std::mem::take(&mut self.segment))?,
            _ => {}
        }
        Ok(count)
    }

    /// Interprets the last block of the headers.
    fn end_head<E>(&mut self, emit: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        match self.meaning() {
            Header::Extended(content) => {
                let needed = self.head.len() + content as usize + BLOCK;
                self.state = State::Head { needed };
                return Ok(());
            }
            Header::Unknown => self.state = State::Raw,
            Header::Entry(content) => {
                let shape = Shape::new(&self.head, content);
                if self.cutter.add(&shape) {
                    emit(std::mem::take(&mut self.segment))?;
                }
                // The last part and its padding are not longer than the others.
                let cut = if shape.inner_cuts() > 0 { PART } else { u64::MAX };
                let left = content.next_multiple_of(BLOCK as u64);
                self.state = match left {
                    0 => State::Head { needed: BLOCK },
                    _ => State::Content { left, cut },
                };
            }
        }
        self.segment.append(&mut self.head);
        Ok(())
    }

    fn meaning(&self) -> Header {
        let block = &self.head[self.head.len() - BLOCK..];
        if !has_sum(block) {
            return Header::Unknown;
        }
        let Some(size) = number(&block[124..136]) else { return Header::Unknown };
        match block[156] {
            b'x' | b'g' | b'L' | b'K' => {
                let content = size.next_multiple_of(BLOCK as u64);
                let length = self.head.len() as u64 + content;
                if size <= LONGEST_HEAD && length <= LONGEST_HEAD {
                    Header::Extended(content)
                } else {
                    Header::Unknown
                }
            }
            // These types have no content, whatever the size says.
            b'1'..=b'6' => Header::Entry(0),
            _ if size > 0 => Header::Entry(size),
            _ => Header::Entry(self.extended_size().unwrap_or(0)),
        }
    }

    /// Returns the size in the extended headers.
    fn extended_size(&self) -> Option<u64> {
        let mut rest = &self.head[..self.head.len() - BLOCK];
        let mut found = None;
        while rest.len() > BLOCK {
            let (block, content) = rest.split_at(BLOCK);
            let size = number(&block[124..136])? as usize;
            if block[156] == b'x' {
                found = size_in(content.get(..size)?).or(found);
            }
            rest = content.get(size.next_multiple_of(BLOCK)..)?;
        }
        found
    }
}

/// Returns the size in PAX records: each has its length, a space, its key, `=`, its value and the
/// end of a line.
fn size_in(mut records: &[u8]) -> Option<u64> {
    let mut found = None;
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?;
        if let Some(value) = record.strip_prefix(b"size=") {
            let digits = std::str::from_utf8(value.strip_suffix(b"\n")?).ok()?;
            found = digits.parse().ok().filter(|size| *size <= i64::MAX.cast_unsigned());
        }
        records = &records[length..];
    }
    found
}

/// Returns `true` if the checksum of a header is right.
fn has_sum(block: &[u8]) -> bool {
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
    number(&block[148..156]) == Some(sum - own + 8 * u64::from(b' '))
}

/// Returns the number in a field: octal digits, or a binary number of at most 62 bits.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        let (high, low) = field.split_at(field.len() - 8);
        let value = low.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        return (high[1..].iter().all(|byte| *byte == 0) && value >> 62 == 0).then_some(value);
    }
    let end = field.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |end| end + 1);
    let start = field[..end].iter().position(|byte| *byte != b' ').unwrap_or(end);
    field[start..end].iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => Some(value << 3 | u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::dir::Dir;
    use crate::pack::{PackOptions, Plan, Whiteouts};

    const OPTIONS: PackOptions = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };

    fn sliced(tar: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut slicer, mut segments) = (Slicer::default(), Vec::new());
        let mut emit = |segment| {
            segments.push(segment);
            Ok::<_, Infallible>(())
        };
        for bytes in tar.chunks(step) {
            slicer.push(bytes, &mut emit).unwrap();
        }
        segments.push(slicer.finish());
        segments
    }

    /// Creates a tree with all kinds of headers, and files around the sizes at which a tar is cut.
    fn tree(root: &std::path::Path) {
        let part = PART as usize;
        for (number, size) in
            [0, 1, 511, 512, part - 1, part, part + 1, 2 * part - 10, 2 * part, 3 * part + 700]
                .into_iter()
                .enumerate()
        {
            std::fs::write(root.join(format!("large{number}")), vec![number as u8; size]).unwrap();
        }
        for number in 0..3000 {
            let directory = root.join(format!("d{}", number / 100));
            std::fs::create_dir_all(&directory).unwrap();
            let bytes = vec![b'x'; number * 7919 % 9000];
            std::fs::write(directory.join(format!("file{number}")), bytes).unwrap();
        }
        let long = root.join("d0").join("n".repeat(180));
        std::fs::write(&long, "").unwrap();
        std::fs::write(root.join(format!("{} size=77", "p".repeat(120))), "").unwrap();
        symlink("t".repeat(200), root.join("link")).unwrap();
        std::fs::hard_link(root.join("large4"), root.join("hard")).unwrap();
    }

    #[test]
    fn streams_and_plans_have_the_same_segments() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path());
        let dir = Dir::open(temp.path()).unwrap();
        let plan = Plan::new(&dir, OPTIONS).unwrap();
        let mut tar = Vec::new();
        plan.write(&mut tar).unwrap();
        let found = sliced(&tar, 70_001);
        let segments = plan.segments();
        assert_eq!(found.len(), segments.count());
        assert!(found.len() > 12, "{}", found.len());
        for (number, segment) in found.iter().enumerate() {
            let (mut buffer, mut whole) = (vec![0xff; 10], 0);
            assert!(segments.read(number, &mut buffer, &mut |_, _| whole += 1).unwrap());
            assert_eq!(segments.length(number), segment.len() as u64);
            assert!(buffer[..segment.len()] == segment[..], "segment {number}");
        }
        assert_eq!(found.concat(), tar);
        assert_eq!(sliced(&tar, 512), found);
        assert_eq!(sliced(&tar, tar.len()), found);
    }

    #[test]
    fn keys_tell_segments_apart_and_need_no_files() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path());
        let dir = Dir::open(temp.path()).unwrap();
        let keys = |plan: &Plan<'_>| -> Vec<[u8; 32]> {
            let segments = plan.segments();
            let read = |item: usize| {
                let path = &plan.items()[item].entry.path;
                std::fs::read(temp.path().join(crate::names::path(&path.to_vec()))).ok()
            };
            let digest = |item| read(item).map(|bytes| crate::pack::content_of(&bytes));
            (0..segments.count()).map(|number| segments.key(number, digest).unwrap()).collect()
        };
        let before = keys(&Plan::new(&dir, OPTIONS).unwrap());
        let mut unique = before.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), before.len());
        std::fs::write(temp.path().join("d7/file777"), "other").unwrap();
        let plan = Plan::new(&dir, OPTIONS).unwrap();
        let after = keys(&plan);
        let new = after.iter().filter(|key| !before.contains(key)).count();
        assert!((1..=3).contains(&new), "{new} of {}", after.len());
        assert!(plan.segments().key(0, |_| None).is_none());
    }

    #[test]
    fn parts_of_large_files_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 * PART + 5).map(|byte| (byte / 1000) as u8).collect();
        std::fs::write(temp.path().join("a"), &content).unwrap();
        std::fs::write(temp.path().join("b"), "b").unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let plan = Plan::new(&dir, OPTIONS).unwrap();
        let segments = plan.segments();
        let (mut found, mut buffer) = (Vec::new(), Vec::new());
        for number in 0..segments.count() {
            assert!(segments.read(number, &mut buffer, &mut |_, _| {}).unwrap());
            let part = segments.part(number).unwrap();
            assert_eq!((part.item, part.is_end), (0, number == 3));
            found.extend_from_slice(&buffer[part.bytes]);
        }
        assert!(found == content);
    }

    #[test]
    fn changed_files_are_noticed() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), "one").unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let plan = Plan::new(&dir, OPTIONS).unwrap();
        let read = || plan.segments().read(0, &mut Vec::new(), &mut |_, _| {}).unwrap();
        assert!(read());
        for content in ["three", "o", ""] {
            std::fs::write(temp.path().join("a"), content).unwrap();
            assert!(!read(), "{content}");
        }
    }

    #[test]
    fn anything_is_cut_somewhere() {
        let noise: Vec<u8> = (0..3 * RAW as u64 + 5)
            .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect();
        for bytes in [&noise[..], &vec![0; 3 * RAW][..], b"", b"short"] {
            let segments = sliced(bytes, 100_000);
            assert_eq!(segments.concat(), bytes);
            assert!(segments.iter().all(|segment| segment.len() <= RAW));
        }
    }
}
