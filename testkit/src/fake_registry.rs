//! A registry that misbehaves on demand.
//!
//! It keeps everything in memory, speaks just enough HTTP/1.1, one thread for each connection and
//! one request on each, and notes every request. [`Switches`] say how it misbehaves; they can be
//! changed at any time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kiln_oci::Digest;

/// The token that is given to whoever asks.
pub const TOKEN: &str = "a-token-of-the-fake-registry";

/// How a registry misbehaves. Counts go down with each request that they spoil.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Everything but the token server wants a token.
    pub require_token: bool,
    /// The realm that challenges name, in place of its own token server.
    pub realm: Option<String>,
    /// The scheme that challenges name, in place of `Bearer`.
    pub scheme: Option<String>,
    /// Blobs and manifests come with a byte changed.
    pub corrupt: bool,
    /// Manifests are announced under another digest.
    pub wrong_announcement: bool,
    /// Manifests are declared to be of this type.
    pub content_type: Option<String>,
    /// So many requests are answered 429, with this many seconds to wait.
    pub limited: u32,
    /// What `Retry-After` says along with 429.
    pub retry_after: Option<String>,
    /// So many requests are answered 503.
    pub unavailable: u32,
    /// So many blobs are cut off in their middle.
    pub cuts: u32,
    /// Ranges are ignored: every blob is sent from its start.
    pub ignores_ranges: bool,
    /// Blobs are to be had at this address, as `http://127.0.0.1:4711`, under the same path.
    pub blobs_at: Option<String>,
    /// Blobs come without their length, the end of the connection being theirs.
    pub no_length: bool,
    /// `HEAD` is answered 405.
    pub no_head: bool,
}

/// A request as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers, by name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    switches: Switches,
    requests: Vec<Request>,
    blobs: BTreeMap<String, Vec<u8>>,
    /// By repository, and tag or digest: type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
}

/// A registry on a loopback port; gone when dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// How many bytes of the body are sent before the connection is cut.
    cut: Option<usize>,
    no_length: bool,
}

impl FakeRegistry {
    /// Starts it.
    ///
    /// # Panics
    /// Panics where no port can be had.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
        let address = listener.local_addr().expect("read the port");
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let shared = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || serve(&listener, address, &shared.0, &shared.1));
        Self { address, state, stop, thread: Some(thread) }
    }

    /// Returns host and port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes how it misbehaves.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut lock(&self.state).switches);
    }

    /// Adds a blob.
    pub fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        lock(&self.state).blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    /// Adds a manifest or index under a tag and its digest.
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

    /// Returns what was asked for, and forgets it.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    listener: &TcpListener,
    address: SocketAddr,
    state: &Arc<Mutex<State>>,
    stop: &AtomicBool,
) {
    let mut connections = Vec::new();
    for connection in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(connection) = connection else { continue };
        let Ok(socket) = connection.try_clone() else { continue };
        let state = Arc::clone(state);
        let thread = std::thread::spawn(move || {
            // A client that goes away is none of the registry's business.
            let _ = answer_connection(&connection, address, &state);
            let _ = connection.shutdown(Shutdown::Both);
        });
        connections.push((socket, thread));
    }
    for (socket, thread) in connections {
        // A client that doesn't read any more would be waited for.
        let _ = socket.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

fn answer_connection(
    connection: &TcpStream,
    address: SocketAddr,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    connection.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let Some(request) = read_request(&mut BufReader::new(connection))? else { return Ok(()) };
    let answer = {
        let mut state = lock(state);
        state.requests.push(request.clone());
        state.answer(&request, address)
    };
    write_answer(connection, &request, &answer)
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.headers.get("content-length").and_then(|text| text.parse().ok());
    reader.take(length.unwrap_or(0)).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

fn write_answer(mut to: &TcpStream, request: &Request, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([*name, ": ", value, "\r\n"]);
    }
    if !answer.no_length {
        let length = answer.body.len().to_string();
        head.extend(["Content-Length: ", &length, "\r\n"]);
    }
    head.push_str("\r\n");
    to.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        to.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())])?;
    }
    to.flush()
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, no_length: false }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn complaint(status: u16, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": "FAKE", "message": message}]});
        Self::new(status, body.to_string())
    }
}

impl State {
    fn answer(&mut self, request: &Request, address: SocketAddr) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if path == "/token" {
            let token = serde_json::json!({"token": TOKEN, "expires_in": 300});
            return Answer::new(200, token.to_string());
        }
        if path == "/v2/" {
            return Answer::new(200, "{}");
        }
        if let Some(spoiled) = self.spoil(request, address) {
            return spoiled;
        }
        let parts = ["/manifests/", "/blobs/uploads/", "/blobs/"].iter().find_map(|kind| {
            let (repository, rest) = path.strip_prefix("/v2/")?.split_once(kind)?;
            Some((repository.to_owned(), *kind, rest.to_owned()))
        });
        let Some((repository, kind, name)) = parts else { return Answer::new(404, "") };
        match (request.method.as_str(), kind) {
            ("HEAD", _) if self.switches.no_head => Answer::complaint(405, "no such method"),
            ("GET" | "HEAD", "/manifests/") => self.manifest(&repository, &name),
            ("GET" | "HEAD", "/blobs/") => self.blob(&request.path, &name, request),
            ("PUT", "/manifests/") => self.receive_manifest(&repository, &name, request),
            ("POST", "/blobs/uploads/") => Answer::new(202, "")
                .with("Location", format!("/v2/{repository}/blobs/uploads/1?x=y")),
            ("PUT", "/blobs/uploads/") => self.receive_blob(query, request),
            _ => Answer::complaint(405, "no such method"),
        }
    }

    /// Returns what is answered in place of what was asked for, if anything.
    fn spoil(&mut self, request: &Request, address: SocketAddr) -> Option<Answer> {
        if self.switches.limited > 0 {
            self.switches.limited -= 1;
            let seconds = self.switches.retry_after.clone().unwrap_or_else(|| "0".to_owned());
            return Some(Answer::complaint(429, "slow down").with("Retry-After", seconds));
        }
        if self.switches.unavailable > 0 {
            self.switches.unavailable -= 1;
            return Some(Answer::new(503, "<html>"));
        }
        let authorized = request.headers.get("authorization");
        if !self.switches.require_token || authorized == Some(&format!("Bearer {TOKEN}")) {
            return None;
        }
        let realm = self.switches.realm.clone();
        let realm = realm.unwrap_or_else(|| format!("http://{address}/token"));
        let scheme = self.switches.scheme.as_deref().unwrap_or("Bearer");
        let challenge = format!("{scheme} realm=\"{realm}\",service=\"fake\"");
        let refusal = Answer::complaint(401, "authentication required");
        Some(refusal.with("WWW-Authenticate", challenge))
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

    fn blob(&mut self, path: &str, digest: &str, request: &Request) -> Answer {
        if let Some(elsewhere) = &self.switches.blobs_at {
            return Answer::new(307, "").with("Location", format!("{elsewhere}{path}"));
        }
        let Some(bytes) = self.blobs.get(digest) else {
            return Answer::complaint(404, "blob unknown");
        };
        let bytes = self.spoiled(bytes);
        let start = request.headers.get("range").and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        let mut answer = match start.filter(|_| !self.switches.ignores_ranges) {
            Some(start) if start < bytes.len() => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[start..]).with("Content-Range", range)
            }
            Some(_) => return Answer::new(416, ""),
            None => Answer::new(200, bytes),
        };
        answer.no_length = self.switches.no_length;
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

    fn receive_manifest(&mut self, repository: &str, tag: &str, request: &Request) -> Answer {
        let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
        let digest = Digest::of(&request.body).to_string();
        for name in [tag.to_owned(), digest.clone()] {
            let document = (media_type.clone(), request.body.clone());
            self.manifests.insert((repository.to_owned(), name), document);
        }
        Answer::new(201, "").with("Docker-Content-Digest", digest)
    }

    fn receive_blob(&mut self, query: &str, request: &Request) -> Answer {
        let digest = Digest::of(&request.body).to_string();
        let announced = query.split('&').find_map(|pair| pair.strip_prefix("digest="));
        let announced = announced.unwrap_or_default().replace("%3A", ":");
        if announced != digest {
            return Answer::complaint(400, "provided digest did not match uploaded content");
        }
        self.blobs.insert(digest, request.body.clone());
        Answer::new(201, "")
    }
}
