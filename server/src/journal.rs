//! The messages of a build's progress as bytes, in memory or in a file.
//!
//! A journal is a sequence of records: the length of a message (four bytes, little-endian), and the
//! message. Clients know this format: the log of a finished build is such a document. The last
//! mebibytes are in memory, and everything before them is in an unnamed file, so a build's log takes
//! the same memory however long it is. Readers have an offset each.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use kiln_oci::{Digest, DigestHasher};
use prost::Message as _;

/// The maximum number of bytes in memory.
const IN_MEMORY: usize = 2 << 20;
/// The length in bytes of a record's head.
const HEAD: usize = 4;
/// The maximum length in bytes of a message in a file. A longer record is damaged.
const LONGEST: usize = 64 << 20;

type MakeFile = Arc<dyn Fn() -> io::Result<File> + Send + Sync>;

/// The messages.
#[derive(Default)]
pub(crate) struct Journal {
    /// Makes the file. If there is none, everything is in memory.
    make_file: Option<MakeFile>,
    file: Option<Arc<File>>,
    /// The number of bytes in the file.
    in_file: u64,
    /// The bytes after those in the file.
    tail: Vec<u8>,
    hasher: DigestHasher,
    /// `true` if the file can't be written. Then further output of steps is left out.
    is_full: bool,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The bytes of a journal from some offset.
pub(crate) enum Rest {
    /// All bytes from there.
    Memory(Vec<u8>),
    /// The bytes at the offset in this file.
    File(Arc<File>),
}

impl Journal {
    /// Returns an empty journal whose file comes from `make_file`.
    pub(crate) fn new(make_file: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Self {
        Self { make_file: Some(Arc::new(make_file)), ..Self::default() }
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, mut message: StatusResponse) {
        if self.is_full {
            message.logs.clear();
            if message == StatusResponse::default() {
                return;
            }
        }
        let start = self.tail.len();
        let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
        self.tail.extend(length.to_le_bytes());
        // The memory grows as necessary.
        let _ = message.encode(&mut self.tail);
        self.hasher.update(&self.tail[start..]);
        if self.tail.len() > IN_MEMORY && !self.is_full {
            self.spill();
        }
    }

    /// Moves everything to the file.
    fn spill(&mut self) {
        let Some(make_file) = &self.make_file else { return };
        let spilled = match &self.file {
            Some(file) => Ok(Arc::clone(file)),
            None => make_file().map(Arc::new),
        };
        let spilled =
            spilled.and_then(|file| file.write_all_at(&self.tail, self.in_file).map(|()| file));
        match spilled {
            Ok(file) => {
                self.file = Some(file);
                self.in_file += self.tail.len() as u64;
                self.tail.clear();
            }
            Err(error) => {
                tracing::warn!(%error, "leaving out the output of steps");
                self.is_full = true;
            }
        }
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> u64 {
        self.in_file + self.tail.len() as u64
    }

    /// Returns the digest of all bytes.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Returns the bytes from an offset, at which a record begins. `None` at the end.
    pub(crate) fn rest(&self, offset: u64) -> Option<Rest> {
        if let Some(file) = self.file.as_ref().filter(|_| offset < self.in_file) {
            return Some(Rest::File(Arc::clone(file)));
        }
        let start = usize::try_from(offset - self.in_file).ok()?;
        let rest = self.tail.get(start..).filter(|rest| !rest.is_empty())?;
        Some(Rest::Memory(rest[..first_record(rest)].to_vec()))
    }

    /// Writes all bytes to a file.
    ///
    /// # Errors
    /// Fails if a file can't be read or written.
    pub(crate) fn copy_to(&self, target: &mut File) -> io::Result<()> {
        if let Some(file) = &self.file {
            let mut at = 0;
            let mut buffer = vec![0; 256 << 10];
            while at < self.in_file {
                let left = usize::try_from(self.in_file - at).unwrap_or(usize::MAX);
                let length = left.min(buffer.len());
                let piece = &mut buffer[..length];
                file.read_exact_at(piece, at)?;
                target.write_all(piece)?;
                at += length as u64;
            }
        }
        target.write_all(&self.tail)
    }
}

/// Returns the length of the first record, head included.
fn first_record(bytes: &[u8]) -> usize {
    let head = bytes.first_chunk::<HEAD>().map_or(0, |head| u32::from_le_bytes(*head) as usize);
    bytes.len().min(HEAD + head)
}

impl Rest {
    /// Returns the first message, and the offset of the next one. `offset` is where the bytes begin.
    /// `None` at the end.
    ///
    /// # Errors
    /// Fails if the file can't be read, or is damaged.
    pub(crate) fn first(&self, offset: u64) -> io::Result<Option<(StatusResponse, u64)>> {
        match self {
            Self::File(file) => read(file, offset),
            Self::Memory(bytes) => {
                let message = StatusResponse::decode(bytes.get(HEAD..).unwrap_or_default())?;
                Ok(Some((message, offset + bytes.len() as u64)))
            }
        }
    }
}

/// Reads the message at an offset of a journal's file. Returns it with the offset of the next one,
/// or `None` at the end.
///
/// # Errors
/// Fails if the file can't be read, or is damaged.
pub(crate) fn read(file: &File, offset: u64) -> io::Result<Option<(StatusResponse, u64)>> {
    let mut head = [0; HEAD];
    match file.read_exact_at(&mut head, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the log is damaged"));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset + HEAD as u64)?;
    let message = StatusResponse::decode(bytes.as_slice())?;
    Ok(Some((message, offset + (HEAD + length) as u64)))
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexLog};

    use super::*;

    fn output(number: usize) -> StatusResponse {
        let msg = vec![u8::try_from(number % 256).unwrap(); 100_000];
        let log = VertexLog { msg, ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    fn all(journal: &Journal) -> Vec<StatusResponse> {
        let (mut found, mut offset) = (Vec::new(), 0);
        while let Some(rest) = journal.rest(offset) {
            let (message, next) = rest.first(offset).unwrap().unwrap();
            found.push(message);
            offset = next;
        }
        found
    }

    #[test]
    fn a_long_log_is_in_a_file() {
        let mut journal = Journal::new(tempfile::tempfile);
        let sent: Vec<_> = (0..100).map(output).collect();
        for (number, message) in sent.iter().enumerate() {
            journal.push(message.clone());
            assert!(journal.tail.len() <= IN_MEMORY, "{number}");
        }
        assert!(journal.in_file > 7 << 20);
        assert_eq!(all(&journal), sent);
        let mut copy = tempfile::tempfile().unwrap();
        journal.copy_to(&mut copy).unwrap();
        let mut bytes = vec![0; usize::try_from(journal.len()).unwrap()];
        copy.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(Digest::of(&bytes), journal.digest());
        let (mut read_back, mut offset) = (Vec::new(), 0);
        while let Some((message, next)) = read(&copy, offset).unwrap() {
            read_back.push(message);
            offset = next;
        }
        assert_eq!(read_back, sent);
    }

    #[test]
    fn without_space_only_output_is_left_out() {
        let mut journal = Journal::new(|| Err(io::ErrorKind::StorageFull.into()));
        for number in 0..100 {
            journal.push(output(number));
        }
        assert!(journal.len() < 3 << 20);
        let vertexes = vec![Vertex { name: "step".to_owned(), ..Vertex::default() }];
        let message = StatusResponse { vertexes, ..StatusResponse::default() };
        journal.push(StatusResponse { logs: output(1).logs, ..message.clone() });
        assert_eq!(all(&journal).last(), Some(&message));
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[255; 8], 0).unwrap();
        assert!(read(&file, 0).is_err());
        assert!(read(&file, 8).unwrap().is_none());
    }
}
