//! containerd's `Content`: the client's stores of blobs, for OCI layouts and local caches.

mod messages;

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use kiln_oci::Digest;
use prost::Message;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use super::Session;
use super::call::append;
use super::error::{Error, Result};
use crate::content::messages::{InfoRequest, InfoResponse, ReadRequest, ReadResponse};
use messages::{Action, Empty, ReferenceRequest, StatusResponse, WriteRequest, WriteResponse};

const STORE: &str = "buildkit-attachable-store-id";

const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";
const STATUS: &str = "/containerd.services.content.v1.Content/Status";
const WRITE: &str = "/containerd.services.content.v1.Content/Write";
const ABORT: &str = "/containerd.services.content.v1.Content/Abort";

/// The number of bytes in a message.
const PIECE: usize = 1 << 20;

/// A store of blobs of the client. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ContentStore {
    session: Session,
    id: String,
}

/// A blob of the client's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentInfo {
    /// The size in bytes.
    pub size: u64,
    /// The labels that the store keeps with the blob.
    pub labels: BTreeMap<String, String>,
}

/// The state of an unfinished blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentStatus {
    /// The number of bytes that the store has.
    pub offset: u64,
    /// The final size in bytes; 0 if unknown.
    pub total: u64,
}

/// The outcome of writing a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The store has the new blob.
    New,
    /// The store had the blob before.
    AlreadyExists,
}

impl Session {
    /// Returns a store of the client: `oci:NAME` for a layout, `local:DIRECTORY` for a cache,
    /// `export` for the destination of an export.
    ///
    /// # Errors
    /// Fails if the client has no stores.
    pub fn content(&self, id: &str) -> Result<ContentStore> {
        self.require(INFO)?;
        Ok(ContentStore { session: self.clone(), id: id.to_owned() })
    }
}

impl ContentStore {
    /// Returns the size and labels of a blob, or `None` if the store doesn't have it.
    ///
    /// # Errors
    /// Fails if the client does.
    pub async fn info(&self, digest: &Digest) -> Result<Option<ContentInfo>> {
        let request = InfoRequest { digest: digest.to_string() };
        let found =
            self.call::<_, InfoResponse>(INFO, request, || format!("look for blob {digest}"));
        let Some(found) = found.await? else { return Ok(None) };
        let info = found.info.unwrap_or_default();
        Ok(Some(ContentInfo { size: count(info.size)?, labels: info.labels }))
    }

    /// Reads a blob from `offset`: `size` bytes, or all if `size` is `None`. The caller verifies the
    /// bytes.
    ///
    /// # Errors
    /// Fails if the client doesn't have the blob. The stream fails if the client doesn't send
    /// exactly `size` bytes.
    pub async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        size: Option<u64>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static> {
        if size == Some(0) {
            return Ok(stream::empty().left_stream());
        }
        let request = ReadRequest {
            digest: digest.to_string(),
            offset: signed(offset)?,
            size: signed(size.unwrap_or_default())?,
        };
        let call = async {
            let messages = stream::once(std::future::ready(request));
            let metadata = self.metadata()?;
            let read = self.session.stream::<_, ReadResponse>(READ, metadata, messages).await;
            read.map_err(|status| Error::call(format!("read blob {digest}"), status))
        };
        let answers = self.session.unless_closed(call).await?;
        let range = Range { answers, left: size };
        Ok(stream::try_unfold(range, Range::next).boxed().right_stream())
    }

    /// Returns the state of an unfinished blob, or `None` if the store doesn't know `reference`.
    ///
    /// # Errors
    /// Fails if the client does.
    pub async fn status(&self, reference: &str) -> Result<Option<ContentStatus>> {
        let request = ReferenceRequest { reference: reference.to_owned() };
        let action = || format!("look for unfinished blob {reference}");
        let found = self.call::<_, StatusResponse>(STATUS, request, action);
        let Some(found) = found.await? else { return Ok(None) };
        let status = found.status.unwrap_or_default();
        Ok(Some(ContentStatus { offset: count(status.offset)?, total: count(status.total)? }))
    }

    /// Removes an unfinished blob. Succeeds if the store doesn't know `reference`.
    ///
    /// # Errors
    /// Fails if the client does.
    pub async fn abort(&self, reference: &str) -> Result<()> {
        let request = ReferenceRequest { reference: reference.to_owned() };
        let action = || format!("remove unfinished blob {reference}");
        self.call::<_, Empty>(ABORT, request, action).await.map(drop)
    }

    /// Starts to write a blob of `total` bytes under a name of the caller's choice. Returns `None`
    /// if the store has the blob. If the store has the beginning of a blob of this name, the
    /// writer's [`offset`](ContentWriter::offset) says how many bytes.
    ///
    /// # Errors
    /// Fails if the client does.
    pub async fn write(
        &self,
        reference: &str,
        total: u64,
        digest: &Digest,
    ) -> Result<Option<ContentWriter>> {
        let (sender, mut requests) = mpsc::channel(1);
        let requests = stream::poll_fn(move |context| requests.poll_recv(context));
        let first = WriteRequest {
            action: Action::Stat.into(),
            reference: reference.to_owned(),
            total: signed(total)?,
            expected: digest.to_string(),
            ..WriteRequest::default()
        };
        let action = format!("write blob {digest}");
        let call = async {
            // The channel has room for one message.
            let _ = sender.send(first).await;
            let answers = self.session.stream(WRITE, self.metadata()?, requests).await;
            let answers = unless(Code::AlreadyExists, answers, || action.clone())?;
            Ok(answers.map(|answers| (sender, answers)))
        };
        let Some((requests, answers)) = self.session.unless_closed(call).await? else {
            return Ok(None);
        };
        let session = self.session.clone();
        let mut writer = ContentWriter { session, requests, answers, action, offset: 0, total };
        match writer.answer().await? {
            Some(answer) => writer.offset = count(answer.offset)?,
            None => return Ok(None),
        }
        Ok(Some(writer))
    }

    /// Calls a method. Returns `None` if the store doesn't have the object.
    async fn call<M, R>(
        &self,
        method: &'static str,
        message: M,
        action: impl Fn() -> String,
    ) -> Result<Option<R>>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let metadata = self.metadata()?;
        let call = async {
            let answer = self.session.unary(method, metadata, message).await;
            unless(Code::NotFound, answer, action)
        };
        self.session.unless_closed(call).await
    }

    fn metadata(&self) -> Result<MetadataMap> {
        let mut metadata = MetadataMap::new();
        append(&mut metadata, STORE, &self.id)?;
        Ok(metadata)
    }
}

/// A range of a blob that is being read.
struct Range {
    answers: Streaming<ReadResponse>,
    /// The number of bytes that are still to come, if it is known.
    left: Option<u64>,
}

impl Range {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        match self.answers.message().await.map_err(io::Error::other)? {
            Some(answer) => {
                let length = answer.data.len() as u64;
                if self.left.is_some_and(|left| left < length) {
                    let problem = "the client sent too many bytes of the blob";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
                }
                self.left = self.left.map(|left| left - length);
                Ok(Some((answer.data, self)))
            }
            None if self.left.is_some_and(|left| left > 0) => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            None => Ok(None),
        }
    }
}

/// A blob that is being written to the client's store. The store keeps an unfinished blob if the
/// writer is dropped.
#[derive(Debug)]
pub struct ContentWriter {
    session: Session,
    requests: mpsc::Sender<WriteRequest>,
    answers: Streaming<WriteResponse>,
    action: String,
    offset: u64,
    total: u64,
}

impl ContentWriter {
    /// Returns the number of bytes that the store has.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Discards what the store has, so that the blob starts from its beginning.
    ///
    /// # Errors
    /// Fails if the client does.
    pub async fn restart(&mut self) -> Result<()> {
        self.offset = 0;
        self.send(Action::Write, Bytes::new(), WriteRequest::default()).await?;
        Ok(())
    }

    /// Appends bytes. Waits until the store has them.
    ///
    /// # Errors
    /// Fails if the client does.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let end = self.offset + piece.len() as u64;
            let answer = self.send(Action::Write, piece, WriteRequest::default()).await?;
            let answer = answer.ok_or_else(|| self.failed("the blob exists"))?;
            if count(answer.offset)? != end {
                return Err(self.failed("the store has another part of the blob"));
            }
            self.offset = end;
        }
        Ok(())
    }

    /// Ends the blob. The store verifies its size and digest, and keeps the labels with it.
    ///
    /// # Errors
    /// Fails if the client does, or if the blob isn't the expected one.
    pub async fn commit(
        mut self,
        digest: &Digest,
        labels: BTreeMap<String, String>,
    ) -> Result<Committed> {
        let request = WriteRequest {
            total: signed(self.total)?,
            expected: digest.to_string(),
            labels,
            ..WriteRequest::default()
        };
        match self.send(Action::Commit, Bytes::new(), request).await? {
            None => Ok(Committed::AlreadyExists),
            Some(answer) if answer.digest.is_empty() || answer.digest == digest.to_string() => {
                Ok(Committed::New)
            }
            Some(_) => Err(self.failed("the store has another blob")),
        }
    }

    /// Sends a request and waits for its answer. Returns `None` if the store has the blob.
    async fn send(
        &mut self,
        action: Action,
        data: Bytes,
        request: WriteRequest,
    ) -> Result<Option<WriteResponse>> {
        let request =
            WriteRequest { action: action.into(), offset: signed(self.offset)?, data, ..request };
        // If the client has ended the call, the answer says why.
        let _ = self.requests.send(request).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Option<WriteResponse>> {
        let answer = async {
            let answer = self.answers.message().await;
            unless(Code::AlreadyExists, answer, || self.action.clone())
        };
        match self.session.unless_closed(answer).await? {
            None => Ok(None),
            Some(Some(answer)) => Ok(Some(answer)),
            Some(None) => Err(self.failed("the stream ended")),
        }
    }

    fn failed(&self, problem: &str) -> Error {
        Error::Protocol(format!("{}: {problem}", self.action))
    }
}

/// Turns a status into an error, and the one with the code `absent` into `None`.
fn unless<T>(
    absent: Code,
    result: Result<T, Status>,
    action: impl Fn() -> String,
) -> Result<Option<T>> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == absent => Ok(None),
        Err(status) => Err(Error::call(action(), status)),
    }
}

fn signed(number: u64) -> Result<i64> {
    number.try_into().map_err(|_| Error::Protocol(format!("{number} is out of range")))
}

fn count(number: i64) -> Result<u64> {
    number.try_into().map_err(|_| Error::Protocol(format!("{number} is negative")))
}
