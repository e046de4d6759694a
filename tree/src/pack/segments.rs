//! A plan in segments, which are keyed and read one by one.
//!
//! The segments follow one another without gaps, and the last one includes the end of the tar. See
//! `cut` for their boundaries. A segment's *key* is a digest of its headers and of the digests of
//! its files, so it can be computed without reading files whose digests are known.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use rayon::prelude::*;

use super::cut::{Cutter, PART, Shape};
use super::header::BLOCK;
use super::{Item, Plan};
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::names;
use crate::walk::Opener;

/// A prefix of everything that is keyed. It changes with the format of headers and cuts.
const FORM: &[u8] = b"kiln segment 1";

/// The number of items whose headers are encoded at once to find the cuts.
const AT_ONCE: usize = 1 << 14;

/// The BLAKE3 digest of a file's content.
pub type ContentDigest = [u8; 32];

/// A place in a tar: the header of an item, or an offset in its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    item: usize,
    /// Zero for the header.
    offset: u64,
}

/// A plan whose tar is cut into segments.
#[derive(Debug)]
pub struct Segments<'a, 'd> {
    plan: &'a Plan<'d>,
    /// The start of each segment.
    starts: Vec<Position>,
    /// The length of each segment in bytes.
    lengths: Vec<u64>,
}

/// A part of a large file that is in several segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// The item of the file.
    pub item: usize,
    /// The place of the content in the segment.
    pub bytes: Range<usize>,
    /// `true` for the last part of the file.
    pub is_end: bool,
}

/// The part of an item that is in one segment.
struct Piece<'a> {
    number: usize,
    item: &'a Item,
    /// The first byte of the content; zero includes the header.
    start: u64,
    /// The end of the content in this segment.
    end: u64,
}

impl Piece<'_> {
    fn has_head(&self) -> bool {
        self.start == 0
    }

    fn is_whole(&self) -> bool {
        self.start == 0 && self.end == self.item.size()
    }

    /// Returns the number of content bytes with their padding.
    fn padded(&self) -> u64 {
        if self.end == self.item.size() {
            (self.end - self.start).next_multiple_of(BLOCK as u64)
        } else {
            self.end - self.start
        }
    }
}

impl<'d> Plan<'d> {
    /// Cuts the tar into segments. Reads no file.
    pub fn segments(&self) -> Segments<'_, 'd> {
        let mut cutter = Cutter::default();
        let mut segments = Segments {
            plan: self,
            starts: vec![Position { item: 0, offset: 0 }],
            lengths: vec![0],
        };
        for (number, items) in self.items.chunks(AT_ONCE).enumerate() {
            let shapes: Vec<Shape> =
                items.par_iter().map_init(Vec::new, |head, item| self.shape(item, head)).collect();
            for (place, shape) in shapes.iter().enumerate() {
                segments.add(number * AT_ONCE + place, shape, &mut cutter);
            }
        }
        segments.grow(2 * BLOCK as u64);
        segments
    }

    fn shape(&self, item: &Item, head: &mut Vec<u8>) -> Shape {
        head.clear();
        self.encode_head(item, head);
        Shape::new(head, item.size())
    }

    fn encode_head(&self, item: &Item, head: &mut Vec<u8>) {
        let path = self.placed(item.entry.path.to_vec());
        self.header(item, &path, item.size()).encode(head);
    }
}

impl Segments<'_, '_> {
    fn add(&mut self, item: usize, shape: &Shape, cutter: &mut Cutter) {
        if cutter.add(shape) {
            self.start(Position { item, offset: 0 });
        }
        let (content, cuts) = (shape.content.next_multiple_of(BLOCK as u64), shape.inner_cuts());
        self.grow(shape.head);
        for cut in 1..=cuts {
            self.grow(PART);
            self.start(Position { item, offset: cut * PART });
        }
        self.grow(content - cuts * PART);
    }

    fn start(&mut self, position: Position) {
        self.starts.push(position);
        self.lengths.push(0);
    }

    fn grow(&mut self, bytes: u64) {
        if let Some(last) = self.lengths.last_mut() {
            *last += bytes;
        }
    }

    /// Returns the number of segments, which is at least one.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Returns the length of a segment in bytes.
    pub fn length(&self, segment: usize) -> u64 {
        self.lengths[segment]
    }

    /// Returns the number of items. The functions below number files by their items.
    pub fn items(&self) -> usize {
        self.plan.items.len()
    }

    /// Returns the metadata of the file whose content follows the header of an item, as its walk
    /// found it. Returns `None` if no content follows.
    pub fn file(&self, item: usize) -> Option<Metadata> {
        let item = self.plan.items.get(item).filter(|item| item.size() > 0)?;
        let mut metadata = item.entry.metadata.clone();
        metadata.mtime = item.origin.as_ref().map_or(metadata.mtime, |origin| origin.mtime);
        Some(metadata)
    }

    /// Returns the part of a large file with which a segment begins, if it doesn't contain the
    /// whole file.
    pub fn part(&self, segment: usize) -> Option<FilePart> {
        let piece = self.pieces(segment).next().filter(|piece| !piece.is_whole())?;
        let mut head = Vec::new();
        if piece.has_head() {
            self.plan.encode_head(piece.item, &mut head);
        }
        let end = head.len() + (piece.end - piece.start) as usize;
        let is_end = piece.end == piece.item.size();
        Some(FilePart { item: piece.number, bytes: head.len()..end, is_end })
    }

    /// Returns the key of a segment. `digest` returns the digests of files. Returns `None` if one
    /// of them is unknown.
    pub fn key(
        &self,
        segment: usize,
        digest: impl Fn(usize) -> Option<ContentDigest>,
    ) -> Option<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORM);
        let mut head = Vec::with_capacity(2048);
        for piece in self.pieces(segment) {
            head.clear();
            if piece.has_head() {
                self.plan.encode_head(piece.item, &mut head);
            }
            hasher.update(&(head.len() as u64).to_le_bytes());
            hasher.update(&head);
            if piece.end > piece.start {
                hasher.update(&digest(piece.number)?);
                hasher.update(&piece.start.to_le_bytes());
                hasher.update(&piece.end.to_le_bytes());
            }
        }
        hasher.update(&[u8::from(self.is_last(segment))]);
        Some(hasher.finalize().into())
    }

    fn is_last(&self, segment: usize) -> bool {
        segment + 1 == self.starts.len()
    }

    fn pieces(&self, segment: usize) -> impl Iterator<Item = Piece<'_>> {
        let from = self.starts[segment];
        let to = self.starts.get(segment + 1).copied();
        let to = to.unwrap_or(Position { item: self.plan.items.len(), offset: 0 });
        let last = if to.offset > 0 { to.item + 1 } else { to.item };
        (from.item..last).map(move |number| {
            let item = &self.plan.items[number];
            let start = if number == from.item { from.offset } else { 0 };
            let end = if number == to.item { to.offset } else { item.size() };
            Piece { number, item, start, end }
        })
    }

    /// Reads a segment into the beginning of `buffer`, which grows if it is too short. Calls
    /// `whole` with each file that is in the segment as a whole.
    ///
    /// Returns `false` if a file differs from what its walk found. The segment is unusable then,
    /// and the tar has to be written by [`Plan::write`], which reads files as they are.
    ///
    /// # Errors
    /// Fails if a file can't be read.
    pub fn read(
        &self,
        segment: usize,
        buffer: &mut Vec<u8>,
        whole: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<bool> {
        let length = self.lengths[segment] as usize;
        if buffer.len() < length + 1 {
            buffer.resize(length + 1, 0);
        }
        let mut openers: Vec<_> = self.plan.dirs.iter().map(|dir| Opener::new(dir)).collect();
        let mut head = Vec::with_capacity(2048);
        let mut filled = 0;
        for piece in self.pieces(segment) {
            if piece.has_head() {
                head.clear();
                self.plan.encode_head(piece.item, &mut head);
                buffer[filled..filled + head.len()].copy_from_slice(&head);
                filled += head.len();
            }
            if piece.end == piece.start {
                continue;
            }
            let size = (piece.end - piece.start) as usize;
            if !self.read_piece(&piece, &mut buffer[filled..], &mut openers)? {
                return Ok(false);
            }
            if piece.is_whole() {
                whole(piece.number, &buffer[filled..filled + size]);
            }
            let end = filled + piece.padded() as usize;
            buffer[filled + size..end].fill(0);
            filled = end;
        }
        buffer[filled..length].fill(0);
        Ok(true)
    }

    /// Reads content, and one byte more at the end of the file, to see that it ends there.
    fn read_piece(
        &self,
        piece: &Piece<'_>,
        buffer: &mut [u8],
        openers: &mut [Opener<'_>],
    ) -> Result<bool> {
        let item = piece.item;
        let (dir, path) = match &item.origin {
            Some(origin) => (origin.dir, &origin.path),
            None => (0, &item.entry.path),
        };
        let failed = |error: io::Error| Error::io("read", names::path(&path.to_vec()), error);
        let file = openers[dir].open_entry(path)?;
        let size = (piece.end - piece.start) as usize;
        let is_end = piece.end == item.size();
        let wanted = size + usize::from(is_end);
        let read = read_at(&file, &mut buffer[..wanted], piece.start, size).map_err(failed)?;
        let found = Metadata::of_fd(file.as_fd()).map_err(|errno| failed(errno.into()))?;
        Ok(read == size && self.is_same(piece.number, &found))
    }

    /// Returns `true` if an opened file is the one that the walk found.
    fn is_same(&self, item: usize, found: &Metadata) -> bool {
        // Nothing changes the content of a file in a layer's tree, and a further name of the file
        // changes only the last time.
        let times = |metadata: &Metadata| {
            let changed = self.plan.items[item].origin.as_ref().map(|_| metadata.ctime);
            (metadata.mtime, changed.unwrap_or_default())
        };
        self.file(item).is_some_and(|known| {
            known.kind == found.kind
                && known.size == found.size
                && (known.device, known.inode) == (found.device, found.inode)
                && times(&known) == times(found)
        })
    }
}

/// Reads until the buffer is full or the file ends. A short read shows the end of a file that has
/// the `expected` size.
fn read_at(file: &File, buffer: &mut [u8], offset: u64, expected: usize) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == expected {
            break;
        }
    }
    Ok(filled)
}

/// Returns the digest of a file's content, in the form that [`Segments::key`] takes.
pub fn content_of(bytes: &[u8]) -> ContentDigest {
    blake3::hash(bytes).into()
}
