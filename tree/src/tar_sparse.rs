//! Sparse files in tars: GNU's old form, and the three forms in PAX records (0.0, 0.1, 1.0).

use std::io;

use tar::{EntryType, Header};

use crate::tar_reader::{TarReader, malformed, number, text_without_nul, unsigned};

/// Most segments of a file: a map of about 1 MiB.
const MOST_SEGMENTS: usize = 50_000;

/// A part of a file that is in the archive; between them there are holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// What PAX records say of a sparse file.
#[derive(Default)]
pub(crate) struct SparseFormat {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    numbers: Vec<u64>,
    /// How many segments there are.
    count: Option<u64>,
    /// Whether there is a record that tells of a sparse file; it may have an empty map.
    told: bool,
}

/// A sparse file whose map has been read.
pub(crate) struct Sparse {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) size: u64,
    pub(crate) segments: Vec<Segment>,
}

impl SparseFormat {
    /// Takes in a record, whose key comes without its `GNU.sparse.`.
    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.told = true;
        match key {
            b"major" => self.major = Some(number(value)?),
            b"minor" => self.minor = Some(number(value)?),
            b"name" => self.name = Some(text_without_nul(value)?),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            b"numblocks" => self.count = Some(number(value)?),
            b"offset" | b"numbytes" => {
                // They alternate.
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

    /// Returns the map, reading it from the content where it is there; `None` for a file that isn't
    /// sparse.
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

/// Reads the map of form 1.0: lines of decimal numbers, the first says how many pairs follow, padded
/// to a block.
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

/// Reads the map of GNU's old form: in the header, and in blocks behind it. Returns the file's size,
/// too.
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

/// Checks that a map is in order, and of all the content that is left. It goes to the end of the file:
/// where a file ends in a hole, writers say so by an empty segment. And segments are whole blocks but
/// for the last one. Of what isn't so, readers make different files.
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
