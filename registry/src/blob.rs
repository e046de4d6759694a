//! Blobs as verified streams.

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

/// How far a blob has to come for its earlier failures to be forgotten.
const PROGRESS: u64 = 1 << 20;

/// How long a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As its descriptor says.
    Exactly(u64),
    /// Unknown, but no longer than this.
    AtMost(u64),
}

/// The beginning of a blob, as an earlier attempt has left it.
#[derive(Debug, Default)]
pub struct Beginning {
    /// The digest of what is there, so far.
    pub hasher: DigestHasher,
    /// How many bytes are there.
    pub size: u64,
}

/// A blob on its way. Its end is only reached when digest and size are right; what came before an
/// error is worth nothing.
#[derive(Debug)]
pub struct BlobStream {
    client: Client,
    repository: Repository,
    /// Who is asked; the first is the one that answers now.
    endpoints: VecDeque<Endpoint>,
    digest: Digest,
    length: Length,
    hasher: DigestHasher,
    received: u64,
    response: Option<Response>,
    body: PacedBody,
    /// What the endpoint calls its version of the blob.
    etag: Option<HeaderValue>,
    /// Bytes at the start of the response that are there already.
    skip: u64,
    failures: u32,
    failed_at: u64,
    finished: bool,
    /// Keeps the number of blobs under way in its limits.
    _permit: Permit,
}

impl Client {
    /// Returns a blob as a stream; waits where too many are under way.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        length: Length,
    ) -> Result<BlobStream, Error> {
        self.rest_of_blob(repository, digest, length, Beginning::default()).await
    }

    /// Returns what is missing of a blob of which the beginning is there already; all of it is
    /// verified at the end.
    pub async fn rest_of_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        length: Length,
        beginning: Beginning,
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
        beginning: Beginning,
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

    /// Returns a blob of at most `limit` bytes that is a document, as a config.
    pub async fn small_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        let (length, beginning) = (Length::AtMost(limit), Beginning::default());
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
    /// Returns the next bytes; `None` after all were verified.
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

    /// Writes all of the blob, and tells `progress` of each number of bytes that came. Returns the
    /// blob's size.
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
                    // Less is a connection that was cut off, if it says so or not.
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

    /// Notes that the connection broke; the next one goes on from there.
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
        // Each try at a slow server takes long: there are half as many.
        self.failures += if is_slow { 2 } else { 1 };
        let transport = &self.client.transport;
        if self.failures >= transport.options.attempts {
            return Err(problem);
        }
        tracing::debug!(%problem, received = self.received, "blob was cut off, going on");
        tokio::time::sleep(transport.pause(self.failures)).await;
        Ok(())
    }

    /// Asks for what is missing: the first endpoint that answers, to be asked again from then on.
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
        // A weak tag says nothing about bytes.
        let etag = response.headers().get(ETAG);
        self.etag = etag.filter(|etag| !etag.as_bytes().starts_with(b"W/")).cloned();
        self.response = Some(response);
        self.body = PacedBody::new(self.client.transport.options.pace);
        Ok(())
    }

    /// Returns the headers that ask for what is missing.
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

/// Returns where a partial answer starts.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
