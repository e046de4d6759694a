//! The host's side: the bridge, its addresses and its rules.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use tokio::task::JoinSet;

use super::error::NetworkError;
use super::rules::{self, Program};
use super::subnet::Subnet;
use super::{BridgeOptions, firewall, forwarding};
use crate::blobs::blocking;
use crate::network::resolver::Resolver;

/// The bridge's name.
pub(super) const BRIDGE: &str = "kiln0";

/// Where the lock lies that is held while the bridge is made.
const DIRECTORY: &str = "/run/kiln";

/// The bridge, ready for namespaces.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) handle: Handle,
    pub(super) bridge: u32,
    pub(super) subnet: Subnet,
    pub(super) resolver: Resolver,
    pub(super) nft: Program,
    _connection: JoinSet<()>,
}

impl Host {
    /// Finds the bridge as it is, and makes what is missing of it.
    pub(super) async fn prepare(options: &BridgeOptions) -> Result<Self, NetworkError> {
        let nft = Program::find("nft", &options.path).ok_or_else(|| {
            NetworkError::Unavailable("the program nft isn't there: install nftables".to_owned())
        })?;
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(NetworkError::doing("open a netlink socket"))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let resolver = Resolver::new(&options.resolv_conf);
        let lock = lock().await?;
        let (bridge, subnet) = bridge(&handle, &resolver).await?;
        let guard = if forwarding::is_on()? { Vec::new() } else { forwarding::interfaces(BRIDGE)? };
        let chains = rules::write(&nft, subnet, &guard).await?;
        if !guard.is_empty() {
            // Behind the rule that keeps it to the bridge.
            forwarding::turn_on()?;
        }
        firewall::open(&chains, &options.path).await;
        drop(lock);
        Ok(Self { handle, bridge, subnet, resolver, nft, _connection: tasks })
    }
}

/// Waits for the lock that whoever makes a bridge holds.
async fn lock() -> Result<File, NetworkError> {
    let take = || {
        let directory = Path::new(DIRECTORY);
        match std::fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join("network.lock"))?;
        file.lock()?;
        Ok(file)
    };
    let taken = blocking(move || Ok(take())).await;
    let taken = taken.map_err(|error| NetworkError::Unavailable(error.to_string()))?;
    taken.map_err(NetworkError::doing(format!("lock {DIRECTORY}/network.lock")))
}

/// Returns the bridge's number, its address and its network.
async fn bridge(handle: &Handle, resolver: &Resolver) -> Result<(u32, Subnet), NetworkError> {
    let doing = |what: &str| format!("{what} the bridge {BRIDGE}");
    if let Some(link) = link(handle).await? {
        if !is_bridge(&link) {
            let problem = format!("the interface {BRIDGE} is no bridge: kiln needs its name");
            return Err(NetworkError::Unavailable(problem));
        }
        let index = link.header.index;
        if let Some(subnet) = address(handle, index).await? {
            let up = handle.link().change(LinkUnspec::new_with_index(index).up().build());
            up.execute().await.map_err(NetworkError::doing(doing("raise")))?;
            return Ok((index, subnet));
        }
    }
    let subnet = Subnet::choose(&used(handle, resolver).await?).ok_or_else(|| {
        let problem = format!(
            "no private network is left for containers: give a bridge {BRIDGE} an address by hand"
        );
        NetworkError::Unavailable(problem)
    })?;
    // With an address of its own, which doesn't change as namespaces come and go.
    let new =
        LinkBridge::new(BRIDGE).address(hardware(subnet.address).to_vec()).mcast_snooping(false);
    match handle.link().add(new.build()).execute().await {
        Err(error) if !is(&error, Errno::EXIST) => {
            return Err(NetworkError::doing(doing("make"))(error));
        }
        _ => {}
    }
    let link = link(handle).await?;
    let index = link.map(|link| link.header.index).unwrap_or_default();
    // Its own network is IPv4's; by IPv6 containers would reach the host in a second way.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1");
    let add = handle.address().add(index, IpAddr::V4(subnet.address), subnet.prefix);
    match add.execute().await {
        Err(error) if !is(&error, Errno::EXIST) => {
            Err(NetworkError::doing(doing("give an address to"))(error))
        }
        _ => Ok((index, subnet)),
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

/// Returns the networks that the host uses: those that it has routes to, and its name servers.
async fn used(handle: &Handle, resolver: &Resolver) -> Result<Vec<Subnet>, NetworkError> {
    let single = |address: &Ipv4Addr| Subnet { address: *address, prefix: 32 };
    let mut used: Vec<Subnet> = resolver.direct.iter().map(single).collect();
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    while let Some(route) = routes.try_next().await.map_err(NetworkError::doing("read routes"))? {
        used.extend(destination(&route));
    }
    Ok(used)
}

fn destination(route: &RouteMessage) -> Option<Subnet> {
    let prefix = route.header.destination_prefix_length;
    route.attributes.iter().find_map(|attribute| match attribute {
        // The way to everywhere else overlaps with everything.
        RouteAttribute::Destination(RouteAddress::Inet(address)) if prefix > 0 => {
            Some(Subnet { address: *address, prefix })
        }
        _ => None,
    })
}

/// Tells whether a request failed for this reason.
pub(super) fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs() == errno.raw_os_error(),
        _ => false,
    }
}
