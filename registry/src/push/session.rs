//! The upload of one blob.
//!
//! The client sends a blob of ordinary size in one `PUT`. It sends a large one in chunks by `PATCH`
//! and ends it with a `PUT` (OCI distribution specification, "Pushing blobs in chunks"). If the
//! connection breaks, the client asks the registry how many bytes have arrived and sends the rest
//! in chunks. If the registry has lost the upload, the client starts another one. If the registry,
//! or a proxy in front of it, rejects a request as too large, the client sends smaller ones.

use std::sync::Arc;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::blob::BlobUpload;
use crate::body::Body;
use crate::client::{Client, announced};
use crate::endpoint::Endpoint;
use crate::error::Problem;
use crate::repository::Repository;
use crate::retry::Failure;
use crate::transport::{Target, redirect_target};

/// The minimum size of a chunk in bytes.
const SMALLEST_CHUNK: u64 = 1 << 20;

pub(super) struct Session<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    repository: &'a Repository,
    upload: &'a BlobUpload,
    /// The URL of the next request. `None` before an upload has begun.
    location: Option<Url>,
    /// The number of bytes that the registry has.
    offset: u64,
    chunk: u64,
    in_chunks: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        client: &'a Client,
        endpoint: &'a Endpoint,
        repository: &'a Repository,
        upload: &'a BlobUpload,
    ) -> Self {
        let options = &client.transport.options;
        let in_chunks = upload.size > options.monolithic;
        let chunk = options.chunk.max(1);
        let (location, offset) = (None, 0);
        Self { client, endpoint, repository, upload, location, offset, chunk, in_chunks }
    }

    /// Uploads the blob. Gives up after too many failures in a row without progress.
    pub(super) async fn run(mut self) -> Result<(), Problem> {
        let attempts = self.client.transport.options.attempts;
        let (mut failures, mut furthest, mut in_vain) = (0, 0, 0);
        loop {
            let before = self.location.is_some().then_some(self.offset);
            let enough = self.chunk.min(self.upload.size - self.offset).div_ceil(2);
            let failure = match self.advance().await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    // A registry could accept the same part for ever, or keep one byte of each.
                    let is_kept = |before| self.offset >= before + enough;
                    in_vain += u32::from(before.is_some_and(|before| !is_kept(before)));
                    if in_vain >= attempts {
                        let problem =
                            "the registry accepts parts of the upload and keeps hardly any";
                        return Err(Problem::Document(problem.to_owned()));
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            if self.offset > furthest {
                (failures, furthest) = (0, self.offset);
            }
            failures += 1;
            if failures >= attempts || !self.recover(&failure.problem) {
                return Err(failure.problem);
            }
            let Failure { problem, pause } = failure;
            tracing::debug!(%problem, failures, "upload was interrupted, going on");
            let pause = pause.unwrap_or_else(|| self.client.transport.pause(failures));
            tokio::time::sleep(pause).await;
            self.ask().await;
        }
    }

    /// Prepares the next attempt after a problem. Returns `false` if no attempt makes sense.
    fn recover(&mut self, problem: &Problem) -> bool {
        match problem {
            Problem::Status { status, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE => {
                let smaller = if self.in_chunks { self.chunk / 4 } else { self.chunk };
                self.in_chunks = true;
                self.chunk = smaller.min(self.upload.size / 2);
                self.location = None;
                self.chunk >= SMALLEST_CHUNK
            }
            // The registry has lost the upload, or has another part of it.
            Problem::NotFound(_) if self.location.is_some() => {
                self.location = None;
                true
            }
            Problem::Status { status, .. } if *status == StatusCode::RANGE_NOT_SATISFIABLE => true,
            problem => problem.is_transient(),
        }
    }

    /// Performs one step. Returns `true` after the last one.
    async fn advance(&mut self) -> Result<bool, Failure> {
        let Some(location) = self.location.clone() else {
            return self.begin().await.map(|()| false);
        };
        let size = self.upload.size;
        if self.offset == 0 && !self.in_chunks {
            return self.close(location, 0, size).await;
        }
        if self.offset < size {
            let length = self.chunk.min(size - self.offset);
            let response = self.send(Method::PATCH, location, self.offset, length).await?;
            self.offset = match arrived(response.headers()) {
                // A registry can't have more bytes than it received.
                Some(offset) if offset <= self.offset + length => offset,
                _ => self.offset + length,
            };
            self.location = Some(redirect_target(&response)?);
            return Ok(false);
        }
        self.close(location, size, 0).await
    }

    /// Completes the upload with its last part: `length` bytes from `start` on.
    async fn close(&self, location: Url, start: u64, length: u64) -> Result<bool, Failure> {
        let response = self.send(Method::PUT, self.closing(location), start, length).await?;
        let expected = self.upload.digest;
        match announced(response.headers()).filter(|actual| *actual != expected) {
            Some(actual) => Err(Problem::Digest { expected, actual }.into()),
            None => Ok(true),
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        let (method, target) = (Method::POST, Target::Path("blobs/uploads/"));
        let mut call = self.client.push_call(self.endpoint, self.repository, method, target);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.client.transport.try_once(&call).await?;
        let least = response.headers().get("oci-chunk-min-length");
        let least = least.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        self.chunk = self.chunk.max(least.unwrap_or_default());
        self.location = Some(redirect_target(&response)?);
        self.offset = 0;
        Ok(())
    }

    /// Asks how many bytes of an interrupted upload have arrived. Without an answer, the next step
    /// starts another upload.
    async fn ask(&mut self) {
        let Some(location) = self.location.take() else { return };
        let (method, target) = (Method::GET, Target::Url(location));
        let call = self.client.push_call(self.endpoint, self.repository, method, target);
        let answer = self.client.transport.send(&call).await;
        self.offset = 0;
        if let Ok(response) = answer
            && let Some(offset) = arrived(response.headers()).filter(|at| *at <= self.upload.size)
            && let Ok(location) = redirect_target(&response)
        {
            self.offset = offset;
            self.in_chunks |= offset > 0;
            self.location = Some(location);
        }
    }

    fn closing(&self, mut location: Url) -> Url {
        location.query_pairs_mut().append_pair("digest", &self.upload.digest.to_string());
        location
    }

    async fn send(
        &self,
        method: Method,
        location: Url,
        start: u64,
        length: u64,
    ) -> Result<Response, Failure> {
        let is_chunk = method == Method::PATCH;
        let target = Target::Url(location);
        let mut call = self.client.push_call(self.endpoint, self.repository, method, target);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if is_chunk {
            let range = HeaderValue::from_str(&format!("{start}-{}", start + length - 1));
            call.headers.extend(range.ok().map(|range| (CONTENT_RANGE, range)));
        }
        let (source, sent) = (self.upload.source.clone(), Arc::clone(&self.upload.sent));
        call.body = Body::Part { source, start, length, sent };
        self.client.transport.try_once(&call).await
    }
}

/// Returns the number of bytes that a registry has, from a header such as `Range: 0-41`. `0-0`
/// means either none or one byte, and counts as none.
fn arrived(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    match range.split_once('-')? {
        ("0", "0") => Some(0),
        ("0", last) => last.parse::<u64>().ok()?.checked_add(1),
        _ => None,
    }
}
