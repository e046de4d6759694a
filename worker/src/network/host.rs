//! The host's side: the bridge, its addresses and its rules.

use std::fs::{File, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::error::NetworkError;
use super::generation::{self, Note};
use super::rules::{self, Program};
use super::subnet::Subnet;
use super::{BridgeOptions, firewall, forwarding};
use crate::blobs::blocking;
use crate::network::resolver::Resolver;

/// The bridge's name.
pub(super) const BRIDGE: &str = "kiln0";

/// The longest packet of Ethernet, in bytes.
const MTU: u32 = 1500;

/// Where the lock lies that is held while the bridge is made.
const DIRECTORY: &str = "/run/kiln";

/// The bridge, ready for namespaces.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) handle: Handle,
    pub(super) bridge: u32,
    pub(super) subnet: Subnet,
    /// The longest packet, in bytes.
    pub(super) mtu: u32,
    pub(super) nft: Program,
    /// Whether its packets are let through, and only those that must be: tried once.
    rules: OnceCell<Result<(), NetworkError>>,
    /// What `handle` asks through; nothing is answered any more when it is dropped.
    pub(super) connection: Arc<JoinSet<()>>,
}

impl Host {
    /// Finds the bridge as it is, and makes what is missing of it. It isn't of use before
    /// [`Host::rules`], which can be waited for while a namespace is made.
    pub(super) async fn prepare(
        options: &BridgeOptions,
        resolver: &Resolver,
    ) -> Result<Self, NetworkError> {
        let nft = Program::find("nft", &options.path).ok_or_else(|| {
            NetworkError::Unavailable("the program nft isn't there: install nftables".to_owned())
        })?;
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(NetworkError::doing("open a netlink socket"))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let lock = lock().await?;
        let Found { bridge, subnet, mtu } = bridge(&handle, resolver).await?;
        drop(lock);
        let rules = OnceCell::new();
        let connection = Arc::new(tasks);
        Ok(Self { handle, bridge, subnet, mtu, nft, rules, connection })
    }

    /// Makes sure that packets pass, and only those that must.
    pub(super) async fn rules(&self, options: &BridgeOptions) -> Result<(), NetworkError> {
        let write = || async {
            let _lock = lock().await?;
            let note = Note::about(Path::new(DIRECTORY), &rules::bridge_rules(self.subnet, &[]));
            let forwards = forwarding::is_on()?;
            let is_current = || note.as_ref().is_some_and(|note| note.is_current(rules::TABLE));
            if forwards && !firewall::has_legacy_filter() && is_current() {
                return Ok(());
            }
            let before = generation::current();
            let guard = if forwards { Vec::new() } else { forwarding::interfaces(BRIDGE)? };
            let chains = rules::write(&self.nft, self.subnet, &guard).await?;
            if !guard.is_empty() {
                // Behind the rule that keeps it to the bridge.
                forwarding::turn_on()?;
            }
            firewall::open(&chains, &options.path).await;
            if let (Some(note), Ok(before)) = (note, before) {
                note.write(before);
            }
            Ok(())
        };
        self.rules.get_or_init(write).await.clone()
    }
}

/// Waits for the lock that whoever makes a bridge holds.
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
    let wait = move || Ok(file.lock().map(|()| file));
    let taken = blocking(wait).await;
    let taken = taken.map_err(|error| NetworkError::Unavailable(error.to_string()))?;
    taken.map_err(doing())
}

/// The bridge as it is.
struct Found {
    bridge: u32,
    subnet: Subnet,
    mtu: u32,
}

fn doing(what: &str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    NetworkError::doing(format!("{what} the bridge {BRIDGE}"))
}

/// Finds the bridge, or makes it.
async fn bridge(handle: &Handle, resolver: &Resolver) -> Result<Found, NetworkError> {
    if let Some(link) = link(handle).await? {
        if !is_bridge(&link) {
            let problem = format!("the interface {BRIDGE} is no bridge: kiln needs its name");
            return Err(NetworkError::Unavailable(problem));
        }
        let bridge = link.header.index;
        if let Some(subnet) = address(handle, bridge).await? {
            if !link.header.flags.contains(LinkFlags::Up) {
                let up = handle.link().change(LinkUnspec::new_with_index(bridge).up().build());
                up.execute().await.map_err(doing("raise"))?;
            }
            return Ok(Found { bridge, subnet, mtu: mtu(&link) });
        }
    }
    let routes = Routes::read(handle).await?;
    let used: Vec<Subnet> = routes.used.iter().copied().chain(resolver.direct()).collect();
    let subnet = Subnet::choose(&used).ok_or_else(|| {
        let problem = format!(
            "no private network is left for containers: give a bridge {BRIDGE} an address by hand"
        );
        NetworkError::Unavailable(problem)
    })?;
    let bridge = make(handle, subnet.address).await?;
    let mtu = routes.mtu.min(MTU);
    let change = handle.link().change(LinkUnspec::new_with_index(bridge).mtu(mtu).build());
    change.execute().await.map_err(doing("set the MTU of"))?;
    let add = handle.address().add(bridge, IpAddr::V4(subnet.address), subnet.prefix);
    tolerate(add.execute().await, Errno::EXIST).map_err(doing("give an address to"))?;
    Ok(Found { bridge, subnet, mtu })
}

/// Makes the bridge, and returns its number.
async fn make(handle: &Handle, address: Ipv4Addr) -> Result<u32, NetworkError> {
    // With an address of its own, which doesn't change as namespaces come and go.
    let new = LinkBridge::new(BRIDGE).address(hardware(address).to_vec()).mcast_snooping(false);
    let made = handle.link().add(new.build()).execute().await;
    tolerate(made, Errno::EXIST).map_err(doing("make"))?;
    // Containers have IPv4 alone; by IPv6 they would reach the host in a second way.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1");
    let problem = || NetworkError::Unavailable(format!("the bridge {BRIDGE} is gone again"));
    Ok(link(handle).await?.ok_or_else(problem)?.header.index)
}

fn tolerate(result: Result<(), rtnetlink::Error>, errno: Errno) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is(&error, errno) => Ok(()),
        other => other,
    }
}

/// Returns the hardware address that goes with an address: always the same, so that what others
/// remember of an address stays true when it is given out again.
pub(super) fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // Locally administered.
    [0x02, 0x6b, a, b, c, d]
}

async fn link(handle: &Handle) -> Result<Option<LinkMessage>, NetworkError> {
    match handle.link().get().match_name(BRIDGE).execute().try_next().await {
        Err(error) if is(&error, Errno::NODEV) => Ok(None),
        other => other.map_err(NetworkError::doing(format!("find the bridge {BRIDGE}"))),
    }
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => {
            info.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)))
        }
        _ => false,
    })
}

async fn address(handle: &Handle, index: u32) -> Result<Option<Subnet>, NetworkError> {
    let mut addresses = handle.address().get().set_link_index_filter(index).execute();
    let doing = || NetworkError::doing(format!("read the addresses of {BRIDGE}"));
    while let Some(message) = addresses.try_next().await.map_err(doing())? {
        // Of longer prefixes nothing is left for namespaces.
        if message.header.family == AddressFamily::Inet && message.header.prefix_len <= 29 {
            return Ok(subnet(&message));
        }
    }
    Ok(None)
}

fn subnet(message: &AddressMessage) -> Option<Subnet> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V4(address)) => {
            Some(Subnet { address: *address, prefix: message.header.prefix_len })
        }
        _ => None,
    })
}

/// What the host's routes tell.
struct Routes {
    /// The networks that the host uses.
    used: Vec<Subnet>,
    /// The longest packet on the way to everywhere else.
    mtu: u32,
}

impl Routes {
    async fn read(handle: &Handle) -> Result<Self, NetworkError> {
        let (mut used, mut mtu) = (Vec::new(), MTU);
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = handle.route().get(query).execute();
        while let Some(route) =
            routes.try_next().await.map_err(NetworkError::doing("read routes"))?
        {
            if route.header.destination_prefix_length > 0 {
                used.extend(destination(&route));
            } else if let Some(link) = way_out(handle, &route).await {
                mtu = mtu.min(self::mtu(&link));
            }
        }
        Ok(Self { used, mtu })
    }
}

fn destination(route: &RouteMessage) -> Option<Subnet> {
    let prefix = route.header.destination_prefix_length;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Some(Subnet { address: *address, prefix })
        }
        _ => None,
    })
}

/// Returns the interface that a route leads out by.
async fn way_out(handle: &Handle, route: &RouteMessage) -> Option<LinkMessage> {
    let index = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    handle.link().get().match_index(index).execute().try_next().await.ok()?
}

fn mtu(link: &LinkMessage) -> u32 {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(MTU)
}

/// Tells whether a request failed for this reason.
pub(super) fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs() == errno.raw_os_error(),
        _ => false,
    }
}
