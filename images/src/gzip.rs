//! A gzip writer that compresses in parallel.
//!
//! The stream is split into blocks of fixed size. Each block is deflated separately, with the end
//! of the previous block as its dictionary, which costs hardly any compression ratio. It is flushed
//! to a byte boundary, so that the results can be concatenated. The boundaries depend only on the
//! content, so the output is the same for any number of threads. The header contains no time and no
//! name.
//!
//! Within a block, incompressible parts are found first and stored as they are: see `noise`.
//!
//! The blocks are compressed on rayon's threads. The budget limits the number of blocks in progress
//! of all writers together. A writer beyond the limit waits for its own oldest block.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use flate2::{Compress, FlushCompress};

use crate::budget::BlockPermit;
use crate::noise::{self, Piece};

/// The size of a block in bytes before compression.
const BLOCK: usize = 512 << 10;
/// The size of deflate's window in bytes.
const WINDOW: usize = 32 << 10;
/// The header: magic number, deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A writer that compresses with gzip into another writer.
#[derive(Debug)]
pub(crate) struct GzipWriter<W> {
    sink: W,
    level: u32,
    /// The current block. `before` holds the previous one.
    buffer: Vec<u8>,
    before: Arc<Vec<u8>>,
    under_way: VecDeque<PendingBlock>,
    begun: bool,
    crc: crc32fast::Hasher,
    length: u64,
}

/// A block in compression and its share of the budget. The only block of a writer may have no
/// share.
#[derive(Debug)]
struct PendingBlock {
    block: Receiver<io::Result<Block>>,
    _permit: Option<BlockPermit>,
}

/// A compressed block with the checksum and length of its content.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    crc: u32,
    length: u64,
}

impl<W: Write> GzipWriter<W> {
    /// Creates a writer into `sink`. Levels above 9 count as 9.
    pub(crate) fn new(sink: W, level: u32) -> Self {
        Self {
            sink,
            level: level.min(9),
            buffer: Vec::new(),
            before: Arc::default(),
            under_way: VecDeque::new(),
            begun: false,
            crc: crc32fast::Hasher::new(),
            length: 0,
        }
    }

    /// Ends the stream and returns the inner writer.
    ///
    /// # Errors
    /// Fails if the inner writer fails.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let last = deflate(&self.buffer, &self.before, self.level)?;
        while let Some(block) = self.oldest()? {
            self.put(&block)?;
        }
        self.put(&last)?;
        self.sink.write_all(&END)?;
        self.sink.write_all(&std::mem::take(&mut self.crc).finalize().to_le_bytes())?;
        self.sink.write_all(&(self.length as u32).to_le_bytes())?;
        Ok(self.sink)
    }

    /// Starts the compression of the full buffer.
    fn submit(&mut self) -> io::Result<()> {
        let permit = loop {
            if let Some(permit) = BlockPermit::try_new() {
                break Some(permit);
            }
            match self.oldest()? {
                Some(block) => self.put(&block)?,
                None => break None,
            }
        };
        let block = Arc::new(std::mem::replace(&mut self.buffer, Vec::with_capacity(BLOCK)));
        let before = std::mem::replace(&mut self.before, block.clone());
        let (sender, receiver) = channel();
        let level = self.level;
        rayon::spawn(move || {
            // The receiver is gone if the writer was dropped.
            let _ = sender.send(deflate(&block, &before, level));
        });
        self.under_way.push_back(PendingBlock { block: receiver, _permit: permit });
        Ok(())
    }

    /// Waits for the oldest block in compression. Returns `None` if there is no block.
    fn oldest(&mut self) -> io::Result<Option<Block>> {
        self.under_way.pop_front().map(|oldest| wait(&oldest.block)).transpose()
    }

    fn put(&mut self, block: &Block) -> io::Result<()> {
        if !self.begun {
            self.sink.write_all(&HEADER)?;
            self.begun = true;
        }
        self.sink.write_all(&block.bytes)?;
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(block.crc, block.length));
        self.length += block.length;
        Ok(())
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full block is submitted when more input follows, so that only an empty stream ends with
        // an empty block.
        if self.buffer.len() == BLOCK {
            self.submit()?;
        }
        let count = bytes.len().min(BLOCK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a block. A thread of the pool does other work meanwhile. Otherwise all of its threads
/// could wait for one another.
fn wait(block: &Receiver<io::Result<Block>>) -> io::Result<Block> {
    let died = || io::Error::other("the compressor ended early");
    loop {
        match block.try_recv() {
            Ok(result) => return result,
            Err(TryRecvError::Disconnected) => return Err(died()),
            Err(TryRecvError::Empty) => {}
        }
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => {}
            Some(rayon::Yield::Idle) => match block.recv_timeout(Duration::from_millis(1)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(died()),
            },
            None => return block.recv().map_err(|_| died())?,
        }
    }
}

/// The end of a deflate stream: an empty final block.
const END: [u8; 2] = [3, 0];
/// The maximum size of a stored deflate block in bytes.
const MAX_STORED: usize = 65_535;
/// The size below which pieces are compressed without a dictionary: loading one takes longer than
/// compressing the piece.
const SHORT: usize = 16 << 10;

fn deflate(block: &[u8], before: &[u8], level: u32) -> io::Result<Block> {
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
    Ok(Block { bytes, crc: crc32fast::hash(block), length: block.len() as u64 })
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
    use std::io::Read;

    use super::*;

    /// Returns content that compresses moderately, with stretches of noise.
    fn content(size: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut bytes = Vec::with_capacity(size + 16);
        while bytes.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = state >> 33;
            if bytes.len() % 100_000 < 20_000 {
                bytes.extend_from_slice(&(word ^ (word << 31)).to_le_bytes()[..4]);
            } else if word.is_multiple_of(3) {
                bytes.extend_from_slice(&word.to_le_bytes());
            } else {
                bytes.extend_from_slice(format!("{} ", word % 977).as_bytes());
            }
        }
        bytes.truncate(size);
        bytes
    }

    fn gzip(content: &[u8], step: usize) -> Vec<u8> {
        let mut writer = GzipWriter::new(Vec::new(), 6);
        for piece in content.chunks(step) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn reads_back() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 12_345] {
            let content = content(size);
            let packed = gzip(&content, 10_000);
            let mut unpacked = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&packed[..]);
            reader.read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == content, "{size}");
            assert!(reader.into_inner().is_empty(), "one member, nothing behind it");
        }
    }

    #[test]
    fn bytes_depend_on_the_content_alone() {
        let content = content(9 * BLOCK + 1);
        let expected = gzip(&content, BLOCK);
        for threads in [1, 2, 8] {
            for step in [1000, BLOCK, 3 * BLOCK] {
                let packed = with_threads(threads, || gzip(&content, step));
                assert!(packed == expected, "{threads} threads, {step} at once");
            }
        }
    }

    #[test]
    fn many_writers_on_one_thread_end() {
        let content = content(4 * BLOCK);
        with_threads(1, || {
            rayon::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|_| drop(gzip(&content, BLOCK)));
                }
            });
        });
    }

    #[test]
    fn dictionaries_help() {
        // The second block begins with the end of the first one.
        let unit = content(60_000).split_off(40_000);
        let mut both = vec![0; BLOCK - unit.len()];
        both.extend_from_slice(&unit);
        both.extend_from_slice(&unit);
        both.resize(2 * BLOCK, 0);
        let once = gzip(&unit, BLOCK).len();
        let packed = gzip(&both, BLOCK).len();
        assert!(packed < once + once / 2, "{packed}, {once} for one of the two");
    }

    #[test]
    fn gzip_itself_is_content() {
        use std::process::{Command, Stdio};

        let mut child = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let content = content(3 * BLOCK + 5);
        let packed = gzip(&content, BLOCK);
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&packed));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success());
        assert!(output.stdout == content);
    }
}
