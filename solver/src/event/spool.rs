//! Output that waits in a file.
//!
//! The file has no name and is a series of records: vertex, stream and length, then the bytes. It is
//! written at its end and read from its beginning; what was read is given back to the file system,
//! and an empty file starts anew.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Event, LogStream, VertexId};

/// Length of a record's head.
const HEAD: u64 = 9;

/// Makes the file.
type Make = dyn Fn() -> io::Result<File> + Send + Sync;

/// Where output waits that its receiver doesn't take in time.
#[derive(Clone)]
pub struct Spool(Option<Arc<Make>>);

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spool").field(&self.0.is_some()).finish()
    }
}

impl Spool {
    /// Returns a spool without a file.
    pub fn none() -> Self {
        Self(None)
    }

    /// Returns a spool whose file is made by `make`, when it is needed: a file of its own that can
    /// be read and written.
    pub fn with(make: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(make)))
    }

    /// Makes the file.
    pub(super) fn open(&self) -> io::Result<SpoolFile> {
        let Some(make) = &self.0 else { return Err(io::ErrorKind::Unsupported.into()) };
        Ok(SpoolFile { file: Arc::new(make()?), read: 0, written: 0 })
    }
}

/// The file of a spool.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: Arc<File>,
    /// Up to where it was read and written.
    read: u64,
    written: u64,
}

impl SpoolFile {
    /// Returns how many bytes wait.
    pub(super) fn waiting(&self) -> u64 {
        self.written - self.read
    }

    /// Adds output, and returns the length of its record.
    pub(super) fn push(
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
        // What is written in part is written over by the next record.
        self.file.write_all_at(&record, self.written)?;
        self.written += record.len() as u64;
        Ok(record.len() as u64)
    }

    /// Takes the first record, and returns it with its length.
    pub(super) fn pop(&mut self) -> io::Result<(Event, u64)> {
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
            // A file that can't be cut takes room; that is all.
            let _ = self.file.set_len(0);
        }
        Ok((Event::Log { id, stream, bytes }, length))
    }
}
