//! The host's side: the bridge, its addresses and its rules.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::fs::{File, TryLockError};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::sync::OnceCell;

use super::error::NetworkError;
use super::gateway::Gateway;
use super::generation::{self, Note};
use super::netlink::{Link, LinkChange, Netlink, is};
use super::rules::{self, Program};
use super::subnet::Subnet;
use super::{BridgeOptions, Place, firewall, forwarding};
use crate::network::resolver::Resolver;

/// The name of the bridge's interface.
pub(super) const BRIDGE: &str = "kiln0";

/// The maximum packet size of Ethernet in bytes.
const MTU: u32 = 1500;

/// The directory of the lock and of the notes about rules.
const DIRECTORY: &str = "/run/kiln";

/// The bridge, ready for namespaces.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) bridge: Arc<HostBridge>,
    pub(super) nft: Program,
    /// The gateway in whose namespace the bridge is. `None` if that is this process's own.
    pub(super) gateway: Option<Arc<Gateway>>,
    /// The result of writing the packet filter rules, which is tried once.
    rules: OnceCell<Result<(), NetworkError>>,
}

impl Host {
    /// Finds the bridge and creates its missing parts. Packets pass after [`Host::rules`], which
    /// can run while a namespace is created.
    pub(super) async fn prepare(
        place: Place,
        options: &BridgeOptions,
        resolver: &Resolver,
    ) -> Result<Self, NetworkError> {
        let nft = Program::find("nft", &options.path).ok_or_else(|| {
            NetworkError::Unavailable("the program nft isn't there: install nftables".to_owned())
        })?;
        let (bridge, gateway) = match place {
            Place::Machine => {
                let doing = NetworkError::doing("open a netlink socket");
                let netlink = Netlink::open().map_err(doing)?;
                let lock = lock().await?;
                let direct: Vec<Subnet> = resolver.direct().collect();
                let bridge = blocking(move || HostBridge::open(netlink, &direct)).await?;
                drop(lock);
                (bridge, None)
            }
            Place::UserNamespace => {
                let (gateway, bridge) = Gateway::open(options, resolver).await?;
                (bridge, Some(Arc::new(gateway)))
            }
        };
        Ok(Self { bridge: Arc::new(bridge), nft, gateway, rules: OnceCell::new() })
    }

    /// Returns the address under which namespaces reach the host.
    pub(super) fn address(&self) -> Ipv4Addr {
        let outer = self.gateway.as_ref().and_then(|gateway| gateway.host);
        outer.unwrap_or(self.bridge.subnet.address)
    }

    /// Writes the packet filter rules unless they are current, and connects the gateway.
    pub(super) async fn rules(&self, options: &BridgeOptions) -> Result<(), NetworkError> {
        let write = || async {
            if let Some(gateway) = &self.gateway {
                let thread = Some(&*gateway.thread);
                let rules = rules::write(&self.nft, thread, self.bridge.subnet, &[]);
                let connected = gateway.connect(&self.bridge.netlink);
                tokio::try_join!(rules, connected)?;
                gateway.accept_unusual_packets().await;
                return Ok(());
            }
            let _lock = lock().await?;
            let note =
                Note::about(Path::new(DIRECTORY), &rules::bridge_rules(self.bridge.subnet, &[]));
            let forwards = forwarding::is_on()?;
            let is_current = || note.as_ref().is_some_and(|note| note.is_current(rules::TABLE));
            if forwards && !firewall::has_legacy_filter() && is_current() {
                return Ok(());
            }
            let before = generation::current();
            let guard = if forwards { Vec::new() } else { forwarding::interfaces(BRIDGE)? };
            let chains = rules::write(&self.nft, None, self.bridge.subnet, &guard).await?;
            if !guard.is_empty() {
                // The rule that restricts forwarding to the bridge is in place by now.
                forwarding::turn_on()?;
            }
            firewall::open(&chains, &options.path).await;
            if let (Some(note), Ok(before)) = (note, before) {
                note.write(before);
            }
            Ok(())
        };
        self.rules.get_or_init(write).await.clone()?;
        self.gateway.as_ref().map_or(Ok(()), |gateway| gateway.check())
    }
}

/// Waits for the lock on changes to the bridge.
async fn lock() -> Result<File, NetworkError> {
    let take = || -> io::Result<_> {
        let directory = Path::new(DIRECTORY);
        match std::fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join("network.lock"))?;
        match file.try_lock() {
            Ok(()) => Ok((file, true)),
            Err(TryLockError::WouldBlock) => Ok((file, false)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    };
    let doing = || NetworkError::doing(format!("lock {DIRECTORY}/network.lock"));
    let (file, is_locked) = take().map_err(doing())?;
    if is_locked {
        return Ok(file);
    }
    blocking(move || file.lock().map(|()| file).map_err(doing())).await
}

/// Runs blocking work on another thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| NetworkError::Unavailable(error.to_string()))?
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> NetworkError {
    NetworkError::doing(format!("{what} the bridge {BRIDGE}"))
}

/// The bridge and a socket to the tables of its namespace.
#[derive(Debug)]
pub(super) struct HostBridge {
    pub(super) netlink: Netlink,
    /// The number of the interface.
    pub(super) index: u32,
    pub(super) subnet: Subnet,
    /// The maximum packet size in bytes.
    pub(super) mtu: u32,
}

impl HostBridge {
    /// Finds the bridge, or creates it with addresses that no network of this machine uses, nor any
    /// of `direct`.
    fn open(netlink: Netlink, direct: &[Subnet]) -> Result<Self, NetworkError> {
        if let Some(link) = netlink.link_by_name(BRIDGE).map_err(doing("find"))? {
            if link.kind != "bridge" {
                let problem = format!("the interface {BRIDGE} is no bridge: kiln needs its name");
                return Err(NetworkError::Unavailable(problem));
            }
            if let Some(subnet) = subnet_of(&netlink, link.index)? {
                if !link.is_up {
                    let up = LinkChange { is_up: Some(true), mtu: None };
                    netlink.change(link.index, up).map_err(doing("raise"))?;
                }
                return Ok(Self { netlink, index: link.index, subnet, mtu: mtu(&link) });
            }
        }
        let mut surroundings = Surroundings::read(&netlink)?;
        surroundings.used.extend(direct);
        Self::create(netlink, &surroundings)
    }

    /// Creates the bridge in the namespace of the calling thread and of `netlink`.
    pub(super) fn create(
        netlink: Netlink,
        surroundings: &Surroundings,
    ) -> Result<Self, NetworkError> {
        let (subnet, mtu) = (surroundings.choose()?, surroundings.mtu);
        let index = make(&netlink, subnet.address)?;
        let change = LinkChange { is_up: None, mtu: Some(mtu) };
        netlink.change(index, change).map_err(doing("set the MTU of"))?;
        let added = netlink.add_address(index, subnet.address, subnet.prefix);
        tolerate(added, Errno::EXIST).map_err(doing("give an address to"))?;
        Ok(Self { netlink, index, subnet, mtu })
    }
}

/// Creates the bridge and returns its index.
fn make(netlink: &Netlink, address: Ipv4Addr) -> Result<u32, NetworkError> {
    // With a fixed hardware address, the bridge keeps it as namespaces come and go.
    let made = netlink.add_bridge(BRIDGE, hardware(address));
    tolerate(made, Errno::EXIST).map_err(doing("make"))?;
    // Containers have IPv4 only. IPv6 would give them a second way to the host.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1");
    let problem = || NetworkError::Unavailable(format!("the bridge {BRIDGE} is gone again"));
    Ok(netlink.link_by_name(BRIDGE).map_err(doing("find"))?.ok_or_else(problem)?.index)
}

fn tolerate(result: io::Result<()>, errno: Errno) -> io::Result<()> {
    match result {
        Err(error) if is(&error, errno) => Ok(()),
        other => other,
    }
}

/// Returns the hardware address that belongs to an IP address. It is always the same, so neighbour
/// caches stay valid when the IP address is reused.
pub(super) fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // The prefix of a locally administered address.
    [0x02, 0x6b, a, b, c, d]
}

/// Returns the network of the bridge's first address.
fn subnet_of(netlink: &Netlink, bridge: u32) -> Result<Option<Subnet>, NetworkError> {
    let addresses = netlink.addresses(bridge).map_err(doing("read the addresses of"))?;
    // Networks with longer prefixes have no room for namespaces.
    let found = addresses.into_iter().find(|(_, prefix)| *prefix <= 29);
    Ok(found.map(|(address, prefix)| Subnet { address, prefix }))
}

/// The relevant facts about the host's routes.
pub(super) struct Surroundings {
    /// The networks that the host uses.
    pub(super) used: Vec<Subnet>,
    /// The maximum packet size of the default routes in bytes.
    pub(super) mtu: u32,
}

impl Surroundings {
    /// Reads the routes of the namespace of `netlink`.
    pub(super) fn read(netlink: &Netlink) -> Result<Self, NetworkError> {
        let mut this = Self { used: Vec::new(), mtu: MTU };
        for route in netlink.routes().map_err(NetworkError::doing("read routes"))? {
            if route.prefix > 0 {
                let network = |address| Subnet { address, prefix: route.prefix };
                this.used.extend(route.destination.map(network));
            } else if let Some(interface) = route.interface
                && let Ok(Some(link)) = netlink.link_by_index(interface)
            {
                this.mtu = this.mtu.min(mtu(&link));
            }
        }
        Ok(this)
    }

    /// Returns a network that the host doesn't use.
    pub(super) fn choose(&self) -> Result<Subnet, NetworkError> {
        let none = || {
            NetworkError::Unavailable(format!(
                "no private network is left for containers: give a bridge {BRIDGE} an address by \
                 hand"
            ))
        };
        Subnet::choose(&self.used).ok_or_else(none)
    }
}

fn mtu(link: &Link) -> u32 {
    link.mtu.unwrap_or(MTU)
}
