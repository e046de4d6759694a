//! Limits against archive bombs.
//!
//! A small archive can expand to more than fits on any disk or in memory. The decoders bound their
//! own memory (`decompress`). The limits here bound the size to which a stream may grow, and the
//! number of files. The defaults are far beyond the needs of real images, and the user can raise
//! them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::decompress::{Compression, decompress};

/// The limits for unpacking an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// The maximal ratio of the uncompressed to the compressed size of a stream; `None` for no
    /// limit.
    pub max_ratio: Option<u64>,
    /// The number of bytes to which every stream may grow, whatever its ratio.
    pub free_bytes: u64,
    /// The maximal number of files and directories; `None` for no limit.
    pub max_entries: Option<u64>,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self { max_ratio: Some(500), free_bytes: 1 << 30, max_entries: Some(10_000_000) }
    }
}

impl ArchiveLimits {
    /// No limits at all.
    pub const NONE: Self = Self { max_ratio: None, free_bytes: 0, max_entries: None };

    /// Returns a reader of the uncompressed bytes of `reader`, and the compression. The reader
    /// fails when the stream exceeds the limit.
    ///
    /// # Errors
    /// Fails if the first bytes can't be read.
    pub fn decompress<'a, R: Read + Send + 'a>(
        &self,
        reader: R,
    ) -> io::Result<(Box<dyn Read + Send + 'a>, Compression)> {
        let packed = Arc::new(AtomicU64::new(0));
        let counted = Counted { reader, count: Arc::clone(&packed) };
        let (plain, compression) = decompress(counted)?;
        let Some(max_ratio) = self.max_ratio.filter(|_| compression != Compression::None) else {
            return Ok((plain, compression));
        };
        let free_bytes = self.free_bytes;
        Ok((Box::new(RatioReader { plain, packed, grown: 0, max_ratio, free_bytes }), compression))
    }
}

/// A reader that counts the bytes read from a compressed stream.
struct Counted<R> {
    reader: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// A reader that compares a decoder's output with its input.
struct RatioReader<'a> {
    plain: Box<dyn Read + Send + 'a>,
    packed: Arc<AtomicU64>,
    grown: u64,
    max_ratio: u64,
    free_bytes: u64,
}

impl Read for RatioReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.plain.read(buffer)?;
        self.grown = self.grown.saturating_add(length as u64);
        let packed = self.packed.load(Ordering::Relaxed);
        if self.grown > self.free_bytes && self.grown > packed.saturating_mul(self.max_ratio) {
            let (grown, ratio) = (self.grown, self.max_ratio);
            return Err(io::Error::other(format!(
                "{packed} compressed bytes became {grown}: the archive exceeds the limit of \
                 {ratio} times its size"
            )));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(length: u64) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::copy(&mut io::repeat(0).take(length), &mut encoder).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(length: u64) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        io::copy(&mut io::repeat(0).take(length), &mut encoder).unwrap();
        encoder.flush().unwrap();
        encoder.finish().unwrap()
    }

    fn length_of(stream: &[u8], limits: ArchiveLimits) -> io::Result<u64> {
        let (mut plain, _) = limits.decompress(stream)?;
        io::copy(&mut plain, &mut io::sink())
    }

    #[test]
    fn streams_grow_to_the_limit_and_no_further() {
        const LENGTH: u64 = 64 << 20;
        let limits = ArchiveLimits { free_bytes: 8 << 20, ..ArchiveLimits::default() };
        for bomb in [gzip(LENGTH), zstd(LENGTH)] {
            let error = length_of(&bomb, limits).unwrap_err().to_string();
            assert!(error.contains("exceeds the limit of 500 times its size"), "{error}");
            // The ratio of small streams is not limited, nor that of any stream if the user says
            // so.
            assert_eq!(length_of(&bomb, ArchiveLimits::default()).unwrap(), LENGTH);
            let raised = ArchiveLimits { max_ratio: Some(1 << 20), ..limits };
            assert_eq!(length_of(&bomb, raised).unwrap(), LENGTH);
            assert_eq!(length_of(&bomb, ArchiveLimits::NONE).unwrap(), LENGTH);
        }
        // An ordinary stream larger than the free bytes.
        let text: Vec<u8> = (0..1 << 20).flat_map(|n: u32| n.to_string().into_bytes()).collect();
        let packed = zstd::encode_all(&text[..], 1).unwrap();
        let limits = ArchiveLimits { free_bytes: 1 << 10, ..limits };
        assert_eq!(length_of(&packed, limits).unwrap(), text.len() as u64);
    }

    #[test]
    fn a_million_to_one_is_stopped_early() {
        // Each of the many frames is a few bytes and contains only zeros.
        let frame = zstd(16 << 20);
        let bomb = frame.repeat(1000);
        let limits = ArchiveLimits { free_bytes: 32 << 20, ..ArchiveLimits::default() };
        let (mut plain, _) = limits.decompress(&bomb[..]).unwrap();
        let (mut buffer, mut grown) = (vec![0; 1 << 16], 0_u64);
        while let Ok(length) = plain.read(&mut buffer) {
            grown += length as u64;
            assert!(length > 0 && grown <= 512 << 20, "{grown}");
        }
    }
}
