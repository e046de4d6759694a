//! The compression of a layer's segments, and the frame around them.
//!
//! Each segment is compressed without regard to the others, so that its bytes depend on its content
//! alone. The results, one after the other, are one stream:
//! - of gzip: deflate blocks that end at a byte boundary, within one member;
//! - of zstd: a frame for each segment;
//! - of plain tar: the segments themselves.

use std::io;

use crate::compression::{Compression, Packing};
use crate::gzip;

/// A compressed segment.
#[derive(Debug)]
pub(crate) struct PackedSegment {
    /// The compressed bytes.
    pub(crate) bytes: Vec<u8>,
    /// The CRC-32 of the content; only for gzip.
    pub(crate) crc: u32,
    /// The length of the content.
    pub(crate) length: u64,
}

impl PackedSegment {
    /// Compresses a segment. Uses other threads of the pool.
    pub(crate) fn new(content: &[u8], packing: Packing) -> io::Result<Self> {
        let length = content.len() as u64;
        let (bytes, crc) = match packing.compression {
            Compression::Uncompressed => (content.to_vec(), 0),
            Compression::Gzip => gzip::deflate(content, packing.level())?,
            Compression::Zstd => (zstd::bulk::compress(content, packing.level().cast_signed())?, 0),
        };
        Ok(Self { bytes, crc, length })
    }
}

/// The beginning and the end of a stream of segments.
#[derive(Debug)]
pub(crate) struct Frame {
    compression: Compression,
    crc: crc32fast::Hasher,
    length: u64,
}

impl Frame {
    pub(crate) fn new(compression: Compression) -> Self {
        Self { compression, crc: crc32fast::Hasher::new(), length: 0 }
    }

    /// Returns the bytes before the first segment.
    pub(crate) fn head(&self) -> &'static [u8] {
        if self.compression == Compression::Gzip { &gzip::HEADER } else { &[] }
    }

    /// Adds the checksum and the length of a segment's content.
    pub(crate) fn add(&mut self, crc: u32, length: u64) {
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(crc, length));
        self.length += length;
    }

    /// Returns the bytes behind the last segment.
    pub(crate) fn tail(self) -> Vec<u8> {
        if self.compression != Compression::Gzip {
            return Vec::new();
        }
        let mut tail = gzip::END.to_vec();
        tail.extend(self.crc.finalize().to_le_bytes());
        tail.extend((self.length as u32).to_le_bytes());
        tail
    }
}
