//! Segments of a gzip stream.
//!
//! A segment is split into blocks of fixed size, which are deflated in parallel, each with the end
//! of the previous block as its dictionary. That costs hardly any compression ratio. Each block is
//! flushed to a byte boundary, so that the results can be concatenated. The boundaries depend only
//! on the content, so the output is the same for any number of threads.
//!
//! Within a block, incompressible parts are found first and stored as they are: see `noise`.

use std::io;

use flate2::{Compress, FlushCompress};
use rayon::prelude::*;

use crate::noise::{self, Piece};

/// The size of a block in bytes before compression.
const BLOCK: usize = 512 << 10;
/// The size of deflate's window in bytes.
const WINDOW: usize = 32 << 10;
/// The header: magic number, deflate, no flags, no time, no extra flags, unknown system.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The end of a deflate stream: an empty final block.
pub(crate) const END: [u8; 2] = [3, 0];
/// The maximum size of a stored deflate block in bytes.
const MAX_STORED: usize = 65_535;
/// The size below which pieces are compressed without a dictionary: loading one takes longer than
/// compressing the piece.
const SHORT: usize = 16 << 10;

/// Compresses a segment. Returns its bytes and the CRC-32 of its content.
pub(crate) fn deflate(segment: &[u8], level: u32) -> io::Result<(Vec<u8>, u32)> {
    let compress = |(number, block): (usize, &[u8])| {
        let start = number * BLOCK;
        let bytes = deflate_block(block, &segment[start.saturating_sub(WINDOW)..start], level)?;
        Ok::<_, io::Error>((bytes, crc32fast::hash(block)))
    };
    let blocks: Vec<(Vec<u8>, u32)> =
        segment.par_chunks(BLOCK).enumerate().map(compress).collect::<io::Result<_>>()?;
    let mut bytes = Vec::with_capacity(blocks.iter().map(|(bytes, _)| bytes.len()).sum());
    let mut crc = crc32fast::Hasher::new();
    for ((compressed, own), block) in blocks.iter().zip(segment.chunks(BLOCK)) {
        bytes.extend_from_slice(compressed);
        crc.combine(&crc32fast::Hasher::new_with_initial_len(*own, block.len() as u64));
    }
    Ok((bytes, crc.finalize()))
}

fn deflate_block(block: &[u8], before: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(block.len() / 2 + 1024);
    // Reused for the short pieces of this block only, and without dictionaries: zlib-rs's output
    // after a reset depends on the dictionary before it.
    let mut short = Compress::new(flate2::Compression::new(level), false);
    for Piece { range, is_noise } in noise::pieces(block) {
        let (piece, start) = (&block[range.clone()], range.start);
        if is_noise {
            store(piece, &mut bytes);
        } else if piece.len() < SHORT && start > 0 {
            short.reset();
            deflate_with(&mut short, piece, &mut bytes)?;
        } else {
            let mut compress = Compress::new(flate2::Compression::new(level), false);
            let past = if start == 0 { before } else { &block[..start] };
            let dictionary = &past[past.len().saturating_sub(WINDOW)..];
            if !dictionary.is_empty() {
                compress.set_dictionary(dictionary).map_err(io::Error::other)?;
            }
            deflate_with(&mut compress, piece, &mut bytes)?;
        }
    }
    Ok(bytes)
}

/// Appends a piece without compression. (RFC 1951, 3.2.4)
fn store(piece: &[u8], bytes: &mut Vec<u8>) {
    for part in piece.chunks(MAX_STORED) {
        let length = part.len() as u16;
        bytes.push(0);
        bytes.extend(length.to_le_bytes());
        bytes.extend((!length).to_le_bytes());
        bytes.extend_from_slice(part);
    }
}

/// Compresses a piece and flushes it to a byte boundary.
fn deflate_with(compress: &mut Compress, piece: &[u8], bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.reserve(piece.len() / 2 + 1024);
    loop {
        let done = compress.total_in() as usize;
        let rest = piece.get(done..).unwrap_or_default();
        compress.compress_vec(rest, bytes, FlushCompress::Sync).map_err(io::Error::other)?;
        // Spare capacity means that all output has been written.
        if compress.total_in() as usize == piece.len() && bytes.len() < bytes.capacity() {
            return Ok(());
        }
        bytes.reserve(64 << 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_help() {
        // The second block begins with the end of the first one.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{} ", (state >> 33) % 977)
        };
        let unit: Vec<u8> = std::iter::repeat_with(&mut next).take(6000).collect::<String>().into();
        let unit = &unit[..20_000];
        let mut both = vec![0; BLOCK - unit.len()];
        both.extend_from_slice(unit);
        both.extend_from_slice(unit);
        both.resize(2 * BLOCK, 0);
        let once = deflate(unit, 6).unwrap().0.len();
        let packed = deflate(&both, 6).unwrap().0.len();
        assert!(packed < once + once / 2, "{packed}, {once} for one of the two");
    }
}
