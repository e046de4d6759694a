//! The bound on the memory that clients' messages take.
//!
//! A message is in memory as a whole while it arrives, and its call keeps it or a part of it. HTTP/2's
//! windows don't bound that memory, because the bytes of an unfinished message count as read. So each
//! connection has a budget of bytes, and all connections share another one. The first bytes of a
//! message are free: only large messages need the budgets. A call that exceeds a budget fails; it
//! doesn't wait, for half-sent messages might wait for each other.
//!
//! A message gives its bytes back when its call has been answered. In a stream, it does so when the next
//! message begins.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tower::{Layer, Service};

/// The bytes of large messages that all clients may have at the server at once.
const ALL: usize = 128 << 20;

/// The bytes of large messages that one connection may have at the server at once.
const EACH: usize = 64 << 20;

/// The bytes of each message that are free.
const FREE: usize = 64 << 10;

/// The length of what precedes a message: a flag and the message's length.
const HEADER: usize = 5;

/// The budget of all connections. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Budgets(Arc<Semaphore>);

/// The budget of a connection. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

impl Budgets {
    /// Creates a budget from which nothing has been taken.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ALL)))
    }

    /// Creates the budget of a new connection.
    pub(crate) fn connection(&self) -> Budget {
        Budget { all: Arc::clone(&self.0), own: Arc::new(Semaphore::new(EACH)) }
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> Result<[OwnedSemaphorePermit; 2], Status> {
        let take = |from: &Arc<Semaphore>| {
            let count = u32::try_from(bytes).ok()?;
            Arc::clone(from).try_acquire_many_owned(count).ok()
        };
        let taken = take(&self.own).and_then(|own| Some([own, take(&self.all)?]));
        taken.ok_or_else(|| Status::resource_exhausted("too many large messages at once"))
    }
}

/// The bytes that the messages of a call have taken.
type Taken = Arc<Mutex<Vec<OwnedSemaphorePermit>>>;

/// The layer that counts the messages of all calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionLayer;

/// A service whose clients have budgets.
#[derive(Clone, Debug)]
pub(crate) struct Admission<S>(S);

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, service: S) -> Admission<S> {
        Admission(service)
    }
}

impl<S> Service<http::Request<Body>> for Admission<S>
where
    S: Service<http::Request<Body>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(budget) = request.extensions().get::<Budget>().cloned() else {
            return Box::pin(self.0.call(request));
        };
        let taken = Taken::default();
        let counted = request.map(|body| Body::new(Counted::new(body, budget, Arc::clone(&taken))));
        let answered = self.0.call(counted);
        Box::pin(async move {
            let answer = answered.await;
            drop(taken);
            answer
        })
    }
}

/// A request's body whose messages are counted.
struct Counted {
    body: Body,
    budget: Budget,
    taken: Taken,
    messages: Messages,
}

/// The position in a sequence of messages.
#[derive(Debug, Default)]
struct Messages {
    /// The header that is being read, and the number of its bytes that are known.
    header: [u8; HEADER],
    known: usize,
    /// The bytes of the message that are to come.
    rest: usize,
    /// The bytes of the message that have come.
    seen: usize,
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// A message begins.
    Begin,
    /// Bytes of a message that aren't free.
    Counted(usize),
}

impl Messages {
    /// Reads bytes, and returns their pieces in order.
    fn read(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            if self.rest == 0 {
                let length = bytes.len().min(HEADER - self.known);
                self.header[self.known..self.known + length].copy_from_slice(&bytes[..length]);
                self.known += length;
                bytes = &bytes[length..];
                if self.known == HEADER {
                    let [_, length @ ..] = self.header;
                    let rest = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    *self = Self { rest, ..Self::default() };
                    pieces.push(Piece::Begin);
                }
                continue;
            }
            let length = bytes.len().min(self.rest);
            let free = FREE.saturating_sub(self.seen).min(length);
            (self.rest, self.seen) = (self.rest - length, self.seen + length);
            bytes = &bytes[length..];
            pieces.extend((length > free).then_some(Piece::Counted(length - free)));
        }
        pieces
    }
}

impl Counted {
    fn new(body: Body, budget: Budget, taken: Taken) -> Self {
        Self { body, budget, taken, messages: Messages::default() }
    }

    fn count(&mut self, bytes: &[u8]) -> Result<(), Status> {
        for piece in self.messages.read(bytes) {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            match piece {
                Piece::Begin => taken.clear(),
                Piece::Counted(bytes) => taken.extend(self.budget.take(bytes)?),
            }
        }
        Ok(())
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let counted = frame.data_ref().map_or(Ok(()), |bytes| this.count(bytes));
                Some(counted.map(|()| frame))
            }
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.extend(vec![b'x'; length]);
        bytes
    }

    #[test]
    fn messages_are_found_wherever_they_are_cut() {
        let bytes = [message(3), message(0), message(FREE + 7), message(1)].concat();
        for size in [1, 2, 5, 8, 1000, bytes.len()] {
            let mut messages = Messages::default();
            let pieces: Vec<_> = bytes.chunks(size).flat_map(|part| messages.read(part)).collect();
            assert_eq!(pieces.iter().filter(|piece| **piece == Piece::Begin).count(), 4);
            let counted = pieces.iter().map(|piece| match piece {
                Piece::Begin => 0,
                Piece::Counted(bytes) => *bytes,
            });
            assert_eq!(counted.sum::<usize>(), 7, "{size}");
            assert_eq!((messages.rest, messages.known), (0, 0));
        }
    }

    #[test]
    fn a_connection_has_a_part_of_the_whole() {
        let budgets = Budgets::new();
        let (one, two, three) = (budgets.connection(), budgets.connection(), budgets.connection());
        let first = one.take(EACH).unwrap();
        assert_eq!(one.take(1).unwrap_err().code(), tonic::Code::ResourceExhausted);
        let _second = two.take(ALL - EACH).unwrap();
        assert!(three.take(1).is_err());
        drop(first);
        drop(three.take(EACH).unwrap());
        assert!(one.take(EACH).is_ok());
    }
}
