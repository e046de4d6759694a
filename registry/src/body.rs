//! What is sent along with a request.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_LENGTH;

use crate::limits::Pulse;

/// How much is read from a file at once.
const PIECE: u64 = 256 << 10;

/// Is told how many bytes of a blob have been handed to the network, counted from its beginning.
/// Where something has to be sent again, it is told a smaller number than before.
pub type Sent = Arc<dyn Fn(u64) + Send + Sync>;

/// The bytes of a blob, to be read as often as they have to be sent.
#[derive(Clone, Debug)]
pub enum BlobSource {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(Arc<File>),
}

/// What is sent along with a request, as often as it has to be made.
#[derive(Clone)]
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// A document.
    Bytes(Bytes),
    /// A part of a blob.
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
    /// Tells whether it is a part of a blob.
    pub(crate) fn is_part(&self) -> bool {
        matches!(self, Self::Part { .. })
    }

    /// Adds the body to a request.
    pub(crate) fn attach(&self, request: RequestBuilder, pulse: &Pulse) -> RequestBuilder {
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
