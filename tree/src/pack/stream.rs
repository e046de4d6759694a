//! A buffered stream of tar blocks.

use std::fs::File;
use std::io::{self, Read, Write};

use super::header::BLOCK;

/// The size of the buffer in bytes: large enough to call the sink rarely, and small enough for the
/// processor's cache.
const BUFFER: usize = 256 * 1024;

/// The number of free bytes in the buffer from which a file is read to the buffer's end.
const LEAST_ROOM: usize = 32 * 1024;

/// A writer with a buffer, into which files are read directly.
pub(super) struct Stream<'a> {
    sink: &'a mut dyn Write,
    buffer: Vec<u8>,
    filled: usize,
    /// The number of bytes that the sink has received.
    written: u64,
}

impl<'a> Stream<'a> {
    pub(super) fn new(sink: &'a mut dyn Write) -> Self {
        Self { sink, buffer: vec![0; BUFFER], filled: 0, written: 0 }
    }

    /// Writes bytes to the buffer, and full buffers to the sink.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.filled == BUFFER {
                self.flush()?;
            }
            let count = bytes.len().min(BUFFER - self.filled);
            self.buffer[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Writes the content of a file, which must have exactly `size` bytes.
    pub(super) fn put_file(&mut self, mut file: &File, size: u64) -> io::Result<()> {
        let mut left = size;
        loop {
            // One byte more than expected is read, so that the same call shows that the file ends
            // there.
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1);
            if BUFFER - self.filled < wanted.min(LEAST_ROOM) {
                self.flush()?;
            }
            let room = wanted.min(BUFFER - self.filled);
            let count = match file.read(&mut self.buffer[self.filled..self.filled + room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if count as u64 > left {
                return Err(io::Error::other("the file has grown while it was read"));
            }
            self.filled += count;
            left -= count as u64;
            if left == 0 && count < room {
                return Ok(());
            }
            if count == 0 {
                return Err(io::Error::other("the file has shrunk while it was read"));
            }
        }
    }

    /// Fills the current block with zeros.
    pub(super) fn pad(&mut self) -> io::Result<()> {
        let odd = (self.written + self.filled as u64) as usize % BLOCK;
        if odd == 0 { Ok(()) } else { self.put(&[0; BLOCK][odd..]) }
    }

    /// Writes the end of the tar. Returns its length in bytes.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.put(&[0; 2 * BLOCK])?;
        self.flush()?;
        self.sink.flush()?;
        Ok(self.written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.write_all(&self.buffer[..self.filled])?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}
