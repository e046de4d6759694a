//! The bodies of requests.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_LENGTH;

use crate::limits::UploadActivity;

/// The number of bytes of one read from a file.
const PIECE: u64 = 256 << 10;

/// A callback that receives the number of a blob's bytes handed to the network so far. The number
/// gets smaller when bytes are sent again.
pub type Sent = Arc<dyn Fn(u64) + Send + Sync>;

/// The source of a blob's bytes. It can be read again for each attempt.
#[derive(Clone, Debug)]
pub enum BlobSource {
    /// Bytes that are in memory.
    Bytes(Bytes),
    /// A file that is open for reading.
    File(Arc<File>),
}

/// The body of a request. It can be sent again for each attempt.
#[derive(Clone)]
pub(crate) enum Body {
    /// No body, as in `GET`.
    Empty,
    /// A whole document, such as a manifest.
    Bytes(Bytes),
    /// The `length` bytes of a blob from `start` on.
    Part { source: BlobSource, start: u64, length: u64, sent: Sent },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Part { start, length, .. } => write!(f, "Part({start}, {length})"),
        }
    }
}

impl Body {
    /// Returns `true` if the body is a part of a blob.
    pub(crate) fn is_part(&self) -> bool {
        matches!(self, Self::Part { .. })
    }

    /// Adds the body to a request. `pulse` beats for each piece that is sent.
    pub(crate) fn attach(&self, request: RequestBuilder, pulse: &UploadActivity) -> RequestBuilder {
        match self {
            Self::Empty => request,
            Self::Bytes(bytes) => request.body(bytes.clone()),
            Self::Part { length: 0, .. } => request.body(Bytes::new()),
            Self::Part { source, start, length, sent } => {
                let (source, sent, end) = (source.clone(), Arc::clone(sent), start + length);
                let pulse = pulse.clone();
                let stream = futures_util::stream::try_unfold(*start, move |position| {
                    let (source, sent) = (source.clone(), Arc::clone(&sent));
                    pulse.beat();
                    async move {
                        if position >= end {
                            return Ok::<_, io::Error>(None);
                        }
                        let piece = source.read(position, PIECE.min(end - position)).await?;
                        let next = position + piece.len() as u64;
                        sent(next);
                        Ok(Some((piece, next)))
                    }
                });
                let request = request.header(CONTENT_LENGTH, *length);
                request.body(reqwest::Body::wrap_stream(stream))
            }
        }
    }
}

impl BlobSource {
    async fn read(&self, position: u64, length: u64) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => {
                let start = (position as usize).min(bytes.len());
                let end = start.saturating_add(length as usize).min(bytes.len());
                if start == end { Err(too_short()) } else { Ok(bytes.slice(start..end)) }
            }
            Self::File(file) => {
                let file = Arc::clone(file);
                let read = move || {
                    let mut piece = vec![0; length as usize];
                    let count = file.read_at(&mut piece, position)?;
                    piece.truncate(count);
                    if count == 0 { Err(too_short()) } else { Ok(Bytes::from(piece)) }
                };
                tokio::task::spawn_blocking(read).await?
            }
        }
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than it was")
}
