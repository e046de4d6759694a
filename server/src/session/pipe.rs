//! Streams of messages as pipes of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{
    CancellationToken, DropGuard, PollSendError, PollSender, WaitForCancellationFutureOwned,
};
use tonic::Status;

/// The maximal number of bytes in a message. Clients refuse messages above 4 MiB.
const LARGEST: usize = 256 * 1024;

/// The number of messages that wait for a slow client.
const WAITING: usize = 16;

/// A reader of the bytes in a stream of messages. Empty messages are skipped.
pub(super) struct MessageReader<S> {
    messages: S,
    rest: Bytes,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> MessageReader<S> {
    pub(super) fn new(messages: S) -> Self {
        Self { messages, rest: Bytes::new() }
    }
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> AsyncRead for MessageReader<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.messages).poll_next(context)) {
                Some(message) => this.rest = message?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.rest[..length]);
        this.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// The server's end of a session's pipe. An end of the pipe in either direction cancels its token.
pub(super) struct Pipe<S> {
    reader: MessageReader<S>,
    writer: PollSender<Result<BytesMessage, Status>>,
    ended: CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The response of `Control.Session`: the bytes that the server sends to the client's services.
/// Dropping it ends the session.
#[derive(Debug)]
pub struct SessionStream {
    messages: mpsc::Receiver<Result<BytesMessage, Status>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    _guard: DropGuard,
}

/// Creates a pipe that reads from `incoming`, and the stream of what is written to it.
pub(super) fn pipe<S>(incoming: S, ended: &CancellationToken) -> (Pipe<S>, SessionStream)
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let (sender, messages) = mpsc::channel(WAITING);
    let stream = SessionStream {
        messages,
        cancelled: Box::pin(ended.clone().cancelled_owned()),
        _guard: ended.clone().drop_guard(),
    };
    let pipe = Pipe {
        reader: MessageReader::new(incoming),
        writer: PollSender::new(sender),
        ended: ended.clone(),
        cancelled: Box::pin(ended.clone().cancelled_owned()),
    };
    (pipe, stream)
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> AsyncRead for Pipe<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cancelled.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut this.reader).poll_read(context, buffer));
        if result.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0) {
            this.ended.cancel();
        }
        Poll::Ready(result)
    }
}

impl<S: Unpin> AsyncWrite for Pipe<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let piece = &bytes[..bytes.len().min(LARGEST)];
        let reserved = ready!(this.writer.poll_reserve(context));
        let sent = reserved
            .and_then(|()| this.writer.send_item(Ok(BytesMessage { data: piece.to_vec() })));
        Poll::Ready(sent.map(|()| piece.len()).map_err(|error| this.broken(&error)))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.close();
        Poll::Ready(Ok(()))
    }
}

impl<S> Pipe<S> {
    fn broken<T>(&self, _error: &PollSendError<T>) -> io::Error {
        self.ended.cancel();
        io::ErrorKind::BrokenPipe.into()
    }
}

impl<S> Drop for Pipe<S> {
    /// Ends the session with its connection.
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Stream for SessionStream {
    type Item = Result<BytesMessage, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.cancelled.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        this.messages.poll_recv(context)
    }
}
