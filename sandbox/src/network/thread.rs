//! A thread inside a network namespace, for work that depends on the namespace of its thread:
//! sockets, files in `/proc/sys/net` and new processes.

#![expect(clippy::disallowed_methods, reason = "the file is the kernel's")]

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::error::NetworkError;
use crate::sys;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace. It ends when this value is dropped.
#[derive(Debug)]
pub(super) struct NamespaceThread {
    jobs: mpsc::Sender<Job>,
}

impl NamespaceThread {
    /// Creates a network namespace with only a loopback interface, and a thread in it.
    pub(super) async fn start() -> Result<(Self, OwnedFd), NetworkError> {
        let doing = || NetworkError::doing("make a network namespace");
        let (sender, receiver) = oneshot::channel();
        let (jobs, queue) = mpsc::channel::<Job>();
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let _runtime = runtime.enter();
            let entered = enter();
            let is_inside = entered.is_ok();
            // The receiver is gone if the build was cancelled.
            if sender.send(entered).is_ok() && is_inside {
                for job in queue {
                    job();
                }
            }
        };
        std::thread::Builder::new().name("kiln-gateway".into()).spawn(work).map_err(doing())?;
        let entered = receiver.await.unwrap_or_else(|_| Err(ended()));
        Ok((Self { jobs }, entered.map_err(doing())?))
    }

    /// Runs work on the thread, after all work that was requested before.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move || {
            // The receiver is gone if the caller was cancelled.
            let _ = sender.send(work());
        });
        self.jobs.send(job).map_err(|_| ended())?;
        receiver.await.map_err(|_| ended())
    }

    /// Connects to an IPv4 address from inside the namespace.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        };
        let socket = std::net::TcpStream::from(self.run(open).await??);
        TcpSocket::from_std_stream(socket).connect(to).await
    }

    /// Opens an IPv4 socket for datagrams inside the namespace.
    pub(super) async fn datagrams(&self) -> io::Result<UdpSocket> {
        let open = || {
            let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_nonblocking(true).map(|()| socket)
        };
        UdpSocket::from_std(self.run(open).await??)
    }
}

/// Moves the calling thread into a new namespace.
fn enter() -> io::Result<OwnedFd> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    sys::raise_loopback(&socket)?;
    // The namespace is for IPv4. The file is missing if the kernel has no IPv6.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

fn ended() -> io::Error {
    io::Error::other("the thread of the network namespace has ended")
}
