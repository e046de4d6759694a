//! Packed layers that are read and uncompressed ahead of who unpacks them.
//!
//! To unpack a layer takes a processor twice: for the blob's digest and decompression, and for the
//! archive's digest and the kernel, which makes the files. A thread does the first and hands on the
//! bytes, a bounded number of them. The next layer's thread begins while the files of the one before
//! are still being made.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use kiln_store::LayerBlob;
use tokio::sync::OwnedSemaphorePermit;

use crate::blobs::missing;
use crate::error::{Error, Result};
use crate::progress::Part;
use crate::snapshots::Snapshots;

/// So many bytes are handed on at once.
const PIECE: usize = 256 << 10;

/// So many pieces wait at most.
const WAITING: usize = 64;

/// A layer that is being read. Dropped, it is no longer.
#[derive(Debug)]
pub(crate) struct Inflating {
    /// The layer's archive, uncompressed.
    pub(crate) plain: Plain,
    reading: JoinHandle<Result<Part>>,
}

impl Inflating {
    /// Begins to read a layer whose blob is there. `ahead` is held until all is read.
    pub(crate) fn begin(
        snapshots: &Snapshots,
        blob: &LayerBlob,
        part: Part,
        ahead: Option<OwnedSemaphorePermit>,
    ) -> Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let (snapshots, blob) = (snapshots.clone(), blob.clone());
        let read = move || {
            let _ahead = ahead;
            read(&snapshots, &blob, part, &sender)
        };
        let reading = std::thread::Builder::new()
            .name("kiln-inflate".to_owned())
            .spawn(read)
            .map_err(Error::kernel("start a thread for", "a layer"))?;
        let plain = Plain { pieces: receiver, piece: Vec::new(), read: 0 };
        Ok(Self { plain, reading })
    }

    /// Waits until all is read. A blob that isn't what it should be is an error, whatever came of its
    /// bytes.
    pub(crate) fn end(self) -> Result<Part> {
        drop(self.plain);
        self.reading.join().unwrap_or_else(|_| Err(Error::Invalid("internal error: panic".into())))
    }
}

/// Reads a blob, hands on what it holds, and checks that it is what it should be.
fn read(
    snapshots: &Snapshots,
    blob: &LayerBlob,
    mut part: Part,
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> Result<Part> {
    let inflated = snapshots
        .read_blob(blob, &mut part, |packed| inflate(snapshots, packed, sender))?
        .ok_or_else(|| missing(&blob.digest))?;
    inflated.map_err(Error::kernel("decompress", blob.digest))?;
    Ok(part)
}

/// Uncompresses a blob to its end.
fn inflate(
    snapshots: &Snapshots,
    packed: &mut (dyn Read + Send),
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    let (mut plain, _) = snapshots.limits.decompress(packed)?;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut plain).take(PIECE as u64).read_to_end(&mut piece);
        let is_end = piece.is_empty();
        if let Err(error) = read {
            let told = io::Error::new(error.kind(), error.to_string());
            let _ = sender.send(Err(told));
            return Err(error);
        }
        if is_end {
            return Ok(());
        }
        // Who no longer listens has failed, and says why.
        sender.send(Ok(piece)).map_err(|_| io::Error::other("nobody unpacks it"))?;
    }
}

/// A stream of bytes that another thread hands on.
#[derive(Debug)]
pub(crate) struct Plain {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    read: usize,
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() {
            let Ok(piece) = self.pieces.recv() else { return Ok(0) };
            (self.piece, self.read) = (piece?, 0);
        }
        let length = buffer.len().min(self.piece.len() - self.read);
        buffer[..length].copy_from_slice(&self.piece[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}
