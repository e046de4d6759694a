//! Passing connections and datagrams on, from a socket of the host to a namespace.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ports::Protocol;

/// How long a sender of datagrams may be silent before it is forgotten.
const SILENCE: Duration = Duration::from_secs(90);

/// Most senders of datagrams that are remembered; a new one is not heard beyond.
const SENDERS: usize = 1024;

/// Datagrams of one sender that may wait.
const WAITING: usize = 64;

const MAX_DATAGRAM: usize = 65_535;

/// Passes on what arrives at `socket`, as long as the set lives.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    socket: OwnedFd,
    (protocol, to): (Protocol, SocketAddr),
) -> io::Result<()> {
    if protocol == Protocol::Udp {
        let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
        tasks.spawn(pass_datagrams(Arc::new(socket), to));
    } else {
        let listener = TcpListener::from_std(StdTcpListener::from(socket))?;
        tasks.spawn(pass_connections(listener, to));
    }
    Ok(())
}

async fn pass_connections(listener: TcpListener, to: SocketAddr) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((mut client, _)) = listener.accept().await else {
            // Too many descriptors, mostly: it passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tasks.spawn(async move {
            // Nobody listens there: the caller is told by the connection's end.
            let Ok(mut server) = TcpStream::connect(to).await else { return };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

async fn pass_datagrams(socket: Arc<UdpSocket>, to: SocketAddr) {
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
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
            tasks.spawn(pass_for(Arc::clone(&socket), receiver, (from, to)));
        }
        if let Some(sender) = senders.get(&from) {
            // Datagrams may get lost; nobody waits for a slow reader.
            let _ = sender.try_send(buffer[..length].to_vec());
        }
    }
}

/// Passes datagrams of one sender on, and answers back, until there is silence.
async fn pass_for(
    socket: Arc<UdpSocket>,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    (from, to): (SocketAddr, SocketAddr),
) {
    let Ok(server) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { return };
    if server.connect(to).await.is_err() {
        return;
    }
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let turn = async {
            tokio::select! {
                Some(datagram) = datagrams.recv() => {
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
