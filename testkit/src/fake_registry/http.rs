//! Just enough of HTTP/1.1: one thread for each connection and one request on each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    /// Whether the connection was cut before all of the body had come.
    pub was_cut: bool,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// How many bytes of the body are sent before the connection is cut.
    pub(super) cut: Option<usize>,
    /// What is said of its length; nothing for `None`.
    pub(super) length: Option<usize>,
    /// The pause after each tenth of the body.
    pub(super) trickle: Option<Duration>,
}

/// Answers requests.
pub(super) trait Service: Send + Sync + 'static {
    /// Tells whether the connection is to be cut in the middle of this request's body.
    fn cuts(&self, request: &Request) -> bool;
    /// Returns what is answered; `None` where the connection was cut.
    fn answer(&self, request: Request) -> Option<Answer>;
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        let length = Some(body.len());
        Self { status, headers, body, cut: None, length, trickle: None }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn complaint(status: u16, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": "FAKE", "message": message}]});
        Self::new(status, body.to_string())
    }
}

/// Serves until `stop` is set and somebody connects.
pub(super) fn serve<S: Service>(listener: &TcpListener, service: &Arc<S>, stop: &AtomicBool) {
    let mut connections = Vec::new();
    for connection in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(connection) = connection else { continue };
        let Ok(socket) = connection.try_clone() else { continue };
        let service = Arc::clone(service);
        let thread = std::thread::spawn(move || {
            // A client that goes away is none of the registry's business.
            let _ = answer_connection(&connection, &*service);
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

fn answer_connection(connection: &TcpStream, service: &impl Service) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(connection);
    let Some(mut request) = read_head(&mut reader)? else { return Ok(()) };
    let length = request.headers.get("content-length").and_then(|text| text.parse::<u64>().ok());
    let mut length = length.unwrap_or(0);
    if length > 0 && service.cuts(&request) {
        request.was_cut = true;
        length /= 2;
    }
    reader.take(length).read_to_end(&mut request.body)?;
    let is_head = request.method == "HEAD";
    match service.answer(request) {
        Some(answer) => write_answer(connection, is_head, &answer),
        None => Ok(()),
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
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
    Ok(Some(request))
}

fn write_answer(mut to: &TcpStream, is_head: bool, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([*name, ": ", value, "\r\n"]);
    }
    if let Some(length) = answer.length {
        let length = length.to_string();
        head.extend(["Content-Length: ", &length, "\r\n"]);
    }
    head.push_str("\r\n");
    to.write_all(head.as_bytes())?;
    if is_head {
        return to.flush();
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    let Some(pause) = answer.trickle else {
        to.write_all(body)?;
        return to.flush();
    };
    for piece in body.chunks(body.len().div_ceil(10).max(1)) {
        to.write_all(piece)?;
        to.flush()?;
        std::thread::sleep(pause);
    }
    Ok(())
}
