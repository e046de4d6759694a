//! Downloads from plain URLs, for `ADD` and for build contexts.
//!
//! The client follows at most ten redirects. They may lead to `http` and `https` only, and from
//! `https` to plain `http` only on this machine. The client sends credentials to the origin of the
//! first URL only.
//!
//! If the caller has a copy with an entity tag, the client first asks with `HEAD`: some servers send
//! tags and ignore conditional requests. Contents may come compressed; the caller gets them as they
//! were before.

use std::fmt;
use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, DATE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, Response, StatusCode, Url};

use crate::client::Client;
use crate::connection_error::{Place, Role};
use crate::endpoint::{authority_of, same_origin};
use crate::error::{Error, Problem};
use crate::limits::{MinimumSpeed, PacedBody};
use crate::retry::retry_after;
use crate::transport::{REDIRECTS, is_redirect, log, redirect_target};

/// A request for a file.
#[derive(Clone, Default)]
pub struct FetchRequest {
    /// The file's URL. It may contain a user and a password.
    pub url: String,
    /// Additional headers as pairs of name and value.
    pub headers: Vec<(String, String)>,
    /// The value of the `Authorization` header.
    pub authorization: Option<String>,
    /// The entity tag of the caller's copy, if any.
    pub etag: Option<String>,
    /// The `Last-Modified` value of the caller's copy, as the server sent it.
    pub last_modified: Option<String>,
}

impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchRequest").field("url", &redacted(&self.url)).finish_non_exhaustive()
    }
}

/// The answer to a [`FetchRequest`].
#[derive(Debug)]
pub enum FetchAnswer {
    /// The caller's copy is current.
    Unchanged,
    /// The file's content follows.
    File(Box<FetchedFile>),
}

/// A download of a file.
#[derive(Debug)]
pub struct FetchedFile {
    target: String,
    response: Response,
    pace: Option<MinimumSpeed>,
}

/// Returns a URL for display: without user and password, and without credentials in its query.
pub fn redacted(url: &str) -> String {
    let url = kiln_oci::redact::mask_queries(url);
    let Some((scheme, rest)) = url.split_once("://") else { return url.into_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

impl Client {
    /// Requests a file. Retries after transient failures.
    ///
    /// # Errors
    /// Fails if the server can't be reached, doesn't have the file, or redirects to a forbidden
    /// URL.
    pub async fn fetch(&self, request: &FetchRequest) -> Result<FetchAnswer, Error> {
        if request.etag.is_some()
            && let Ok(response) = self.fetch_once(request, &Method::HEAD).await
            && is_current(request, &response)
        {
            return Ok(FetchAnswer::Unchanged);
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (problem, pause) = match self.fetch_once(request, &Method::GET).await {
                Ok(response) => match answer(request, response, self.transport.options.pace) {
                    Ok(answer) => return Ok(answer),
                    Err(refused) => refused,
                },
                Err(problem) => (problem, None),
            };
            let transport = &self.transport;
            if attempt >= transport.options.attempts || !problem.is_transient() {
                return Err(problem.of_url(&redacted(&request.url)));
            }
            tracing::debug!(%problem, attempt, "download failed, trying again");
            tokio::time::sleep(pause.unwrap_or_else(|| transport.pause(attempt))).await;
        }
    }

    /// Returns the URL after all redirects. The flag is `true` if it has the scheme, host and port
    /// of the first URL.
    ///
    /// # Errors
    /// Fails if the server can't be reached or redirects to a forbidden URL.
    pub async fn leads_to(&self, request: &FetchRequest) -> Result<(String, bool), Error> {
        let target = redacted(&request.url);
        let failed = |problem: Problem| problem.of_url(&target);
        let invalid = |_| failed(Problem::Document("invalid URL".to_owned()));
        let first = Url::parse(&request.url).map_err(invalid)?;
        let response = self.fetch_once(request, &Method::GET).await.map_err(failed)?;
        let is_same = same_origin(response.url(), &first);
        Ok((response.url().as_str().to_owned(), is_same))
    }

    /// Sends the request once and follows redirects.
    async fn fetch_once(
        &self,
        request: &FetchRequest,
        method: &Method,
    ) -> Result<Response, Problem> {
        let invalid = |_| Problem::Document("invalid URL".to_owned());
        let first = Url::parse(&request.url).map_err(invalid)?;
        if !matches!(first.scheme(), "http" | "https") {
            return Err(Problem::Document(format!(
                "{} is no scheme of a download",
                first.scheme()
            )));
        }
        let headers = headers(request)?;
        let authorization = request.authorization.as_deref().map(secret_value).transpose()?;
        let mut url = first.clone();
        for _ in 0..=REDIRECTS {
            let client = self.transport.client_for(&url)?;
            let call = client.request(method.clone(), url.clone());
            let mut call = call.headers(headers.clone());
            if let Some(value) = &authorization
                && same_origin(&url, &first)
            {
                call = call.header(AUTHORIZATION, value.clone());
            }
            let response = call.send().await;
            log(method, &url, &response);
            let response = match response {
                Ok(response) => response,
                Err(error) => {
                    let role = if same_origin(&url, &first) { Role::Url } else { Role::Redirect };
                    let place = Place { host: authority_of(&url), role, has_trust: false };
                    return Err(self.transport.unanswered(&url, place, error).await);
                }
            };
            if !is_redirect(&response, method) {
                return Ok(response);
            }
            url = redirect_target(&response)?;
        }
        Err(Problem::Redirect(format!("more than {REDIRECTS} redirects")))
    }
}

fn headers(request: &FetchRequest) -> Result<HeaderMap, Problem> {
    let invalid = |name: &str| Problem::Document(format!("invalid header {name:?}"));
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    for (name, value) in &request.headers {
        let key: HeaderName = name.parse().map_err(|_| invalid(name))?;
        headers.insert(key, HeaderValue::from_str(value).map_err(|_| invalid(name))?);
    }
    // These values come from servers. An invalid one is not sent back.
    for (key, value) in
        [(IF_NONE_MATCH, &request.etag), (IF_MODIFIED_SINCE, &request.last_modified)]
    {
        let value = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        headers.extend(value.map(|value| (key, value)));
    }
    Ok(headers)
}

/// Returns a header value that is hidden from logs.
fn secret_value(text: &str) -> Result<HeaderValue, Problem> {
    let mut value = HeaderValue::from_str(text.trim_end())
        .map_err(|_| Problem::Document("the secret for Authorization is no header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Interprets an answer. A refusal comes with the pause that the server requests.
fn answer(
    request: &FetchRequest,
    response: Response,
    pace: Option<MinimumSpeed>,
) -> Result<FetchAnswer, (Problem, Option<std::time::Duration>)> {
    let status = response.status();
    if is_current(request, &response) {
        return Ok(FetchAnswer::Unchanged);
    }
    if !status.is_success() {
        let pause = retry_after(response.headers());
        return Err((Problem::Status { status, message: String::new() }, pause));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let problem = "the server sends a part of the file, and all of it was requested";
        return Err((Problem::Document(problem.to_owned()), None));
    }
    let file = FetchedFile { target: redacted(&request.url), response, pace };
    Ok(FetchAnswer::File(Box::new(file)))
}

/// Returns `true` if an answer says that the caller's copy is current. Some servers send entity tags
/// but ignore conditional requests.
fn is_current(request: &FetchRequest, response: &Response) -> bool {
    let known = request.etag.as_deref().map(strength_aside);
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED {
        return known.is_some() || request.last_modified.is_some();
    }
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    status == StatusCode::OK && known.is_some() && etag.map(strength_aside) == known
}

fn strength_aside(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

impl FetchedFile {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns the `ETag` header.
    pub fn etag(&self) -> Option<&str> {
        self.header(ETAG)
    }

    /// Returns the `Last-Modified` header as the server sent it.
    pub fn last_modified(&self) -> Option<&str> {
        self.header(LAST_MODIFIED)
    }

    /// Returns the `Date` header as the server sent it.
    pub fn date(&self) -> Option<&str> {
        self.header(DATE)
    }

    /// Returns the `Content-Disposition` header.
    pub fn content_disposition(&self) -> Option<&str> {
        self.header(CONTENT_DISPOSITION)
    }

    /// Returns the size in bytes that the server announces. `None` for a compressed content.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length().filter(|_| !self.is_compressed())
    }

    fn is_compressed(&self) -> bool {
        self.header(CONTENT_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"))
    }

    /// Writes the whole file and returns its size. Calls `progress` with the length of each chunk.
    ///
    /// # Errors
    /// Fails if the file has more than `limit` bytes or the connection breaks.
    pub async fn copy_to<W: Write>(
        self,
        writer: &mut W,
        limit: Option<u64>,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, Error> {
        let (length, is_compressed) = (self.length(), self.is_compressed());
        let Self { target, mut response, pace } = self;
        let failed = |problem: Problem| problem.of_url(&target);
        let limit = limit.unwrap_or(u64::MAX);
        if length.is_some_and(|length| length > limit) {
            return Err(failed(Problem::TooLarge(limit)));
        }
        let writer = Limited { writer, left: limit };
        let mut writer = if is_compressed {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(writer)))
        } else {
            Decoder::None(writer)
        };
        let written = |error: io::Error| match error.kind() {
            io::ErrorKind::FileTooLarge => failed(Problem::TooLarge(limit)),
            _ => failed(error.into()),
        };
        let mut body = PacedBody::new(pace);
        while let Some(chunk) = body.chunk(&mut response).await.map_err(failed)? {
            writer.write_all(&chunk).map_err(written)?;
            progress(chunk.len() as u64);
        }
        let left = writer.finish().map_err(written)?;
        Ok(limit - left)
    }
}

/// A writer that fails if too many bytes are written, with `FileTooLarge`.
struct Limited<'a, W> {
    writer: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Limited<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.writer.write(bytes)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A writer of contents as they were before the server compressed them.
enum Decoder<'a, W: Write> {
    None(Limited<'a, W>),
    Gzip(Box<MultiGzDecoder<Limited<'a, W>>>),
}

impl<W: Write> Decoder<'_, W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(writer) => writer.write_all(bytes),
            Self::Gzip(writer) => writer.write_all(bytes),
        }
    }

    /// Writes the rest. Returns the number of bytes that could still be written.
    fn finish(self) -> io::Result<u64> {
        match self {
            Self::None(writer) => Ok(writer.left),
            Self::Gzip(writer) => Ok(writer.finish()?.left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(redacted("https://u:p@h:1/a@b?x#y"), "https://h:1/a@b?x#y");
        assert_eq!(redacted("http://h"), "http://h");
        assert_eq!(redacted("git@h:x"), "git@h:x");
        assert_eq!(redacted("https://u:p@h/a?token=x&v=1"), "https://h/a?token=***&v=1");
        let url = "https://u:password@h/".to_owned();
        let authorization = Some("Bearer token".to_owned());
        let request = FetchRequest { url, authorization, ..FetchRequest::default() };
        let shown = format!("{request:?}");
        assert!(!shown.contains("password") && !shown.contains("token"), "{shown}");
    }
}
