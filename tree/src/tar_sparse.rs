//! Sparse files in tars: GNU's old format, and the three formats in PAX records (0.0, 0.1, 1.0).

use std::io;

use tar::{EntryType, Header};

use crate::tar_reader::{TarReader, malformed, number, text_without_nul, unsigned};

/// The maximal number of segments of a file, enough for a map of about 1 MiB.
const MOST_SEGMENTS: usize = 50_000;

/// A part of a file that is in the archive. The gaps between parts are holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The offset of the beginning in the file, in bytes.
    pub offset: u64,
    /// The length in bytes.
    pub length: u64,
}

/// The PAX records of a sparse file.
#[derive(Default)]
pub(crate) struct SparseFormat {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    numbers: Vec<u64>,
    /// The number of segments.
    count: Option<u64>,
    /// `true` if a record declares a sparse file. Its map may be empty.
    told: bool,
}

/// A sparse file with its complete map.
pub(crate) struct Sparse {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) size: u64,
    pub(crate) segments: Vec<Segment>,
}

impl SparseFormat {
    /// Adds a record, whose `key` lacks the prefix `GNU.sparse.`.
    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.told = true;
        match key {
            b"major" => self.major = Some(number(value)?),
            b"minor" => self.minor = Some(number(value)?),
            b"name" => self.name = Some(text_without_nul(value)?),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            b"numblocks" => self.count = Some(number(value)?),
            b"offset" | b"numbytes" => {
                // The two keys alternate.
                if self.numbers.len().is_multiple_of(2) != (key == b"offset") {
                    return Err(malformed("sparse map"));
                }
                self.numbers.push(number(value)?);
            }
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').filter(|text| !text.is_empty());
                self.numbers = numbers.map(number).collect::<io::Result<_>>()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the map, which may have to be read from the content. Returns `None` for a file that
    /// isn't sparse.
    pub(crate) fn resolve(
        self,
        reader: &mut TarReader<'_>,
        kind: EntryType,
    ) -> io::Result<Option<Sparse>> {
        let numbers = match (self.major, self.minor) {
            (Some(1), Some(0)) => map_in_content(reader)?,
            (None | Some(0), _) if self.told => {
                if self.count != Some(self.numbers.len() as u64 / 2) {
                    return Err(malformed("sparse map of another length than it says"));
                }
                self.numbers
            }
            (None | Some(0), _) => return Ok(None),
            _ => return Err(malformed("sparse file of an unknown form")),
        };
        let size = self.size.ok_or_else(|| malformed("sparse file without a size"))?;
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return Err(malformed("sparse file that is not a file"));
        }
        if !numbers.len().is_multiple_of(2) {
            return Err(malformed("sparse map"));
        }
        let pairs = numbers.chunks_exact(2);
        let segments =
            pairs.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect::<Vec<_>>();
        Ok(Some(Sparse { name: self.name, size, segments }))
    }
}

/// Reads the map of format 1.0: lines of decimal numbers, padded to a block. The first line is the
/// number of pairs that follow.
fn map_in_content(reader: &mut TarReader<'_>) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut wanted = 1;
    let mut block = [0; 512];
    while numbers.len() < wanted {
        reader.read_exact(&mut block)?;
        for byte in block {
            if numbers.len() == wanted {
                break;
            }
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(malformed("sparse map"));
                }
                continue;
            }
            numbers.push(number(&line)?);
            line.clear();
            if numbers.len() == 1 {
                let pairs = usize::try_from(numbers[0]).unwrap_or(usize::MAX);
                if pairs > MOST_SEGMENTS {
                    return Err(malformed("sparse map is too large"));
                }
                wanted = 1 + 2 * pairs;
            }
        }
    }
    numbers.remove(0);
    Ok(numbers)
}

/// Reads the map of GNU's old format, from the header and the blocks behind it. Also returns the
/// file's size.
pub(crate) fn old_gnu(
    header: &Header,
    reader: &mut TarReader<'_>,
) -> io::Result<(u64, Vec<Segment>)> {
    let gnu = header.as_gnu().ok_or_else(|| malformed("sparse file without a GNU header"))?;
    let size = unsigned("size", &gnu.realsize)?;
    let mut segments = Vec::new();
    let mut add = |part: &tar::GnuSparseHeader| {
        if part.offset[0] != 0 && part.numbytes[0] != 0 {
            let offset = unsigned("offset", &part.offset)?;
            segments.push(Segment { offset, length: unsigned("length", &part.numbytes)? });
        }
        if segments.len() > MOST_SEGMENTS {
            Err(malformed("sparse map is too large"))
        } else {
            Ok(())
        }
    };
    gnu.sparse.iter().try_for_each(&mut add)?;
    let mut extended = gnu.is_extended();
    while extended {
        let mut block = tar::GnuExtSparseHeader::new();
        block.as_mut_bytes().copy_from_slice(&reader.header_block()?);
        block.sparse().iter().try_for_each(&mut add)?;
        extended = block.is_extended();
    }
    Ok((size, segments))
}

/// Checks that the segments of a map are in order and cover the whole content. The map must extend
/// to the end of the file: writers add an empty segment if the file ends in a hole. All segments
/// except the last must be whole blocks. Readers disagree about other maps.
pub(crate) fn check(segments: &[Segment], size: u64, content: u64) -> io::Result<()> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in segments {
        let after = segment.offset.checked_add(segment.length);
        let is_split = segment.length > 0 && !total.is_multiple_of(512);
        if segment.offset < end || is_split || after.is_none_or(|after| after > size) {
            return Err(malformed("sparse map"));
        }
        end = after.unwrap_or(size);
        total += segment.length;
    }
    if total == content && end == size { Ok(()) } else { Err(malformed("sparse map")) }
}
