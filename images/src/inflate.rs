//! Decompression of packed layers ahead of their unpacking.
//!
//! Unpacking a layer has two parts that each load a processor: one computes the blob's digest and
//! decompresses it; the other computes the archive's digest and has the kernel create the files. A
//! thread does the first part and passes on a bounded number of bytes. The thread of the next layer
//! starts while the files of the previous layer are still being created.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use kiln_event::Part;
use kiln_store::LayerBlob;
use tokio::sync::OwnedSemaphorePermit;

use crate::blobs::missing;
use crate::error::{Error, Result};
use crate::snapshots::Snapshots;

/// The size in bytes of the pieces that the thread passes on.
const PIECE: usize = 256 << 10;

/// The maximum number of pieces in the queue.
const WAITING: usize = 64;

/// A layer in decompression. Dropping it stops the thread.
#[derive(Debug)]
pub(crate) struct Inflating {
    /// The uncompressed archive of the layer.
    pub(crate) plain: Plain,
    reading: JoinHandle<Result<Part>>,
}

impl Inflating {
    /// Starts to read a layer whose blob is on this machine. The permit `ahead` is held until the
    /// whole blob is read.
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

    /// Waits until the whole blob is read. Returns an error if the blob is invalid, even if its
    /// bytes have been used.
    pub(crate) fn end(self) -> Result<Part> {
        drop(self.plain);
        self.reading.join().unwrap_or_else(|_| Err(Error::Invalid("internal error: panic".into())))
    }
}

/// Reads and verifies a blob, and sends its uncompressed content.
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

/// Decompresses a blob to its end.
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
        // The receiver is gone if the unpacking failed, which reports its own error.
        sender.send(Ok(piece)).map_err(|_| io::Error::other("nobody unpacks it"))?;
    }
}

/// A reader of the bytes that another thread sends.
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
