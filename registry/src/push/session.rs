//! The upload of one blob.
//!
//! A blob of ordinary size is sent in one `PUT`; a large one in chunks by `PATCH`, and then a `PUT`
//! that ends it (OCI distribution specification, "Pushing blobs in chunks"). Where the connection
//! breaks, the registry is asked how much has arrived, and the rest is sent in chunks; where it has
//! forgotten the upload, another one is begun. A registry, or a proxy before it, that finds a request
//! too large gets smaller ones.

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

/// No chunk is made smaller than this.
const SMALLEST_CHUNK: u64 = 1 << 20;

pub(super) struct Session<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    repository: &'a Repository,
    upload: &'a BlobUpload,
    /// Where the next request goes; `None` before an upload has begun.
    location: Option<Url>,
    /// How much the registry has.
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

    /// Uploads the blob; failures in a row that bring nothing forward are counted.
    pub(super) async fn run(mut self) -> Result<(), Problem> {
        let attempts = self.client.transport.options.attempts;
        let (mut failures, mut furthest, mut in_vain) = (0, 0, 0);
        loop {
            let before = self.location.is_some().then_some(self.offset);
            let enough = self.chunk.min(self.upload.size - self.offset).div_ceil(2);
            let failure = match self.advance().await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    // A registry could take the same part for ever, or a byte of each.
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

    /// Tells whether there is a way to go on after a problem, and prepares it.
    fn recover(&mut self, problem: &Problem) -> bool {
        match problem {
            Problem::Status { status, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE => {
                let smaller = if self.in_chunks { self.chunk / 4 } else { self.chunk };
                self.in_chunks = true;
                self.chunk = smaller.min(self.upload.size / 2);
                self.location = None;
                self.chunk >= SMALLEST_CHUNK
            }
            // The registry knows of no such upload, or is at another place of it.
            Problem::NotFound(_) if self.location.is_some() => {
                self.location = None;
                true
            }
            Problem::Status { status, .. } if *status == StatusCode::RANGE_NOT_SATISFIABLE => true,
            problem => problem.is_transient(),
        }
    }

    /// Makes one step; tells whether it was the last.
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
                // What a registry claims to have can't be more than it was given.
                Some(offset) if offset <= self.offset + length => offset,
                _ => self.offset + length,
            };
            self.location = Some(redirect_target(&response)?);
            return Ok(false);
        }
        self.close(location, size, 0).await
    }

    /// Ends the upload with what is left of it: `length` bytes from `start` on.
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

    /// Asks how much of an interrupted upload has arrived; begins another where that isn't known.
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

/// Returns how many bytes a registry has, as `Range: 0-41` tells. Of nothing and of one byte it
/// tells the same; then it is nothing.
fn arrived(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    match range.split_once('-')? {
        ("0", "0") => Some(0),
        ("0", last) => last.parse::<u64>().ok()?.checked_add(1),
        _ => None,
    }
}
