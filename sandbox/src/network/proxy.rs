//! A proxy that forwards connections and datagrams from a socket of the host to a namespace.

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

/// The maximum number of concurrent connections over all ports of a namespace. Others wait to be
/// accepted. Each connection takes two descriptors.
const CONNECTIONS: usize = 4096;
/// The divisor of this process's descriptor limit that yields the proxy's share.
const SHARE: usize = 4;
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

/// Forwards everything that arrives at `socket` until `tasks` is dropped.
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
            // Usually there are too many open descriptors, which is temporary.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        tasks.spawn(async move {
            // If no program listens in the namespace, the client's connection is closed.
            let connected = timeout(PATIENCE, TcpStream::connect(to)).await;
            let Ok(Ok(mut server)) = connected else { return };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = copy_bidirectional(&mut client, &mut server).await;
            drop(place);
        });
    }
}

/// A waiting datagram and its share of the memory.
type Datagram = (Vec<u8>, OwnedSemaphorePermit);

async fn pass_datagrams(socket: Arc<UdpSocket>, to: SocketAddr) {
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
            tasks.spawn(pass_for(Arc::clone(&socket), receiver, from, to));
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
