//! An archive that one thread writes while another sends it.

use std::io::{self, Write};

use bytes::Bytes;
use kiln_event::Reporter;
use kiln_store::Store;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::archive::{self, Files};

/// The size in bytes of the pieces that the writer passes to the sender.
const PIECE: usize = 1 << 20;
/// The maximum number of pieces in the queue.
const WAITING: usize = 4;

/// A writer that reports the number of bytes written.
pub(super) struct Metered<'a, W> {
    sink: W,
    name: &'a str,
    progress: &'a Reporter,
    written: u64,
    total: u64,
}

impl<'a, W: Write> Metered<'a, W> {
    pub(super) fn new(sink: W, total: u64, name: &'a str, progress: &'a Reporter) -> Self {
        Self { sink, name, progress, written: 0, total }
    }
}

impl<W: Write> Write for Metered<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.progress.is_cancelled() {
            return Err(io::Error::other("canceled"));
        }
        let count = self.sink.write(bytes)?;
        self.written += count as u64;
        self.progress.status(self.name, self.written, Some(self.total), false);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A writer into a channel.
struct Feed(Sender<io::Result<Bytes>>);

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls `send` with the archive of these files as a body. Another thread writes the archive
/// meanwhile.
pub(super) fn send<T>(
    files: &Files,
    store: &Store,
    name: &str,
    progress: &Reporter,
    send: impl FnOnce(reqwest::Body) -> T,
) -> T {
    let (sender, receiver) = channel(WAITING);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let failed = sender.clone();
            let sink = Metered::new(Feed(sender), archive::size(files, store), name, progress);
            let mut sink = io::BufWriter::with_capacity(PIECE, sink);
            let written = archive::write_stream(files, &mut sink, store);
            if let Err(error) = written.and_then(|()| sink.flush()) {
                // The error keeps a truncated body from looking complete. If the receiver is gone,
                // it reports its own error.
                let _ = failed.blocking_send(Err(error));
            }
        });
        send(body(receiver))
    })
}

fn body(receiver: Receiver<io::Result<Bytes>>) -> reqwest::Body {
    let next = async |mut receiver: Receiver<io::Result<Bytes>>| {
        receiver.recv().await.map(|piece| (piece, receiver))
    };
    reqwest::Body::wrap_stream(futures_util::stream::unfold(receiver, next))
}
