//! A proxy that forwards connections and datagrams from a socket of the host to a namespace.
//!
//! A connection has two directions, and each ends by itself: a client that has sent everything still
//! receives the rest of the answer. A connection is counted until both directions have ended, one has
//! failed, or its peer doesn't answer the kernel's probes. If one direction has ended, the connection is
//! closed after a time without data, because a client that has closed both directions looks the same.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ports::Protocol;
use super::thread::NamespaceThread;

/// The maximum number of concurrent connections over all ports of a namespace. Others wait to be
/// accepted. Each connection takes two descriptors.
const CONNECTIONS: usize = 4096;
/// The divisor of this process's descriptor limit that yields the proxy's share.
const SHARE: usize = 4;
/// The maximum time without data for a connection of which one direction has ended.
const HALF_OPEN: Duration = Duration::from_mins(10);
/// The time without data before the kernel probes the peer, and the interval and number of the probes.
const PROBES: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(15), 8);
/// The size in bytes of the buffer for one direction of a connection.
const UNDER_WAY: usize = 8 << 10;
/// The time limit for connecting to the namespace.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time of silence after which a sender of datagrams is forgotten.
const SILENCE: Duration = Duration::from_secs(90);

/// The maximum number of remembered senders of datagrams. New senders beyond it are ignored.
const SENDERS: usize = 1024;

/// The maximum number of waiting datagrams per sender.
const WAITING: usize = 64;
/// The maximum number of waiting bytes of all senders to a port.
const WAITING_BYTES: usize = 8 << 20;

const MAX_DATAGRAM: usize = 65_535;

/// The limit on the connections of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    /// The maximum time without data for a connection of which one direction has ended.
    half_open: Duration,
}

impl Default for Room {
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = limit.map_or(usize::MAX, |limit| limit as usize);
        Self::of((descriptors / SHARE / 2).clamp(16, CONNECTIONS))
    }
}

impl Room {
    fn of(connections: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(connections)), half_open: HALF_OPEN }
    }
}

/// A port in a namespace, and the way there.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) address: SocketAddr,
    /// The thread in whose namespace connections begin. `None` for that of this process.
    pub(super) thread: Option<Arc<NamespaceThread>>,
}

impl Destination {
    async fn connect(&self) -> io::Result<TcpStream> {
        match &self.thread {
            Some(thread) => thread.connect(self.address).await,
            None => TcpStream::connect(self.address).await,
        }
    }

    /// Returns a socket for datagrams to and from the port.
    async fn datagrams(&self) -> io::Result<UdpSocket> {
        let socket = match &self.thread {
            Some(thread) => thread.datagrams().await?,
            None => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
        };
        socket.connect(self.address).await.map(|()| socket)
    }
}

/// Forwards everything that arrives at `socket` until `tasks` is dropped.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    socket: OwnedFd,
    protocol: Protocol,
    to: Destination,
    room: &Room,
) -> io::Result<()> {
    if protocol == Protocol::Udp {
        let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
        tasks.spawn(pass_datagrams(Arc::new(socket), to));
    } else {
        let listener = TcpListener::from_std(StdTcpListener::from(socket))?;
        tasks.spawn(pass_connections(listener, to, room.clone()));
    }
    Ok(())
}

async fn pass_connections(listener: TcpListener, to: Destination, room: Room) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            // Usually there are too many open descriptors, which is temporary.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room.places).acquire_owned().await else { return };
        let (half_open, to) = (room.half_open, to.clone());
        tasks.spawn(async move {
            // If no program listens in the namespace, the client's connection is closed.
            let connected = timeout(PATIENCE, to.connect()).await;
            let Ok(Ok(server)) = connected else { return };
            prepare(&client);
            prepare(&server);
            pass_both(client, server, half_open).await;
            drop(place);
        });
    }
}

/// Disables Nagle's algorithm and enables the kernel's probes. Ignores a kernel that supports neither.
fn prepare(stream: &TcpStream) {
    let (idle, interval, count) = PROBES;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_keepidle(stream, idle);
    let _ = sockopt::set_tcp_keepintvl(stream, interval);
    let _ = sockopt::set_tcp_keepcnt(stream, count);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

/// Forwards both directions of a connection until both have ended, one has failed, or one has ended
/// and no data comes.
async fn pass_both(mut client: TcpStream, mut server: TcpStream, half_open: Duration) {
    let activity = Activity::default();
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let both = async {
        tokio::try_join!(
            pass(from_client, to_server, &activity),
            pass(from_server, to_client, &activity)
        )
    };
    tokio::select! {
        _ = both => {}
        () = activity.cease(half_open) => {}
    }
}

/// Forwards one direction of a connection, including its end.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; UNDER_WAY];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            activity.is_half_open.store(true, Ordering::Relaxed);
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        activity.turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// The activity of a connection.
#[derive(Debug, Default)]
struct Activity {
    /// The number of forwarded pieces.
    turns: AtomicU64,
    /// `true` if one direction has ended.
    is_half_open: AtomicBool,
}

impl Activity {
    /// Waits until one direction has ended and no data has come for a time.
    async fn cease(&self, silence: Duration) {
        let state = || {
            let is_half_open = self.is_half_open.load(Ordering::Relaxed);
            (is_half_open, self.turns.load(Ordering::Relaxed))
        };
        loop {
            let before = state();
            tokio::time::sleep(silence).await;
            if before.0 && state() == before {
                return;
            }
        }
    }
}

/// A waiting datagram and its share of the memory.
type Datagram = (Vec<u8>, OwnedSemaphorePermit);

async fn pass_datagrams(socket: Arc<UdpSocket>, to: Destination) {
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Datagram>> = HashMap::new();
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        // The kernel reports undelivered datagrams as an error of the next call.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        while tasks.try_join_next().is_some() {}
        senders.retain(|_, sender| !sender.is_closed());
        if !senders.contains_key(&from) {
            if senders.len() >= SENDERS {
                continue;
            }
            let (sender, receiver) = mpsc::channel(WAITING);
            senders.insert(from, sender);
            tasks.spawn(pass_for(Arc::clone(&socket), receiver, from, to.clone()));
        }
        // Datagrams for a slow reader are dropped.
        if let Some(sender) = senders.get(&from)
            && let Ok(place) = Arc::clone(&room).try_acquire_many_owned(length as u32)
        {
            let _ = sender.try_send((buffer[..length].to_vec(), place));
        }
    }
}

/// Forwards the datagrams of one sender and the answers, until there is silence.
async fn pass_for(
    socket: Arc<UdpSocket>,
    mut datagrams: mpsc::Receiver<Datagram>,
    from: SocketAddr,
    to: Destination,
) {
    let Ok(server) = to.datagrams().await else { return };
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let turn = async {
            tokio::select! {
                Some((datagram, _place)) = datagrams.recv() => {
                    let _ = server.send(&datagram).await;
                }
                answer = server.recv(&mut buffer) => {
                    if let Ok(length) = answer {
                        let _ = socket.send_to(&buffer[..length], from).await;
                    }
                }
            }
        };
        if timeout(SILENCE, turn).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a server, the port that leads to it, and what passes connections on.
    async fn scene(room: Room) -> (TcpListener, SocketAddr, JoinSet<()>) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let socket = StdTcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let port = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let to = Destination { address: to, thread: None };
        start(&mut tasks, socket.into(), Protocol::Tcp, to, &room).unwrap();
        (server, port, tasks)
    }

    #[tokio::test]
    async fn a_caller_that_has_said_all_gets_the_rest_of_the_answer() {
        let (server, port, _tasks) = scene(Room::of(2)).await;
        let mut client = TcpStream::connect(port).await.unwrap();
        client.write_all(b"all").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut asked = String::new();
        served.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "all");
        let answer = vec![7; 3_000_000];
        let read = async {
            // A slow reader.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.map(|_| got)
        };
        let write = async {
            served.write_all(&answer).await?;
            served.shutdown().await
        };
        let (got, written) = tokio::join!(read, write);
        written.unwrap();
        assert!(got.unwrap() == answer);
    }

    #[tokio::test]
    async fn half_of_a_connection_holds_no_place_for_ever() {
        let room = Room { half_open: Duration::from_millis(200), ..Room::of(1) };
        let (server, port, _tasks) = scene(room).await;
        let gone = TcpStream::connect(port).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        // Nothing passes, but both halves are there.
        tokio::time::sleep(Duration::from_millis(500)).await;
        served.write_all(b"a").await.unwrap();
        drop(gone);
        let mut other = TcpStream::connect(port).await.unwrap();
        other.write_all(b"b").await.unwrap();
        // The server neither answers nor hangs up.
        let accepted = timeout(Duration::from_secs(10), server.accept()).await;
        let (mut served, _) = accepted.unwrap().unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'b');
    }

    #[tokio::test]
    async fn the_kernel_asks_whether_peers_are_there() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        prepare(&stream);
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), PROBES.0);
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let (server, port, _tasks) = scene(Room::of(2)).await;
        let (first, second) = (TcpStream::connect(port).await, TcpStream::connect(port).await);
        let mut third = TcpStream::connect(port).await.unwrap();
        third.write_all(b"third").await.unwrap();
        let (kept, too) = (server.accept().await.unwrap(), server.accept().await.unwrap());
        let waits = timeout(Duration::from_millis(100), server.accept()).await;
        assert!(waits.is_err(), "there is no room");
        drop((first, second, kept, too));
        let (mut served, _) =
            timeout(Duration::from_secs(10), server.accept()).await.unwrap().unwrap();
        let mut text = [0; 5];
        served.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"third");
    }
}
