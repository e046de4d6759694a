//! Passing connections and datagrams on, from a socket of the host to a namespace.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ports::Protocol;

/// Most connections that are passed on at once, over all ports of a namespace; others wait to be
/// accepted. Each takes two descriptors.
const CONNECTIONS: usize = 4096;
/// The part of the descriptors of this process that connections may take.
const SHARE: usize = 4;
/// How long the namespace may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a sender of datagrams may be silent before it is forgotten.
const SILENCE: Duration = Duration::from_secs(90);

/// Most senders of datagrams that are remembered; a new one is not heard beyond.
const SENDERS: usize = 1024;

/// Datagrams of one sender that may wait,
const WAITING: usize = 64;
/// and the bytes of those of all senders to a port.
const WAITING_BYTES: usize = 8 << 20;

const MAX_DATAGRAM: usize = 65_535;

/// The room for connections of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = limit.map_or(usize::MAX, |limit| limit as usize);
        Self::of((descriptors / SHARE / 2).clamp(16, CONNECTIONS))
    }
}

impl Room {
    fn of(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections)))
    }
}

/// Passes on what arrives at `socket`, as long as the set lives.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    socket: OwnedFd,
    protocol: Protocol,
    to: SocketAddr,
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

async fn pass_connections(listener: TcpListener, to: SocketAddr, Room(room): Room) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((mut client, _)) = listener.accept().await else {
            // Too many descriptors, mostly: it passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        tasks.spawn(async move {
            // Nobody listens there: the caller is told by the connection's end.
            let connected = timeout(PATIENCE, TcpStream::connect(to)).await;
            let Ok(Ok(mut server)) = connected else { return };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = copy_bidirectional(&mut client, &mut server).await;
            drop(place);
        });
    }
}

/// A datagram that waits, and its place.
type Datagram = (Vec<u8>, OwnedSemaphorePermit);

async fn pass_datagrams(socket: Arc<UdpSocket>, to: SocketAddr) {
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Datagram>> = HashMap::new();
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        // What could not be delivered is told as an error of the next call.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        while tasks.try_join_next().is_some() {}
        senders.retain(|_, sender| !sender.is_closed());
        if !senders.contains_key(&from) {
            if senders.len() >= SENDERS {
                continue;
            }
            let (sender, receiver) = mpsc::channel(WAITING);
            senders.insert(from, sender);
            tasks.spawn(pass_for(Arc::clone(&socket), receiver, from, to));
        }
        // Datagrams may get lost; nobody waits for a slow reader.
        if let Some(sender) = senders.get(&from)
            && let Ok(place) = Arc::clone(&room).try_acquire_many_owned(length as u32)
        {
            let _ = sender.try_send((buffer[..length].to_vec(), place));
        }
    }
}

/// Passes datagrams of one sender on, and answers back, until there is silence.
async fn pass_for(
    socket: Arc<UdpSocket>,
    mut datagrams: mpsc::Receiver<Datagram>,
    from: SocketAddr,
    to: SocketAddr,
) {
    let Ok(server) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { return };
    if server.connect(to).await.is_err() {
        return;
    }
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let socket = StdTcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let port = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        start(&mut tasks, socket.into(), Protocol::Tcp, to, &Room::of(2)).unwrap();
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
