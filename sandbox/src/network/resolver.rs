//! Name resolution: the content of a namespace's `/etc/resolv.conf`.
//!
//! The namespace uses name servers directly if it can reach them. Others are on the host's loopback
//! device, such as those of systemd-resolved, dnsmasq and unbound, or use IPv6. In their place, the
//! file names [`ADDRESS`], where a [relay](super::relay) listens inside the namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::subnet::Subnet;

/// The relay's address in the namespace's loopback network, which is also Docker's.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const PORT: u16 = 53;

/// The name resolution of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    /// The content of the namespace's `/etc/resolv.conf`.
    pub(super) text: Vec<u8>,
    /// The servers that only the host can reach, in order of precedence.
    pub(super) relayed: Vec<SocketAddr>,
    /// The servers that the namespace uses directly.
    direct: Vec<Ipv4Addr>,
}

impl Resolver {
    /// Converts the host's file for the namespace.
    pub(super) fn new(host: &[u8]) -> Self {
        let mut this = Self { text: Vec::new(), relayed: Vec::new(), direct: Vec::new() };
        for line in String::from_utf8_lossy(host).lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(server)) => this.server(server),
                _ => this.line(line),
            }
        }
        if this.relayed.is_empty() && this.direct.is_empty() {
            // The C library's default without any server.
            this.server("127.0.0.1");
        }
        this
    }

    /// Returns the networks of the direct servers.
    pub(super) fn direct(&self) -> impl Iterator<Item = Subnet> {
        self.direct.iter().map(|address| Subnet { address: *address, prefix: 32 })
    }

    fn server(&mut self, text: &str) {
        match text.parse() {
            Ok(IpAddr::V4(address)) if !address.is_loopback() && !address.is_unspecified() => {
                self.direct.push(address);
                self.line(&format!("nameserver {address}"));
            }
            Ok(address) => self.relay(SocketAddr::new(address, PORT)),
            // An address that the host's resolver can't parse either is ignored.
            Err(_) => {
                if let Some(server) = scoped(text) {
                    self.relay(server);
                }
            }
        }
    }

    fn relay(&mut self, server: SocketAddr) {
        if self.relayed.is_empty() {
            self.line(&format!("nameserver {ADDRESS}"));
        }
        self.relayed.push(server);
    }

    fn line(&mut self, line: &str) {
        self.text.extend_from_slice(line.as_bytes());
        self.text.push(b'\n');
    }
}

/// Parses an address with an interface, such as `fe80::1%eth0`.
fn scoped(text: &str) -> Option<SocketAddr> {
    let (address, interface) = text.split_once('%')?;
    let address = address.parse().ok()?;
    let index = interface.parse().ok().or_else(|| {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).ok()?;
        netdevice::name_to_index(socket, interface).ok()
    })?;
    Some(SocketAddrV6::new(address, PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(text: &str) -> (String, Vec<String>) {
        let resolver = Resolver::new(text.as_bytes());
        let relayed = resolver.relayed.iter().map(ToString::to_string).collect();
        (String::from_utf8(resolver.text).unwrap(), relayed)
    }

    #[test]
    fn servers_that_can_be_reached_stay() {
        let text =
            "# made by hand\nnameserver 10.1.2.3\nnameserver  192.0.2.1 # second\nsearch a.b\n";
        let expected = "# made by hand\nnameserver 10.1.2.3\nnameserver 192.0.2.1\nsearch a.b\n";
        assert_eq!(resolver(text), (expected.to_owned(), vec![]));
    }

    #[test]
    fn the_hosts_own_servers_are_asked_for_the_namespace() {
        let text = "options edns0 trust-ad\nnameserver 127.0.0.53\nnameserver ::1\nsearch a\n";
        let expected = "options edns0 trust-ad\nnameserver 127.0.0.11\nsearch a\n";
        let servers = vec!["127.0.0.53:53".to_owned(), "[::1]:53".to_owned()];
        assert_eq!(resolver(text), (expected.to_owned(), servers));
        let (text, servers) = resolver("nameserver 10.0.0.1\nnameserver 127.0.0.1\n");
        assert_eq!(text, "nameserver 10.0.0.1\nnameserver 127.0.0.11\n");
        assert_eq!(servers, ["127.0.0.1:53"]);
    }

    #[test]
    fn a_host_without_servers_asks_itself() {
        for text in ["", "search a\n", "nameserver\n", "nameserver nonsense\n"] {
            let (text, servers) = resolver(text);
            assert!(text.ends_with("nameserver 127.0.0.11\n"), "{text}");
            assert_eq!(servers, ["127.0.0.1:53"]);
        }
    }

    #[test]
    fn scopes_are_interfaces() {
        let (text, servers) = resolver("nameserver fe80::1%lo\n");
        assert_eq!(text, "nameserver 127.0.0.11\n");
        assert_eq!(servers, ["[fe80::1%1]:53"]);
    }
}
