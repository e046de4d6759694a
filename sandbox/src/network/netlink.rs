//! Requests to the kernel about interfaces, addresses, routes and neighbours: rtnetlink(7).
//!
//! The kernel executes a request before the call that sends it returns, and the answer is available
//! at once. So requests block, and a socket serves one at a time.

use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// The length of a message's header: length, kind, flags, sequence number, port.
const HEADER: usize = 16;
/// The length of an attribute's header: length, kind.
const ATTRIBUTE: usize = 4;
/// The size of the receive buffer. The kernel's list messages have at most 32 KiB.
const LONGEST_ANSWER: usize = 64 << 10;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
const LIST: u16 = libc::NLM_F_DUMP as u16;

// Constants from linux/if_link.h and linux/veth.h.
const BRIDGE_MULTICAST_SNOOPING: u16 = 23;
const PORT_LEARNING: u16 = 8;
const PORT_UNICAST_FLOOD: u16 = 9;
const PORT_ISOLATED: u16 = 33;
const VETH_PEER: u16 = 1;
// Constants from linux/if_link.h and linux/ip.h.
const IPV4_SETTINGS: u16 = 1;
const IPV4_FORWARDING: u16 = 1;

/// A socket to the tables of one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Mutex<Socket>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// A network interface of the socket's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// The kernel's index of the interface.
    pub(super) index: u32,
    /// `true` if the interface is up.
    pub(super) is_up: bool,
    /// The kind, such as `bridge`. Empty for hardware.
    pub(super) kind: String,
    /// The maximum packet size in bytes.
    pub(super) mtu: Option<u32>,
}

/// A route of IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// The length of the destination's prefix in bits. 0 for a default route.
    pub(super) prefix: u8,
    /// The destination's network address. `None` for a default route.
    pub(super) destination: Option<Ipv4Addr>,
    /// The index of the outgoing interface.
    pub(super) interface: Option<u32>,
}

/// A pair of interfaces. One end is here, on a bridge; the other is in another namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) name: &'a str,
    pub(super) bridge: u32,
    /// The maximum packet size in bytes.
    pub(super) mtu: u32,
    pub(super) peer_name: &'a str,
    pub(super) peer_address: [u8; 6],
    pub(super) peer_namespace: BorrowedFd<'a>,
}

/// A change to an interface. Settings that are `None` stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkChange {
    pub(super) is_up: Option<bool>,
    /// The maximum packet size in bytes.
    pub(super) mtu: Option<u32>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// Fails if the kernel has no such sockets, or if the process can't open more descriptors.
    pub(super) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // Protocol 0, the default, is NETLINK_ROUTE.
        let fd = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket: Mutex::new(Socket { fd, sequence: 0 }) })
    }

    /// Finds an interface by its name.
    pub(super) fn link_by_name(&self, name: &str) -> io::Result<Option<Link>> {
        let mut request = Request::of_link(libc::RTM_GETLINK, REQUEST | ACKNOWLEDGE, 0);
        request.text(libc::IFLA_IFNAME, name);
        self.find_link(request)
    }

    /// Finds an interface by its index.
    pub(super) fn link_by_index(&self, index: u32) -> io::Result<Option<Link>> {
        self.find_link(Request::of_link(libc::RTM_GETLINK, REQUEST | ACKNOWLEDGE, index))
    }

    fn find_link(&self, request: Request) -> io::Result<Option<Link>> {
        match self.ask(request) {
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            answers => Ok(answers?.iter().find_map(|body| Link::parse(body))),
        }
    }

    /// Creates a bridge that is up and doesn't snoop multicast groups.
    pub(super) fn add_bridge(&self, name: &str, address: [u8; 6]) -> io::Result<()> {
        let mut request = Request::of_link(libc::RTM_NEWLINK, new(EXCLUSIVE), 0);
        request.set_up(true);
        request.text(libc::IFLA_IFNAME, name);
        request.attribute(libc::IFLA_ADDRESS, &address);
        request.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"bridge");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.attribute(BRIDGE_MULTICAST_SNOOPING, &[0]);
            });
        });
        self.ask(request).map(drop)
    }

    /// Creates a pair of interfaces. The local end is up.
    pub(super) fn add_pair(&self, pair: Pair<'_>) -> io::Result<()> {
        let mut request = Request::of_link(libc::RTM_NEWLINK, new(EXCLUSIVE), 0);
        request.set_up(true);
        request.text(libc::IFLA_IFNAME, pair.name);
        request.number(libc::IFLA_MASTER, pair.bridge);
        request.number(libc::IFLA_MTU, pair.mtu);
        request.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"veth");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_PEER, |peer| {
                    peer.link(0);
                    peer.text(libc::IFLA_IFNAME, pair.peer_name);
                    peer.attribute(libc::IFLA_ADDRESS, &pair.peer_address);
                    peer.number(libc::IFLA_MTU, pair.mtu);
                    let namespace = pair.peer_namespace.as_raw_fd();
                    peer.number(libc::IFLA_NET_NS_FD, namespace.cast_unsigned());
                });
            });
        });
        self.ask(request).map(drop)
    }

    /// Changes the settings of an interface.
    pub(super) fn change(&self, index: u32, change: LinkChange) -> io::Result<()> {
        let mut request = Request::of_link(libc::RTM_NEWLINK, REQUEST | ACKNOWLEDGE, index);
        if let Some(is_up) = change.is_up {
            request.set_up(is_up);
        }
        if let Some(mtu) = change.mtu {
            request.number(libc::IFLA_MTU, mtu);
        }
        self.ask(request).map(drop)
    }

    /// Raises an interface that forwards the packets that arrive on it. That needs no file in
    /// `/proc/sys`, which may be read-only.
    pub(super) fn raise_router(&self, index: u32, mtu: u32) -> io::Result<()> {
        let mut request = Request::of_link(libc::RTM_NEWLINK, REQUEST | ACKNOWLEDGE, index);
        request.set_up(true);
        request.number(libc::IFLA_MTU, mtu);
        request.nested(libc::IFLA_AF_SPEC, |families| {
            families.nested(libc::AF_INET as u16, |family| {
                family.nested(IPV4_SETTINGS, |settings| settings.number(IPV4_FORWARDING, 1));
            });
        });
        self.ask(request).map(drop)
    }

    /// Isolates a port of a bridge from its other ports and keeps the bridge from learning from it.
    pub(super) fn isolate(&self, port: u32) -> io::Result<()> {
        let mut request = Request::of_link(libc::RTM_NEWLINK, REQUEST | ACKNOWLEDGE, port);
        request.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_SLAVE_KIND, b"bridge");
            info.nested(libc::IFLA_INFO_SLAVE_DATA, |data| {
                data.attribute(PORT_ISOLATED, &[1]);
                data.attribute(PORT_LEARNING, &[0]);
                data.attribute(PORT_UNICAST_FLOOD, &[0]);
            });
        });
        self.ask(request).map(drop)
    }

    /// Returns the IPv4 addresses of an interface, each with the length of its prefix.
    pub(super) fn addresses(&self, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let mut request = Request::new(libc::RTM_GETADDR, REQUEST | LIST);
        request.address(0, 0);
        let answers = self.ask(request)?;
        Ok(answers.iter().filter_map(|body| parse_address(body, index)).collect())
    }

    /// Adds an address to an interface.
    pub(super) fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_NEWADDR, new(EXCLUSIVE));
        request.address(index, prefix);
        let all_ones = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        request.attribute(libc::IFA_ADDRESS, &address.octets());
        request.attribute(libc::IFA_LOCAL, &address.octets());
        request.attribute(libc::IFA_BROADCAST, &(u32::from(address) | all_ones).to_be_bytes());
        self.ask(request).map(drop)
    }

    /// Returns the IPv4 routes.
    pub(super) fn routes(&self) -> io::Result<Vec<Route>> {
        let mut request = Request::new(libc::RTM_GETROUTE, REQUEST | LIST);
        request.route();
        Ok(self.ask(request)?.iter().filter_map(|body| Route::parse(body)).collect())
    }

    /// Adds a default route to `gateway`.
    pub(super) fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_NEWROUTE, new(EXCLUSIVE));
        request.route();
        request.attribute(libc::RTA_GATEWAY, &gateway.octets());
        self.ask(request).map(drop)
    }

    /// Adds a hardware address to the forwarding table of a bridge's port.
    pub(super) fn set_way(&self, port: u32, hardware: [u8; 6]) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_NEWNEIGH, new(REPLACE));
        request.neighbour(libc::AF_BRIDGE, port, libc::NUD_NOARP, libc::NTF_MASTER);
        request.attribute(libc::NDA_LLADDR, &hardware);
        self.ask(request).map(drop)
    }

    /// Sets the hardware address of an IPv4 address.
    pub(super) fn set_neighbour(
        &self,
        interface: u32,
        address: Ipv4Addr,
        hardware: [u8; 6],
    ) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_NEWNEIGH, new(REPLACE));
        request.neighbour(libc::AF_INET, interface, libc::NUD_PERMANENT, 0);
        request.attribute(libc::NDA_DST, &address.octets());
        request.attribute(libc::NDA_LLADDR, &hardware);
        self.ask(request).map(drop)
    }

    /// Sends a request and returns the bodies of the messages that answer it.
    fn ask(&self, request: Request) -> io::Result<Vec<Vec<u8>>> {
        // The next request skips the unread rest of an earlier answer by its sequence number.
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.sequence = socket.sequence.wrapping_add(1);
        let sequence = socket.sequence;
        send(&socket.fd, &request.finish(sequence), SendFlags::empty())?;
        let mut buffer = vec![0; LONGEST_ANSWER];
        let mut answers = Vec::new();
        loop {
            let receive = || recv(&socket.fd, buffer.as_mut_slice(), RecvFlags::TRUNC);
            let (_, length) = rustix::io::retry_on_intr(receive)?;
            let bytes = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            if read(bytes, sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Returns `true` if a request failed with this errno.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn new(how: u16) -> u16 {
    REQUEST | ACKNOWLEDGE | CREATE | how
}

/// Collects the bodies of a packet's messages that answer a request. Returns `true` after the last
/// one.
fn read(mut packet: &[u8], sequence: u32, answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while packet.len() >= HEADER {
        let length = u32_at(packet, 0).unwrap_or(0) as usize;
        let message = packet.get(..length).filter(|message| message.len() >= HEADER);
        let message = message.ok_or(Errno::BADMSG)?;
        let kind = i32::from(u16_at(message, 4).unwrap_or(0));
        let body = &message[HEADER..];
        if u32_at(message, 8) == Some(sequence) {
            match kind {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                    let code = u32_at(body, 0).unwrap_or(0).cast_signed();
                    if code < 0 {
                        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                    return Ok(true);
                }
                libc::NLMSG_NOOP => {}
                _ => answers.push(body.to_vec()),
            }
        }
        packet = packet.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

impl Link {
    fn parse(body: &[u8]) -> Option<Self> {
        let up = libc::IFF_UP.cast_unsigned();
        let mut link =
            Self { index: u32_at(body, 4)?, is_up: u32_at(body, 8)? & up != 0, ..Self::default() };
        for (kind, value) in Attributes(body.get(16..)?) {
            match kind {
                libc::IFLA_MTU => link.mtu = u32_at(value, 0),
                libc::IFLA_LINKINFO => {
                    let mut info = Attributes(value);
                    let kind = info.find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                    link.kind = kind.map_or_else(String::new, |(_, name)| text(name));
                }
                _ => {}
            }
        }
        Some(link)
    }
}

impl Route {
    fn parse(body: &[u8]) -> Option<Self> {
        if i32::from(*body.first()?) != libc::AF_INET {
            return None;
        }
        let mut route = Self { prefix: *body.get(1)?, ..Self::default() };
        for (kind, value) in Attributes(body.get(12..)?) {
            match kind {
                libc::RTA_DST => route.destination = ipv4(value),
                libc::RTA_OIF => route.interface = u32_at(value, 0),
                _ => {}
            }
        }
        Some(route)
    }
}

fn parse_address(body: &[u8], index: u32) -> Option<(Ipv4Addr, u8)> {
    if i32::from(*body.first()?) != libc::AF_INET || u32_at(body, 4)? != index {
        return None;
    }
    let mut attributes = Attributes(body.get(8..)?);
    let (_, address) = attributes.find(|(kind, _)| *kind == libc::IFA_ADDRESS)?;
    Some((ipv4(address)?, *body.get(1)?))
}

/// The attributes of a message as kinds and values. A truncated attribute ends them.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        // The upper two bits are flags: nested attributes and byte order.
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(ATTRIBUTE..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn text(bytes: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    String::from_utf8_lossy(text).into_owned()
}

/// Returns the offset of the next item after one of this length.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A message to the kernel under construction.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    fn of_link(kind: u16, flags: u16, index: u32) -> Self {
        let mut request = Self::new(kind, flags);
        request.link(index);
        request
    }

    /// Adds `struct ifinfomsg`: family, kind, index, flags, mask of changed flags.
    fn link(&mut self, index: u32) {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend([0; 8]);
    }

    /// Sets the flag that raises or lowers the interface.
    fn set_up(&mut self, is_up: bool) {
        let up = libc::IFF_UP.cast_unsigned();
        let flags = if is_up { up } else { 0 };
        self.0[HEADER + 8..HEADER + 12].copy_from_slice(&flags.to_ne_bytes());
        self.0[HEADER + 12..HEADER + 16].copy_from_slice(&up.to_ne_bytes());
    }

    /// Adds `struct ifaddrmsg`: family, prefix, flags, scope, interface.
    fn address(&mut self, index: u32, prefix: u8) {
        self.0.extend([libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE]);
        self.0.extend(index.to_ne_bytes());
    }

    /// Adds `struct rtmsg`: family, two prefixes, type of service, table, protocol, scope, kind,
    /// flags.
    fn route(&mut self) {
        let (table, protocol) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC);
        self.0.extend([libc::AF_INET as u8, 0, 0, 0, table, protocol]);
        self.0.extend([libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0]);
    }

    /// Adds `struct ndmsg`: family, padding, interface, state, flags, kind.
    fn neighbour(&mut self, family: i32, interface: u32, state: u16, flags: u8) {
        self.0.extend([family as u8, 0, 0, 0]);
        self.0.extend(interface.to_ne_bytes());
        self.0.extend(state.to_ne_bytes());
        self.0.extend([flags, 0]);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |request| request.0.extend(value));
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Adds a text attribute with a terminating zero.
    fn text(&mut self, kind: u16, value: &str) {
        self.nested(kind, |request| {
            request.0.extend(value.as_bytes());
            request.0.push(0);
        });
    }

    /// Adds an attribute whose value `fill` writes.
    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let length = self.0.len() - start;
        // All requests of this module have a few hundred bytes at most.
        self.0[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self.0.resize(start + aligned(length), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use kiln_testkit::{Need, skip};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Runs a test in a network namespace of its own.
    fn in_namespace(test: &str, work: impl FnOnce(&Netlink) + Send) {
        if skip(test, &[Need::Root]) {
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                work(&Netlink::open().unwrap());
            });
        });
    }

    #[test]
    fn a_bridge_is_found_as_it_was_made() {
        in_namespace("a_bridge_is_found_as_it_was_made", |netlink| {
            assert_eq!(netlink.link_by_name("bridge0").unwrap(), None);
            netlink.add_bridge("bridge0", [2, 0, 0, 0, 0, 1]).unwrap();
            let again = netlink.add_bridge("bridge0", [2, 0, 0, 0, 0, 1]).unwrap_err();
            assert!(is(&again, Errno::EXIST));
            let made = netlink.link_by_name("bridge0").unwrap().unwrap();
            assert_eq!((made.kind.as_str(), made.is_up), ("bridge", true));
            netlink.change(made.index, LinkChange { is_up: None, mtu: Some(1400) }).unwrap();
            let changed = netlink.link_by_index(made.index).unwrap().unwrap();
            assert_eq!((changed.mtu, changed.is_up), (Some(1400), true));
            assert_eq!(netlink.link_by_index(4321).unwrap(), None);

            let address = Ipv4Addr::new(10, 1, 2, 3);
            netlink.add_address(made.index, address, 24).unwrap();
            assert_eq!(netlink.addresses(made.index).unwrap(), [(address, 24)]);
            assert_eq!(netlink.addresses(1).unwrap(), [], "the loopback interface has none");
            netlink.add_default_route(Ipv4Addr::new(10, 1, 2, 1)).unwrap();
            let routes = netlink.routes().unwrap();
            let has = |prefix, destination| {
                routes.contains(&Route { prefix, destination, interface: Some(made.index) })
            };
            assert!(has(24, Some(Ipv4Addr::new(10, 1, 2, 0))) && has(0, None), "{routes:?}");
            netlink.raise_router(made.index, 1300).unwrap();
            let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/conf/bridge0/forwarding");
            assert_eq!(forwards.unwrap(), "1\n");
            netlink.change(made.index, LinkChange { is_up: Some(false), mtu: None }).unwrap();
            assert!(!netlink.link_by_name("bridge0").unwrap().unwrap().is_up);
        });
    }

    #[test]
    fn a_pair_leads_from_the_bridge_to_another_namespace() {
        in_namespace("a_pair_leads_from_the_bridge_to_another_namespace", |netlink| {
            netlink.add_bridge("bridge0", [2, 0, 0, 0, 0, 1]).unwrap();
            let bridge = netlink.link_by_name("bridge0").unwrap().unwrap().index;
            let other = std::thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                (File::open("/proc/thread-self/ns/net").unwrap(), Netlink::open().unwrap())
            });
            let (namespace, inside) = other.join().unwrap();
            let pair = Pair {
                name: "outside",
                bridge,
                mtu: 1300,
                peer_name: "inside",
                peer_address: [2, 0, 0, 0, 0, 2],
                peer_namespace: namespace.as_fd(),
            };
            netlink.add_pair(pair).unwrap();
            let port = netlink.link_by_name("outside").unwrap().unwrap();
            assert_eq!((port.kind.as_str(), port.mtu, port.is_up), ("veth", Some(1300), true));
            netlink.isolate(port.index).unwrap();
            netlink.set_way(port.index, [2, 0, 0, 0, 0, 2]).unwrap();
            netlink.set_neighbour(bridge, Ipv4Addr::new(10, 1, 2, 4), [2, 0, 0, 0, 0, 2]).unwrap();
            assert_eq!(inside.link_by_name("inside").unwrap().unwrap().mtu, Some(1300));
            assert_eq!(netlink.link_by_name("inside").unwrap(), None);
        });
    }

    #[test]
    fn what_is_cut_short_ends_a_list() {
        let mut request = Request::of_link(libc::RTM_NEWLINK, 0, 7);
        request.number(libc::IFLA_MTU, 1400);
        request.nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        let message = request.finish(1);
        let whole = Link { index: 7, is_up: false, kind: "bridge".to_owned(), mtu: Some(1400) };
        assert_eq!(Link::parse(&message[HEADER..]), Some(whole));
        for length in 0..message.len() {
            let mut answers = Vec::new();
            let last = read(&message[..length], 1, &mut answers);
            assert!(answers.is_empty() && last.is_ok_and(|last| !last) || length >= HEADER);
            let body = message.get(HEADER..length).unwrap_or_default();
            let _ = (Link::parse(body), Route::parse(body), parse_address(body, 7));
        }
        assert!(read(&[0; HEADER], 1, &mut Vec::new()).is_err(), "a length of 0 never ends");
    }
}
