//! Downloads of blobs, verified while they arrive.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use kiln_oci::{Digest, DigestHasher};
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};

use crate::auth::Scopes;
use crate::body::Body;
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::{Error, Problem};
use crate::limits::{PacedBody, Permit, in_time};
use crate::repository::Repository;
use crate::transport::{Call, Target};

/// The number of bytes that must arrive to reset a blob's count of failures.
const PROGRESS: u64 = 1 << 20;

/// The length of a blob in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The exact length, from a descriptor.
    Exactly(u64),
    /// The maximum length, if the exact one is unknown.
    AtMost(u64),
}

/// The beginning of a blob that an earlier attempt has stored.
#[derive(Debug, Default)]
pub struct PartialBlob {
    /// The hasher, updated with the stored bytes.
    pub hasher: DigestHasher,
    /// The number of stored bytes.
    pub size: u64,
}

/// A download of a blob. The stream ends without an error only if digest and size are right. After
/// an error, discard the bytes that came before it.
#[derive(Debug)]
pub struct BlobStream {
    client: Client,
    repository: Repository,
    /// The endpoints to try. The first one is in use.
    endpoints: VecDeque<Endpoint>,
    digest: Digest,
    length: Length,
    hasher: DigestHasher,
    received: u64,
    response: Option<Response>,
    body: PacedBody,
    /// The entity tag of the blob at the current endpoint.
    etag: Option<HeaderValue>,
    /// The number of bytes at the start of the response that were received earlier.
    skip: u64,
    failures: u32,
    failed_at: u64,
    finished: bool,
    /// The place among the concurrent downloads.
    _permit: Permit,
}

impl Client {
    /// Starts the download of a blob. Waits while too many downloads are running.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        length: Length,
    ) -> Result<BlobStream, Error> {
        self.rest_of_blob(repository, digest, length, PartialBlob::default()).await
    }

    /// Resumes the download of a blob after its `beginning`. The whole blob is verified at the end.
    pub async fn rest_of_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        length: Length,
        beginning: PartialBlob,
    ) -> Result<BlobStream, Error> {
        let mut blob = self.unopened_blob(repository, digest, length, beginning).await?;
        blob.open().await.map_err(|problem| blob.error(problem))?;
        Ok(blob)
    }

    /// Waits for the right to transfer a blob. The registry isn't asked yet.
    async fn unopened_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        length: Length,
        beginning: PartialBlob,
    ) -> Result<BlobStream, Error> {
        let sources = self.transport.sources(repository.registry(), false);
        let sources = sources.map_err(|problem| problem.of(repository, repository))?;
        Ok(BlobStream {
            client: self.clone(),
            repository: repository.clone(),
            endpoints: sources.into(),
            digest: *digest,
            length,
            hasher: beginning.hasher,
            received: beginning.size,
            response: None,
            body: PacedBody::new(self.transport.options.pace),
            etag: None,
            skip: 0,
            failures: 0,
            failed_at: 0,
            finished: false,
            _permit: self.transport.downloads.enter(repository.registry()).await,
        })
    }

    /// Returns a blob that is a document of at most `limit` bytes, such as an image config.
    pub async fn small_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        let (length, beginning) = (Length::AtMost(limit), PartialBlob::default());
        let mut blob = self.unopened_blob(repository, digest, length, beginning).await?;
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = blob.advance().await? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        let bytes = in_time(self.transport.options.pace, read).await;
        bytes.map_err(|problem| blob.error(problem))
    }
}

impl BlobStream {
    /// Returns the next bytes, or `None` after the whole blob was verified.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.finished {
            return Ok(None);
        }
        match self.advance().await {
            Ok(Some(chunk)) => Ok(Some(chunk)),
            Ok(None) => {
                self.finished = true;
                Ok(None)
            }
            Err(problem) => Err(self.error(problem)),
        }
    }

    /// Writes the whole blob and returns its size. Calls `progress` with the length of each chunk.
    pub async fn copy_to<W: Write>(
        mut self,
        writer: &mut W,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, Error> {
        while let Some(chunk) = self.next().await? {
            writer.write_all(&chunk).map_err(|error| self.error(error.into()))?;
            progress(chunk.len() as u64);
        }
        Ok(self.received)
    }

    fn error(&self, problem: Problem) -> Error {
        problem.of(&self.repository, &format!("{}@{}", self.repository, self.digest))
    }

    fn limit(&self) -> u64 {
        match self.length {
            Length::Exactly(limit) | Length::AtMost(limit) => limit,
        }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let Some(response) = &mut self.response else {
                self.open().await?;
                continue;
            };
            match self.body.chunk(response).await {
                Ok(Some(chunk)) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    let chunk = chunk.slice(skipped as usize..);
                    if !chunk.is_empty() {
                        self.take(&chunk)?;
                        return Ok(Some(chunk));
                    }
                }
                Ok(None) => match self.length {
                    // The connection was cut off, with or without an error.
                    Length::Exactly(size) if self.received < size => {
                        let (expected, actual) = (size, self.received);
                        self.interrupted(Problem::Size { expected, actual }).await?;
                    }
                    _ => return self.verify().map(|()| None),
                },
                Err(problem) => self.interrupted(problem).await?,
            }
        }
    }

    fn take(&mut self, chunk: &Bytes) -> Result<(), Problem> {
        self.received += chunk.len() as u64;
        match self.length {
            Length::Exactly(expected) if self.received > expected => {
                Err(Problem::Size { expected, actual: self.received })
            }
            Length::AtMost(limit) if self.received > limit => Err(Problem::TooLarge(limit)),
            _ => {
                self.hasher.update(chunk);
                Ok(())
            }
        }
    }

    fn verify(&mut self) -> Result<(), Problem> {
        let actual = std::mem::take(&mut self.hasher).finish();
        if actual == self.digest {
            return Ok(());
        }
        Err(Problem::Digest { expected: self.digest, actual })
    }

    /// Records a broken connection. The next request resumes the download.
    async fn interrupted(&mut self, problem: Problem) -> Result<(), Problem> {
        self.response = None;
        let is_slow = matches!(problem, Problem::TooSlow(_));
        if is_slow && self.endpoints.len() > 1 {
            let slow = self.endpoints.pop_front();
            if let Some(endpoint) = slow {
                problem.log_mirror(&endpoint);
            }
            self.etag = None;
            return Ok(());
        }
        if self.received >= self.failed_at + PROGRESS {
            self.failures = 0;
        }
        self.failed_at = self.received;
        // Each attempt at a slow server takes long, so only half as many are made.
        self.failures += if is_slow { 2 } else { 1 };
        let transport = &self.client.transport;
        if self.failures >= transport.options.attempts {
            return Err(problem);
        }
        tracing::debug!(%problem, received = self.received, "blob was cut off, going on");
        tokio::time::sleep(transport.pause(self.failures)).await;
        Ok(())
    }

    /// Requests the missing bytes from the first endpoint that answers, and keeps that endpoint.
    async fn open(&mut self) -> Result<(), Problem> {
        loop {
            match self.open_first().await {
                Err(problem) if self.endpoints.len() > 1 => {
                    if let Some(endpoint) = self.endpoints.pop_front() {
                        problem.log_mirror(&endpoint);
                    }
                    self.etag = None;
                }
                result => return result,
            }
        }
    }

    async fn open_first(&mut self) -> Result<(), Problem> {
        let nobody = || Problem::Config("there is nobody to ask".to_owned());
        let endpoint = self.endpoints.front().ok_or_else(nobody)?;
        let path = format!("blobs/{}", self.digest);
        let name = endpoint.name(self.repository.name());
        let call = Call {
            endpoint,
            repository: &name,
            scopes: Scopes::pull(&name),
            method: Method::GET,
            target: Target::Path(&path),
            headers: self.range(),
            body: Body::Empty,
            attempts: self.client.attempts(self.endpoints.len() - 1),
        };
        let response = self.client.transport.send(&call).await?;
        let start = if response.status() == StatusCode::PARTIAL_CONTENT {
            range_start(response.headers())
        } else {
            Some(0)
        };
        let Some(start) = start.filter(|start| *start <= self.received) else {
            let problem = "the registry answers with another part than asked for";
            return Err(Problem::Document(problem.to_owned()));
        };
        self.skip = self.received - start;
        let whole = response.content_length().map(|length| start + length);
        if let Some(whole) = whole.filter(|whole| *whole > self.limit()) {
            return Err(match self.length {
                Length::Exactly(expected) => Problem::Size { expected, actual: whole },
                Length::AtMost(limit) => Problem::TooLarge(limit),
            });
        }
        // A weak tag doesn't identify bytes.
        let etag = response.headers().get(ETAG);
        self.etag = etag.filter(|etag| !etag.as_bytes().starts_with(b"W/")).cloned();
        self.response = Some(response);
        self.body = PacedBody::new(self.client.transport.options.pace);
        Ok(())
    }

    /// Returns the headers that request the missing bytes.
    fn range(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.received > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.received));
            headers.extend(range.ok().map(|range| (RANGE, range)));
            headers.extend(self.etag.clone().map(|etag| (IF_RANGE, etag)));
        }
        headers
    }
}

/// Returns the offset at which a partial answer starts.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
