//! A file for waiting output.
//!
//! The file has no name. It holds a series of records, each with a vertex, a stream, a length and
//! the bytes. Records are appended at the end and read from the beginning. An empty file is
//! truncated and written from its start again.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::event::{Event, LogStream, VertexId};

/// The length of a record's header in bytes.
const HEAD: u64 = 9;

/// A function that creates the file.
type Make = dyn Fn() -> io::Result<File> + Send + Sync;

/// The source of the file for output that a receiver doesn't take in time.
#[derive(Clone)]
pub struct Spool(Option<Arc<Make>>);

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spool").field(&self.0.is_some()).finish()
    }
}

impl Spool {
    /// Returns a spool without a file: excess output is dropped.
    pub fn none() -> Self {
        Self(None)
    }

    /// Returns a spool that calls `make` to create its file when it is first needed. The file must
    /// be readable, writable and not shared.
    pub fn with(make: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(make)))
    }

    /// Creates the spool's file.
    pub(crate) fn open(&self) -> io::Result<SpoolFile> {
        let Some(make) = &self.0 else { return Err(io::ErrorKind::Unsupported.into()) };
        Ok(SpoolFile { file: Arc::new(make()?), read: 0, written: 0 })
    }
}

/// The open file of a spool.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    file: Arc<File>,
    /// The offsets of the next record to read and to write.
    read: u64,
    written: u64,
}

impl SpoolFile {
    /// Returns the number of bytes that wait in the file.
    pub(crate) fn waiting(&self) -> u64 {
        self.written - self.read
    }

    /// Appends output and returns the length of its record.
    pub(crate) fn push(
        &mut self,
        id: VertexId,
        stream: LogStream,
        bytes: &[u8],
    ) -> io::Result<u64> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity(bytes.len() + HEAD as usize);
        record.extend(id.to_le_bytes());
        record.push(u8::from(stream == LogStream::Stderr));
        record.extend(length.to_le_bytes());
        record.extend(bytes);
        // The next record overwrites a partly written one.
        self.file.write_all_at(&record, self.written)?;
        self.written += record.len() as u64;
        Ok(record.len() as u64)
    }

    /// Takes the first record. Returns its event and its length.
    pub(crate) fn pop(&mut self) -> io::Result<(Event, u64)> {
        let mut head = [0; HEAD as usize];
        self.file.read_exact_at(&mut head, self.read)?;
        let [a, b, c, d, stream, length @ ..] = head;
        let id = VertexId::from_le_bytes([a, b, c, d]);
        let stream = if stream == 0 { LogStream::Stdout } else { LogStream::Stderr };
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.file.read_exact_at(&mut bytes, self.read + HEAD)?;
        let length = HEAD + bytes.len() as u64;
        self.read += length;
        if self.waiting() == 0 {
            (self.read, self.written) = (0, 0);
            // A file that can't be truncated only keeps its disk space.
            let _ = self.file.set_len(0);
        }
        Ok((Event::Log { id, stream, bytes }, length))
    }
}
