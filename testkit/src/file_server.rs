//! A server of files that says what it is told to, on a loopback port.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What is said about a path.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status; 0 stands for 200.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// Whether the content is sent again and again, without an end.
    pub is_endless: bool,
    /// How many connections break in the middle of the content.
    pub cuts: u32,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct FileRequest {
    /// Its path.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// A server of files; stopped when dropped.
#[derive(Debug)]
pub struct FileServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    directory: Option<PathBuf>,
    requests: Vec<FileRequest>,
}

impl FileServer {
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
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.1.load(Ordering::SeqCst) {
                    break;
                }
                let state = Arc::clone(&shared.0);
                std::thread::spawn(move || {
                    // Whoever hangs up early is no concern of ours.
                    let _ = serve(&stream, &state);
                });
            }
        });
        Self { address, state, stop, thread: Some(thread) }
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets what is said about a path.
    pub fn put(&self, path: &str, answer: Answer) {
        lock(&self.state).answers.insert(path.to_owned(), answer);
    }

    /// Serves a directory's files where no answer is set.
    pub fn serve_directory(&self, directory: PathBuf) {
        lock(&self.state).directory = Some(directory);
    }

    /// Returns what was asked for, and forgets it.
    pub fn take_requests(&self) -> Vec<FileRequest> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Answer {
    /// Returns an answer with a content.
    pub fn of(body: impl AsRef<[u8]>) -> Self {
        Self { body: body.as_ref().to_vec(), ..Self::default() }
    }

    /// Returns a redirect.
    pub fn redirect(to: &str) -> Self {
        Self { status: 302, ..Self::default() }.with("Location", to)
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let condition = headers.get("if-none-match").cloned();
    let answer = {
        let mut state = lock(state);
        state.requests.push(FileRequest { path: path.clone(), headers });
        find(&mut state, &path)
    };
    let etag = answer.headers.iter().find(|(name, _)| name == "ETag").map(|(_, value)| value);
    if etag.is_some() && etag == condition.as_ref() {
        return write!(&*stream, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n");
    }
    respond(stream, &answer)
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

fn respond(mut stream: &TcpStream, answer: &Answer) -> std::io::Result<()> {
    let status = if answer.status == 0 { 200 } else { answer.status };
    write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n")?;
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    if answer.is_endless {
        write!(stream, "\r\n")?;
        loop {
            stream.write_all(&answer.body)?;
        }
    }
    write!(stream, "Content-Length: {}\r\n\r\n", answer.body.len())?;
    let length = if answer.cuts > 0 { answer.body.len() / 2 } else { answer.body.len() };
    stream.write_all(&answer.body[..length])
}
