//! A minimal HTTP/1.1 server for tests. Each connection has its own thread and carries a single
//! request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

/// A request that a server received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method in upper case.
    pub method: String,
    /// The path and the query.
    pub path: String,
    /// The headers, by name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, as far as it arrived.
    pub body: Vec<u8>,
    /// `true` if the connection broke off before the body was complete.
    pub was_cut: bool,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The number of bytes of the body after which the connection breaks off.
    pub(crate) cut: Option<usize>,
    /// The value of the `Content-Length` header; `None` to omit it.
    pub(crate) length: Option<usize>,
    /// `true` to repeat the body without end.
    pub(crate) is_endless: bool,
    /// The pause after each tenth of the body.
    pub(crate) trickle: Option<Duration>,
}

/// A handler of requests.
pub(crate) trait Service: Send + Sync + 'static {
    /// Returns `true` to break the connection in the middle of this request's body.
    fn cuts(&self, _request: &Request) -> bool {
        false
    }
    /// Returns the pause before each MiB of this request's body is read.
    fn pause(&self, _request: &Request) -> Option<Duration> {
        None
    }
    /// Returns the answer to a request, or `None` to close the connection without one.
    fn answer(&self, request: Request) -> Option<Answer>;
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        let length = Some(body.len());
        Self { status, headers, body, cut: None, length, is_endless: false, trickle: None }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn complaint(status: u16, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": "FAKE", "message": message}]});
        Self::new(status, body.to_string())
    }
}

/// A server on a loopback port. Dropping it stops the server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on an address of this machine, such as `127.0.0.1`. `service` creates the
    /// handler once the port is known.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub(crate) fn start<S: Service>(host: &str, service: impl FnOnce(SocketAddr) -> S) -> Self {
        Self::start_with(host, None, service)
    }

    /// Starts a server that uses `https` if a TLS configuration is given.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub(crate) fn start_with<S: Service>(
        host: &str,
        tls: Option<Arc<ServerConfig>>,
        service: impl FnOnce(SocketAddr) -> S,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("bind a loopback port");
        let address = listener.local_addr().expect("read the port");
        let stop = Arc::new(AtomicBool::new(false));
        let (service, stopped) = (Arc::new(service(address)), Arc::clone(&stop));
        let thread = std::thread::spawn(move || serve(&listener, tls.as_ref(), &service, &stopped));
        Self { address, stop, thread: Some(thread) }
    }

    /// Returns the address and port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Connecting wakes the server's thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves connections until `stop` is set and another connection arrives.
fn serve<S: Service>(
    listener: &TcpListener,
    tls: Option<&Arc<ServerConfig>>,
    service: &Arc<S>,
    stop: &AtomicBool,
) {
    let mut connections = Vec::new();
    for connection in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(connection) = connection else { continue };
        let Ok(socket) = connection.try_clone() else { continue };
        let (service, tls) = (Arc::clone(service), tls.cloned());
        let thread = std::thread::spawn(move || {
            // An error here means that the client has closed the connection.
            let _ = answer_connection(&connection, tls.as_ref(), &*service);
            let _ = connection.shutdown(Shutdown::Both);
        });
        connections.push((socket, thread));
    }
    for (socket, thread) in connections {
        // Without this, the thread of a client that stopped reading would never end.
        let _ = socket.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

/// The answer of `https` servers to plain HTTP, as Go words it.
const WANTS_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// The answer of plain HTTP servers to TLS.
const WANTS_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request";

fn answer_connection(
    connection: &TcpStream,
    tls: Option<&Arc<ServerConfig>>,
    service: &impl Service,
) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut first = [0];
    let begins_tls = connection.peek(&mut first)? == 1 && first[0] == 22;
    let mut socket = connection;
    let Some(tls) = tls else {
        if begins_tls {
            return socket.write_all(WANTS_HTTP);
        }
        return converse(&mut socket, service);
    };
    if !begins_tls {
        return socket.write_all(WANTS_TLS);
    }
    let session = ServerConnection::new(Arc::clone(tls));
    let mut session = session.map_err(std::io::Error::other)?;
    let answered = converse(&mut rustls::Stream::new(&mut session, &mut socket), service);
    session.send_close_notify();
    session.complete_io(&mut socket)?;
    answered
}

fn converse<S: Read + Write>(stream: &mut S, service: &impl Service) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut *stream);
    let Some(mut request) = read_head(&mut reader)? else { return Ok(()) };
    let length = request.headers.get("content-length").and_then(|text| text.parse::<u64>().ok());
    let mut length = length.unwrap_or(0);
    if length > 0 && service.cuts(&request) {
        request.was_cut = true;
        length /= 2;
    }
    if request.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        read_chunks(&mut reader, &mut request.body)?;
    } else if let Some(pause) = service.pause(&request) {
        while (request.body.len() as u64) < length {
            std::thread::sleep(pause);
            let part = (1 << 20).min(length - request.body.len() as u64);
            if reader.by_ref().take(part).read_to_end(&mut request.body)? == 0 {
                break;
            }
        }
    } else {
        reader.by_ref().take(length).read_to_end(&mut request.body)?;
    }
    let is_head = request.method == "HEAD";
    match service.answer(request) {
        Some(answer) => write_answer(stream, is_head, &answer),
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

/// Reads a chunked body. A line with its length in hexadecimal digits precedes each chunk.
fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        reader.by_ref().take(length).read_to_end(body)?;
        reader.read_line(&mut String::new())?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn write_answer(to: &mut impl Write, is_head: bool, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
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
    if answer.is_endless {
        loop {
            to.write_all(&answer.body)?;
        }
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
