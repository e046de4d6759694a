//! A relay for DNS queries from a namespace to servers that only the host can reach.
//!
//! The sockets belong to the namespace, the process is kiln. The relay takes no port of the host,
//! gives access to nothing but its name servers, and ends with the namespace.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::resolver::ADDRESS;

/// The maximum number of concurrent queries per protocol. Others wait.
const AT_ONCE: usize = 128;

/// The time limit for a server's answer before the next server is tried.
const PATIENCE: Duration = Duration::from_secs(4);

/// The time limit for a whole TCP connection.
const CONNECTION: Duration = Duration::from_secs(30);

/// The maximum size of a message in bytes.
const MAX_MESSAGE: usize = 65_535;

/// The sockets of a namespace that receive queries.
#[derive(Debug)]
pub(super) struct Sockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
}

impl Sockets {
    /// Opens the sockets in the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let (udp, tcp) = (StdUdpSocket::bind((ADDRESS, 53))?, StdTcpListener::bind((ADDRESS, 53))?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// Relays queries to `servers` until the returned set is dropped.
    pub(super) fn serve(self, servers: Vec<SocketAddr>) -> io::Result<JoinSet<()>> {
        let udp = Arc::new(UdpSocket::from_std(self.udp)?);
        let tcp = TcpListener::from_std(self.tcp)?;
        let servers: Arc<[SocketAddr]> = servers.into();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_datagrams(udp, Arc::clone(&servers)));
        tasks.spawn(serve_connections(tcp, servers));
        Ok(tasks)
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, servers: Arc<[SocketAddr]>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        // The kernel reports undelivered answers as an error of the next call.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let question = buffer[..length].to_vec();
        let (socket, servers) = (Arc::clone(&socket), Arc::clone(&servers));
        tasks.spawn(async move {
            let answer = ask(&question, &servers).await.or_else(|| failure(&question));
            if let Some(answer) = answer {
                // The sender of the query may be gone.
                let _ = socket.send_to(&answer, from).await;
            }
            drop(permit);
        });
    }
}

async fn ask(question: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask_one(question, *server)).await {
            return Some(answer);
        }
    }
    None
}

async fn ask_one(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The answer must have the query's ID.
        if length >= 2 && answer.get(..2) == question.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

/// Returns a SERVFAIL answer, so that the program doesn't wait for a timeout.
fn failure(question: &[u8]) -> Option<Vec<u8>> {
    let mut answer = question.to_vec();
    // Only queries get an answer.
    if answer.len() < 12 || answer[2] & 0x80 != 0 {
        return None;
    }
    answer[2] |= 0x80;
    answer[3] = (answer[3] & 0x70) | 0x82;
    Some(answer)
}

async fn serve_connections(listener: TcpListener, servers: Arc<[SocketAddr]>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((mut client, _)) = listener.accept().await else {
            // Usually there are too many open descriptors, which is temporary.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let servers = Arc::clone(&servers);
        tasks.spawn(async move {
            for server in servers.iter() {
                if let Ok(Ok(mut server)) = timeout(PATIENCE, TcpStream::connect(server)).await {
                    let _ = timeout(CONNECTION, copy_bidirectional(&mut client, &mut server)).await;
                    break;
                }
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_server_is_asked_where_one_refuses() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let answering = server.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0; 64];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            // The server sends an unrelated answer first.
            server.send_to(b"zz other", from).await.unwrap();
            buffer[length - 1] = b'!';
            server.send_to(&buffer[..length], from).await.unwrap();
        });
        let question = b"id 0123456789?";
        let answer = ask(question, &[refusing, answering]).await.unwrap();
        assert_eq!(answer, b"id 0123456789!");
        assert_eq!(ask(question, &[refusing]).await, None);
    }

    #[test]
    fn a_question_that_nobody_answers_has_failed() {
        let question = [7, 7, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let answer = failure(&question).unwrap();
        assert_eq!(answer[..4], [7, 7, 0x81, 0xa2]);
        assert_eq!(answer[4..], question[4..]);
        assert_eq!(failure(&answer), None);
        assert_eq!(failure(&question[..11]), None);
    }
}
