//! The gateway: a network namespace in the place of the host's, for kiln without root.
//!
//! A user namespace doesn't control the host's interfaces and rules. So kiln creates a network
//! namespace of its own, the *gateway*. It has the bridge and the rules that the host has as root.
//! A program of the host, the [uplink](super::uplink), connects it with the host's network.
//!
//! Steps don't share an interface with that program. The gateway's kernel forwards their packets, as
//! the host's kernel does as root: it drops packets to loopback addresses and under false addresses.
//!
//! A process has one gateway with one program, whatever the number of its steps. Both end with the
//! process.

#![expect(clippy::disallowed_methods, reason = "the file is the kernel's")]

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, OnceLock};

use super::BridgeOptions;
use super::error::NetworkError;
use super::host::{HostBridge, Surroundings, blocking};
use super::netlink::Netlink;
use super::resolver::Resolver;
use super::subnet::Subnet;
use super::thread::NamespaceThread;
use super::uplink::{self, Addresses, Tool, Uplink};

/// An address that belongs to documentation. kiln sends nothing there.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The gateway of a process in a user namespace.
#[derive(Debug)]
pub(super) struct Gateway {
    /// The thread inside.
    pub(super) thread: Arc<NamespaceThread>,
    namespace: OwnedFd,
    tools: Vec<Tool>,
    addresses: Addresses,
    /// The host's address towards other machines.
    pub(super) host: Option<Ipv4Addr>,
    uplink: OnceLock<Uplink>,
}

impl Gateway {
    /// Creates the gateway and its bridge. It reaches the host's network after
    /// [`connect`](Self::connect).
    pub(super) async fn open(
        options: &BridgeOptions,
        resolver: &Resolver,
    ) -> Result<(Self, HostBridge), NetworkError> {
        let tools = Tool::find(&options.path);
        if tools.is_empty() {
            let problem = "without root it takes pasta or slirp4netns: install the package passt \
                           or slirp4netns";
            return Err(NetworkError::Unavailable(problem.to_owned()));
        }
        uplink::check_device()?;
        let (thread, namespace) = NamespaceThread::start().await?;
        let direct: Vec<Subnet> = resolver.direct().collect();
        let look = || {
            let netlink = Netlink::open().map_err(NetworkError::doing("open a netlink socket"))?;
            Surroundings::read(&netlink)
        };
        let mut surroundings = blocking(look).await?;
        surroundings.used.extend(direct);
        let network = surroundings.choose()?;
        surroundings.used.push(network);
        surroundings.mtu = uplink::MTU;
        let open = move || {
            let netlink = Netlink::open().map_err(NetworkError::doing("open a netlink socket"))?;
            HostBridge::create(netlink, &surroundings)
        };
        let doing = NetworkError::doing("make the bridge of the gateway");
        let bridge = thread.run(open).await.map_err(doing)??;
        let router = bridge.netlink.raise_router(bridge.index, uplink::MTU);
        router.map_err(NetworkError::doing("let the bridge forward"))?;
        let this = Self {
            thread: Arc::new(thread),
            namespace,
            tools,
            addresses: Addresses::of(network),
            host: outer_address(),
            uplink: OnceLock::new(),
        };
        Ok((this, bridge))
    }

    /// Connects the gateway with the host's network by the first program that can.
    pub(super) async fn connect(&self, netlink: &Netlink) -> Result<(), NetworkError> {
        let mut problem = None;
        for tool in &self.tools {
            let doing = NetworkError::doing("pass on a network namespace");
            let namespace = self.namespace.as_fd().try_clone_to_owned().map_err(doing)?;
            match tool.connect(namespace, netlink, self.addresses).await {
                Ok(uplink) => {
                    // The rules are written once, so this is the only uplink.
                    let _ = self.uplink.set(uplink);
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!("the gateway has no uplink: {error}");
                    problem.get_or_insert(error);
                }
            }
        }
        let none = || NetworkError::Unavailable("there is no uplink".to_owned());
        Err(problem.unwrap_or_else(none))
    }

    /// Makes the gateway's kernel translate packets of connections that are outside of the expected
    /// window, as the programs may send them. Call it after the rules have been written, which loads
    /// the kernel's module.
    pub(super) async fn accept_unusual_packets(&self) {
        let switch = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
        // The file may be read-only, as in a container.
        let _ = self.thread.run(move || std::fs::write(switch, "1")).await;
    }

    /// Fails if the program that connects the gateway has ended.
    pub(super) fn check(&self) -> Result<(), NetworkError> {
        let doing = NetworkError::doing("connect with the host's network");
        self.uplink.get().map_or(Ok(()), Uplink::check).map_err(doing)
    }
}

/// Returns the address that the host uses towards other machines.
fn outer_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}
