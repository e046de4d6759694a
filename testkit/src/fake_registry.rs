//! A registry that misbehaves on demand.
//!
//! It stores everything in memory and records every request. [`Switches`] select the misbehaviour
//! and can be changed at any time.

mod tokens;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_oci::Digest;
use rustls::ServerConfig;

pub use self::tokens::REFRESH_TOKEN;
use crate::certificate::Certificate;
pub use crate::http::Request;
use crate::http::{Answer, Server, Service};

/// The token that the token server issues.
pub const TOKEN: &str = "a-token-of-the-fake-registry";

/// The protocol of the token server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenKind {
    /// The server accepts `GET` requests only.
    #[default]
    Get,
    /// The server accepts `POST` requests of OAuth 2 only.
    Post,
    /// The server accepts both, and issues refresh tokens in place of passwords.
    Identity,
}

/// The misbehaviour of a registry. Each request that a counter affects decrements it.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// `true` if all requests except those to the token server require a token.
    pub require_token: bool,
    /// The realm in challenges, in place of the registry's own token server.
    pub realm: Option<String>,
    /// The authentication scheme in challenges, in place of `Bearer`.
    pub scheme: Option<String>,
    /// The name and the password that the token server requires.
    pub login: Option<(String, String)>,
    /// The protocol of the token server.
    pub token_kind: TokenKind,
    /// The name and the password that the registry itself requires.
    pub basic: Option<(String, String)>,
    /// `true` if a byte of each blob and manifest is changed.
    pub corrupt: bool,
    /// `true` if manifests have the header of another digest.
    pub wrong_announcement: bool,
    /// The content type of manifests, in place of the right one.
    pub content_type: Option<String>,
    /// The number of requests to answer with status 429.
    pub limited: u32,
    /// The value of `Retry-After` for status 429; `0` if unset.
    pub retry_after: Option<String>,
    /// The number of requests to answer with status 503.
    pub unavailable: u32,
    /// The number of blobs whose download breaks off in the middle.
    pub cuts: u32,
    /// `true` to ignore ranges and send every blob from its beginning.
    pub ignores_ranges: bool,
    /// The origin to which requests for blobs are redirected, as `http://127.0.0.1:4711`. The path
    /// stays the same.
    pub blobs_at: Option<String>,
    /// `true` to send blobs without a length. The end of the connection ends the blob.
    pub no_length: bool,
    /// The length that the headers of blobs claim.
    pub wrong_length: Option<usize>,
    /// The entity tag of blobs.
    pub etag: Option<String>,
    /// The pause after each tenth of a blob.
    pub trickle: Option<Duration>,
    /// `true` to answer `HEAD` with status 405.
    pub no_head: bool,
    /// The number of uploads whose connection breaks off within a body.
    pub upload_cuts: u32,
    /// `true` to discard uploads that broke off.
    pub forgets_uploads: bool,
    /// `true` to accept parts of uploads without storing them.
    pub keeps_nothing: bool,
    /// `true` to store only ten bytes of each part of an upload.
    pub keeps_little: bool,
    /// The pause before each MiB of an upload is read.
    pub read_pause: Option<Duration>,
    /// `true` to refuse mounting blobs from other repositories.
    pub no_mounts: bool,
    /// The part of a path for which requests are refused with status 403.
    pub forbidden: Option<String>,
    /// The status of the answers to requests whose path contains this text.
    pub refused: Option<(String, u16)>,
    /// The maximal length of a body in bytes. Longer bodies are refused with status 413.
    pub max_body: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    switches: Switches,
    requests: Vec<Request>,
    blobs: BTreeMap<String, Vec<u8>>,
    /// The pairs of repository and digest. A blob without a repository is available in all of them.
    holders: BTreeSet<(String, String)>,
    uploads: BTreeMap<String, Vec<u8>>,
    next_upload: u32,
    /// The media type and bytes of each manifest, by repository and by tag or digest.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
}

/// A registry on a loopback port. Dropping it stops the server.
#[derive(Debug)]
pub struct FakeRegistry {
    server: Server,
    state: Arc<Mutex<State>>,
}

struct Shared {
    /// The scheme, host and port.
    origin: String,
    state: Arc<Mutex<State>>,
}

impl Service for Shared {
    fn cuts(&self, request: &Request) -> bool {
        let mut state = lock(&self.state);
        let cuts = state.switches.upload_cuts > 0 && request.path.contains("/blobs/uploads/");
        state.switches.upload_cuts -= u32::from(cuts);
        cuts
    }

    fn pause(&self, request: &Request) -> Option<Duration> {
        let pause = lock(&self.state).switches.read_pause;
        pause.filter(|_| request.path.contains("/blobs/uploads/"))
    }

    fn answer(&self, request: Request) -> Option<Answer> {
        let mut state = lock(&self.state);
        state.requests.push(request.clone());
        state.answer(&request, &self.origin)
    }
}

impl FakeRegistry {
    /// Starts a registry on `127.0.0.1`.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// Starts a registry on another address of this machine, such as `127.0.0.2`.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub fn start_at(host: &str) -> Self {
        Self::start_with(host, None)
    }

    /// Starts a registry that uses `https` with the given certificate.
    ///
    /// # Panics
    /// Panics if no port is free, or if the certificate is invalid.
    pub fn start_tls(certificate: &Certificate) -> Self {
        Self::start_with("127.0.0.1", Some(certificate.server()))
    }

    fn start_with(host: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, scheme) = (Arc::clone(&state), if tls.is_some() { "https" } else { "http" });
        let service = |address| Shared { origin: format!("{scheme}://{address}"), state: shared };
        Self { server: Server::start_with(host, tls, service), state }
    }

    /// Returns host and port, as `127.0.0.1:4711`.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Changes the registry's misbehaviour.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut lock(&self.state).switches);
    }

    /// Adds a blob to all repositories.
    pub fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        lock(&self.state).blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    /// Adds a blob to a single repository.
    pub fn put_blob_in(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = self.put_blob(bytes);
        lock(&self.state).holders.insert((repository.to_owned(), digest.to_string()));
        digest
    }

    /// Returns the digests of the blobs that belong to a repository.
    pub fn blobs_of(&self, repository: &str) -> Vec<Digest> {
        let state = lock(&self.state);
        let own = state.holders.iter().filter(|(holder, _)| holder == repository);
        own.filter_map(|(_, digest)| digest.parse().ok()).collect()
    }

    /// Adds a manifest or index under a tag and under its digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Digest {
        let digest = Digest::of(bytes);
        let mut state = lock(&self.state);
        for name in [tag.to_owned(), digest.to_string()] {
            let document = (media_type.to_owned(), bytes.to_vec());
            state.manifests.insert((repository.to_owned(), name), document);
        }
        digest
    }

    /// Returns the recorded requests and clears the record.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn answer(&mut self, request: &Request, origin: &str) -> Option<Answer> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if path == "/token" {
            if self.switches.forbidden.as_deref() == Some("/token") {
                return Some(Answer::complaint(403, "no tokens for you"));
            }
            return Some(tokens::answer(&self.switches, request));
        }
        if let Some(spoiled) = self.spoil(path) {
            return Some(spoiled);
        }
        if let Some(refusal) = tokens::refuse(&self.switches, request, origin) {
            return Some(refusal);
        }
        if path == "/v2/" {
            return Some(Answer::new(200, "{}"));
        }
        let parts = ["/manifests/", "/blobs/uploads/", "/blobs/"].iter().find_map(|kind| {
            let (repository, rest) = path.strip_prefix("/v2/")?.split_once(kind)?;
            Some((repository.to_owned(), *kind, rest.to_owned()))
        });
        let Some((repository, kind, name)) = parts else { return Some(Answer::new(404, "")) };
        Some(match (request.method.as_str(), kind) {
            ("HEAD", _) if self.switches.no_head => Answer::complaint(405, "no such method"),
            ("GET" | "HEAD", "/manifests/") => self.manifest(&repository, &name),
            ("GET" | "HEAD", "/blobs/") => self.blob(&repository, &name, request),
            ("PUT", "/manifests/") => self.receive_manifest(&repository, &name, request),
            ("POST", "/blobs/uploads/") => self.begin_upload(&repository, query),
            (_, "/blobs/uploads/") => {
                return self.continue_upload(&repository, &name, query, request);
            }
            _ => Answer::complaint(405, "no such method"),
        })
    }

    /// Returns the error that replaces the answer to a request, if there is one.
    fn spoil(&mut self, path: &str) -> Option<Answer> {
        if path == "/v2/" {
            return None;
        }
        if self.switches.limited > 0 {
            self.switches.limited -= 1;
            let seconds = self.switches.retry_after.clone().unwrap_or_else(|| "0".to_owned());
            return Some(Answer::complaint(429, "slow down").with("Retry-After", seconds));
        }
        if let Some((part, status)) = &self.switches.refused
            && path.contains(part)
        {
            return Some(Answer::complaint(*status, "not for you"));
        }
        if self.switches.forbidden.as_deref().is_some_and(|part| path.contains(part)) {
            return Some(Answer::complaint(403, "not for you"));
        }
        if self.switches.unavailable > 0 {
            self.switches.unavailable -= 1;
            return Some(Answer::new(503, "<html>"));
        }
        None
    }

    fn has(&self, repository: &str, digest: &str) -> bool {
        let held = self.holders.iter().any(|(_, held)| held == digest);
        let own = self.holders.contains(&(repository.to_owned(), digest.to_owned()));
        self.blobs.contains_key(digest) && (own || !held)
    }

    fn manifest(&self, repository: &str, name: &str) -> Answer {
        let Some((media_type, bytes)) =
            self.manifests.get(&(repository.to_owned(), name.to_owned()))
        else {
            return Answer::complaint(404, "manifest unknown");
        };
        let announced = if self.switches.wrong_announcement { &b"another"[..] } else { bytes };
        let media_type = self.switches.content_type.as_ref().unwrap_or(media_type);
        Answer::new(200, self.spoiled(bytes))
            .with("Content-Type", media_type)
            .with("Docker-Content-Digest", Digest::of(announced).to_string())
    }

    fn blob(&mut self, repository: &str, digest: &str, request: &Request) -> Answer {
        if let Some(elsewhere) = &self.switches.blobs_at {
            let location = format!("{elsewhere}{}", request.path);
            return Answer::new(307, "").with("Location", location);
        }
        let Some(bytes) = self.blobs.get(digest).filter(|_| self.has(repository, digest)) else {
            return Answer::complaint(404, "blob unknown");
        };
        let bytes = self.spoiled(bytes);
        let start = request.headers.get("range").and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        let condition = request.headers.get("if-range");
        let changed = condition.is_some() && condition != self.switches.etag.as_ref();
        let wrong = self.switches.wrong_announcement.then(|| Digest::of(b"another"));
        let mut answer = match start.filter(|_| !self.switches.ignores_ranges && !changed) {
            Some(start) if start < bytes.len() => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[start..]).with("Content-Range", range)
            }
            Some(_) => return Answer::new(416, ""),
            None => Answer::new(200, bytes),
        };
        if let Some(etag) = &self.switches.etag {
            answer = answer.with("ETag", etag);
        }
        answer.trickle = self.switches.trickle;
        answer.length = match self.switches.wrong_length {
            None if self.switches.no_length => None,
            wrong => wrong.or(answer.length),
        };
        if let Some(wrong) = wrong {
            answer = answer.with("Docker-Content-Digest", wrong.to_string());
        }
        if self.switches.cuts > 0 && request.method == "GET" {
            self.switches.cuts -= 1;
            answer.cut = Some(answer.body.len() / 2);
        }
        answer
    }

    fn spoiled(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if self.switches.corrupt
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
        bytes
    }
}
