//! Network namespaces on the bridge.
//!
//! # Ownership
//!
//! The name of a port of the bridge contains the address of its namespace. The kernel gives a name
//! to one interface only, so no two namespaces get the same address, among all processes and
//! stores. That needs no lock, no record and no cleanup. The kernel removes the interface together
//! with the namespace. It removes the namespace when its last process has ended and kiln has closed
//! its descriptor or died.
//!
//! # Isolation
//!
//! The namespace's port is isolated: it reaches the bridge but no other port. The bridge learns
//! nothing from it, because kiln sets the bridge's and the host's address tables. A program that
//! sends packets under a false address gets no answers.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::error::NetworkError;
use super::gateway::Gateway;
use super::host::{Host, HostBridge, blocking, hardware};
use super::netlink::{LinkChange, Netlink, Pair, is};
use super::relay::Sockets;
use super::resolver::Resolver;
use super::subnet::Subnet;
use crate::sys;

/// The name of the interface inside.
const INSIDE: &str = "eth0";

/// A network namespace with an address on the bridge. It vanishes when this value is dropped and
/// the last process in it has ended.
#[derive(Debug)]
pub struct NetworkNamespace {
    namespace: OwnedFd,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    resolv_conf: Vec<u8>,
    /// The tasks that still set up the namespace.
    coming: JoinSet<Result<(), NetworkError>>,
    _relay: Option<JoinSet<()>>,
    /// The gateway that leads to the host's network, which may outlive the bridge's other users.
    _gateway: Option<Arc<Gateway>>,
}

impl NetworkNamespace {
    /// Returns the namespace's descriptor for setns(2).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Returns the namespace's address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Returns the address under which the namespace reaches the host.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Returns the content of the namespace's `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> &[u8] {
        &self.resolv_conf
    }

    /// Waits until programs can use the network.
    ///
    /// # Errors
    /// Fails if the namespace can't be set up.
    pub async fn ready(&mut self) -> Result<(), NetworkError> {
        while let Some(done) = self.coming.join_next().await {
            let lost = |_| NetworkError::Unavailable("the network's set-up has ended".to_owned());
            done.map_err(lost)??;
        }
        Ok(())
    }

    /// Connects a new namespace: assigns its address and starts the tasks that
    /// [`ready`](Self::ready) waits for.
    pub(super) async fn connect(
        inside: Inside,
        host: &Host,
        resolver: &Resolver,
    ) -> Result<Self, NetworkError> {
        let Inside { namespace, interface, sockets } = inside;
        let bridge = Arc::clone(&host.bridge);
        let connect = move || {
            let (address, name) = bridge.connect(namespace.as_fd())?;
            Ok((namespace, bridge, address, name))
        };
        let (namespace, bridge, address, name) = blocking(connect).await?;
        let gateway = host.address();
        let mut coming = JoinSet::new();
        coming.spawn_blocking(move || {
            bridge.attach(&name, address)?;
            let configured = interface.configure(address, bridge.subnet);
            configured.map_err(NetworkError::doing(format!("configure {INSIDE}")))
        });
        let relay = sockets.map(|sockets| sockets.serve(resolver.relayed.clone()));
        Ok(Self {
            namespace,
            address,
            gateway,
            resolv_conf: resolver.text.clone(),
            coming,
            _gateway: host.gateway.clone(),
            _relay: relay.transpose().map_err(NetworkError::doing("relay questions for names"))?,
        })
    }
}

/// A new namespace with sockets inside of it.
pub(super) struct Inside {
    namespace: OwnedFd,
    interface: Interface,
    sockets: Option<Sockets>,
}

/// The means to configure the interface inside.
struct Interface {
    /// A datagram socket in the namespace.
    socket: OwnedFd,
    netlink: Netlink,
}

impl Inside {
    /// Creates a namespace with only a loopback interface. Opens sockets in it if a relay resolves
    /// names.
    pub(super) async fn make(resolver: &Resolver) -> Result<Self, NetworkError> {
        let relay = !resolver.relayed.is_empty();
        let (sender, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        // The thread stays in the namespace, so it is a new one and ends afterwards.
        let enter = move || {
            let _runtime = runtime.enter();
            // The receiver is gone if the build was cancelled.
            let _ = sender.send(Self::enter(relay));
        };
        let doing = || NetworkError::doing("make a network namespace");
        std::thread::Builder::new().name("kiln-network".into()).spawn(enter).map_err(doing())?;
        let lost = || io::Error::other("the thread that makes it has ended");
        receiver.await.unwrap_or_else(|_| Err(lost())).map_err(doing())
    }

    /// Moves the calling thread into a new namespace.
    fn enter(relay: bool) -> io::Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        let namespace = File::open("/proc/thread-self/ns/net")?.into();
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        sys::raise_loopback(&socket)?;
        // The bridge is for IPv4. An interface with an IPv6 address would make programs try it. The
        // file is missing if the kernel has no IPv6.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let netlink = Netlink::open()?;
        let sockets = if relay { Some(Sockets::open()?) } else { None };
        let interface = Interface { socket, netlink };
        Ok(Self { namespace, interface, sockets })
    }
}

impl Interface {
    /// Sets the interface's address and default route.
    fn configure(&self, address: Ipv4Addr, subnet: Subnet) -> io::Result<()> {
        let index = netdevice::name_to_index(&self.socket, INSIDE)?;
        // An interface can't be raised before its other end exists.
        self.netlink.change(index, LinkChange { is_up: Some(true), mtu: None })?;
        self.netlink.add_address(index, address, subnet.prefix)?;
        self.netlink.add_default_route(subnet.address)
    }
}

/// The prefix of the names of the bridge's ports. The address of the namespace follows.
const PORT: &str = "kiln";

/// Returns `true` if an interface's name is that of a port of the bridge.
pub(super) fn is_port(name: &str) -> bool {
    let address = name.strip_prefix(PORT).unwrap_or_default();
    address.len() == 8 && address.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl HostBridge {
    /// Connects a namespace to the bridge. Returns the namespace's address and the name of its
    /// port.
    fn connect(&self, namespace: BorrowedFd<'_>) -> Result<(Ipv4Addr, String), NetworkError> {
        for address in self.subnet.hosts(RandomState::new().build_hasher().finish()) {
            let name = format!("{PORT}{:08x}", u32::from(address));
            let pair = Pair {
                name: &name,
                bridge: self.index,
                mtu: self.mtu,
                peer_name: INSIDE,
                peer_address: hardware(address),
                peer_namespace: namespace,
            };
            match self.netlink.add_pair(pair) {
                Ok(()) => return Ok((address, name)),
                Err(error) if is(&error, Errno::EXIST) => {}
                Err(error) => {
                    return Err(NetworkError::doing(format!("make the interface {name}"))(error));
                }
            }
        }
        let problem = format!("all addresses of {} are in use", self.subnet);
        Err(NetworkError::Unavailable(problem))
    }

    /// Sets up the port of the bridge that leads to a namespace.
    fn attach(&self, name: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let attach = || -> io::Result<()> {
            let port = self.netlink.link_by_name(name)?.ok_or(Errno::NODEV)?.index;
            self.netlink.isolate(port)?;
            self.netlink.set_way(port, hardware(address))?;
            self.netlink.set_neighbour(self.index, address, hardware(address))
        };
        attach().map_err(NetworkError::doing(format!("connect the interface {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::is_port;

    #[test]
    fn ports_are_told_by_their_names() {
        assert!(is_port("kiln0a4b4a8e"));
        for name in ["kiln0", "eth0", "kiln", "kiln0a4b4a8", "kiln0a4b4a8g", "kiln0a4b4a8e1"] {
            assert!(!is_port(name), "{name}");
        }
    }
}
