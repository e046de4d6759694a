//! A file server on a loopback port with configurable answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::{self, Request, Server, Service};

/// The answer to requests for a path.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status code; 0 stands for 200.
    pub status: u16,
    /// The names and values of additional headers.
    pub headers: Vec<(String, String)>,
    /// The content of the file.
    pub body: Vec<u8>,
    /// `true` to repeat the content without end.
    pub is_endless: bool,
    /// The number of connections that break off in the middle of the content.
    pub cuts: u32,
}

/// A request that the server received.
#[derive(Clone, Debug)]
pub struct FileRequest {
    /// The path, with the query if there is one.
    pub path: String,
    /// The headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// A file server on a loopback port. Dropping it stops the server.
#[derive(Debug)]
pub struct FileServer {
    server: Server,
    state: Arc<Mutex<State>>,
}

struct Shared(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    directory: Option<PathBuf>,
    requests: Vec<FileRequest>,
}

impl FileServer {
    /// Starts a server without files.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        Self { server: Server::start("127.0.0.1", |_| Shared(shared)), state }
    }

    /// Returns the URL for a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    /// Sets the answer for a path.
    pub fn put(&self, path: &str, answer: Answer) {
        lock(&self.state).answers.insert(path.to_owned(), answer);
    }

    /// Serves the files of a directory for paths without an answer.
    pub fn serve_directory(&self, directory: PathBuf) {
        lock(&self.state).directory = Some(directory);
    }

    /// Returns the recorded requests and clears the record.
    pub fn take_requests(&self) -> Vec<FileRequest> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

impl Answer {
    /// Returns an answer with the given content.
    pub fn of(body: impl AsRef<[u8]>) -> Self {
        Self { body: body.as_ref().to_vec(), ..Self::default() }
    }

    /// Returns a redirect with status 302.
    pub fn redirect(to: &str) -> Self {
        Self { status: 302, ..Self::default() }.with("Location", to)
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service for Shared {
    fn answer(&self, request: Request) -> Option<http::Answer> {
        let Request { path, headers, .. } = request;
        let condition = headers.get("if-none-match").cloned();
        let answer = {
            let mut state = lock(&self.0);
            state.requests.push(FileRequest { path: path.clone(), headers });
            find(&mut state, &path)
        };
        let etag = answer.headers.iter().find(|(name, _)| name == "ETag").map(|(_, value)| value);
        if etag.is_some() && etag == condition.as_ref() {
            return Some(http::Answer::new(304, ""));
        }
        Some(response(answer))
    }
}

fn find(state: &mut State, path: &str) -> Answer {
    if let Some(answer) = state.answers.get_mut(path) {
        let given = answer.clone();
        answer.cuts = answer.cuts.saturating_sub(1);
        return given;
    }
    let name = path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let file = state.directory.as_ref().and_then(|root| std::fs::read(root.join(name)).ok());
    file.map_or(Answer { status: 404, ..Answer::default() }, Answer::of)
}

fn response(answer: Answer) -> http::Answer {
    let status = if answer.status == 0 { 200 } else { answer.status };
    let half = answer.body.len() / 2;
    let mut response = http::Answer::new(status, answer.body);
    response.headers = answer.headers;
    response.cut = (answer.cuts > 0).then_some(half);
    if answer.is_endless {
        (response.is_endless, response.length) = (true, None);
    }
    response
}
