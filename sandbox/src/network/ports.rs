//! Published ports: ports of the host that lead to ports of a namespace.
//!
//! For each one, kiln binds a socket on the host. It reserves the port, and a [proxy] forwards what
//! arrives there: from the host itself, from other namespaces, and by IPv6. A packet filter rule
//! redirects IPv4 from elsewhere past the proxy, so that the container sees the caller's address.
//! On hosts without such rules, and without root, the proxy forwards everything.
//!
//! Socket and rule apply to the requested addresses only. The kernel removes both when this process
//! ends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};
use tokio::task::JoinSet;

use super::error::NetworkError;
use super::host::Host;
use super::proxy::{self, Destination};
use super::rules::OwnRules;

/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP connections, by proxy and rule.
    Tcp,
    /// UDP datagrams, by proxy and rule.
    Udp,
    /// SCTP associations. Only a rule forwards them, so the host itself can't connect.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The address of the host to publish on. `None` for all addresses.
    pub address: Option<IpAddr>,
    /// The range of the host's ports, of which the first free one is used. 0 for any port.
    pub host: RangeInclusive<u16>,
    /// The port in the container.
    pub container: u16,
    /// The port's transport protocol.
    pub protocol: Protocol,
}

impl Port {
    /// Returns `true` if the kernel chooses the host's port.
    pub fn is_any(&self) -> bool {
        *self.host.start() == 0
    }
}

/// The result of publishing a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's address and port. An unspecified address means all addresses.
    pub host: SocketAddr,
    /// The port in the container.
    pub container: u16,
    /// The port's transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} -> {}", self.container, self.protocol, self.host)
    }
}

/// The published ports of a namespace. Dropping the value closes them.
#[derive(Debug)]
pub struct Published {
    endpoints: Vec<Endpoint>,
    _proxies: JoinSet<()>,
    _rules: Option<OwnRules>,
}

impl Published {
    /// Returns the published ports in the order of the request.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Publishes ports of the namespace with the address `to`.
    pub(super) async fn open(
        host: &Host,
        to: Ipv4Addr,
        ports: &[Port],
    ) -> Result<Self, NetworkError> {
        let thread = host.gateway.as_ref().map(|gateway| Arc::clone(&gateway.thread));
        let is_sctp = |port: &Port| port.protocol == Protocol::Sctp;
        if thread.is_some() && ports.iter().any(is_sctp) {
            let problem = "publish sctp ports: that takes root";
            return Err(NetworkError::Unavailable(problem.to_owned()));
        }
        let (mut endpoints, mut proxies) = (Vec::new(), JoinSet::new());
        let room = proxy::Room::default();
        for port in ports {
            let (endpoint, socket) = reserve(port)?;
            if let Some(socket) = socket {
                let address = SocketAddr::from((to, port.container));
                let to = Destination { address, thread: thread.clone() };
                proxy::start(&mut proxies, socket, port.protocol, to, &room)
                    .map_err(NetworkError::doing(format!("publish port {}", endpoint.host)))?;
            }
            endpoints.push(endpoint);
        }
        let rules: Vec<String> = endpoints.iter().filter_map(|end| rule(end, to)).collect();
        if rules.is_empty() || thread.is_some() {
            return Ok(Self { endpoints, _proxies: proxies, _rules: None });
        }
        let name = format!("kiln-{}-{:x}", std::process::id(), u32::from(to));
        let rules = match OwnRules::redirect(&host.nft, &name, &rules).await {
            Ok(rules) => Some(rules),
            Err(error) if ports.iter().any(is_sctp) => {
                return Err(NetworkError::doing("publish sctp ports")(error));
            }
            Err(error) => {
                tracing::debug!("ports are published by proxies alone: {error}");
                None
            }
        };
        Ok(Self { endpoints, _proxies: proxies, _rules: rules })
    }
}

/// Returns the rule that redirects packets from elsewhere past the proxy.
fn rule(endpoint: &Endpoint, to: Ipv4Addr) -> Option<String> {
    let IpAddr::V4(address) = endpoint.host.ip().to_canonical() else {
        // The proxy's wildcard socket is an IPv6 one that accepts IPv4 too.
        return endpoint.host.ip().is_unspecified().then(|| redirect(endpoint, "", to));
    };
    if address.is_loopback() {
        return None;
    }
    let which =
        if address.is_unspecified() { String::new() } else { format!("ip daddr {address} ") };
    Some(redirect(endpoint, &which, to))
}

fn redirect(endpoint: &Endpoint, which: &str, to: Ipv4Addr) -> String {
    let Endpoint { host, container, protocol } = endpoint;
    let port = host.port();
    format!("{which}fib daddr type local {protocol} dport {port} dnat ip to {to}:{container}")
}

/// Reserves a port of the host.
fn reserve(port: &Port) -> Result<(Endpoint, Option<OwnedFd>), NetworkError> {
    let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let endpoint = |host| Endpoint { host, container: port.container, protocol: port.protocol };
    if port.protocol == Protocol::Sctp {
        let host = SocketAddr::new(port.address.unwrap_or(all), *port.host.start());
        if port.is_any() || host.ip().is_loopback() || host.is_ipv6() {
            return Err(NetworkError::Unavailable(format!(
                "publish port {}/sctp: it takes a port of the host, and not on loopback or by IPv6",
                port.container
            )));
        }
        return Ok((endpoint(host), None));
    }
    let mut problem = Errno::ADDRINUSE;
    for number in port.host.clone() {
        match open(port, number) {
            Ok(socket) => {
                let bound = getsockname(&socket).and_then(SocketAddr::try_from);
                let bound = bound.map_err(NetworkError::doing("publish a port"))?;
                let host = SocketAddr::new(port.address.unwrap_or(all), bound.port());
                return Ok((endpoint(host), Some(socket)));
            }
            Err(errno) => problem = errno,
        }
        if problem != Errno::ADDRINUSE {
            break;
        }
    }
    let (first, last) = (port.host.start(), port.host.end());
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let host = match port.address.unwrap_or(all) {
        IpAddr::V6(address) => format!("[{address}]:{ports}"),
        IpAddr::V4(address) => format!("{address}:{ports}"),
    };
    Err(NetworkError::doing(format!("publish port {host}/{}", port.protocol))(problem))
}

/// Opens the proxy's socket. Without an address, it accepts IPv4 and, if available, IPv6.
fn open(port: &Port, number: u16) -> rustix::io::Result<OwnedFd> {
    let Some(address) = port.address else {
        let both = SocketAddr::from(([0_u16; 8], number));
        return match open_at(port.protocol, both) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                open_at(port.protocol, SocketAddr::from(([0_u8; 4], number)))
            }
            other => other,
        };
    };
    open_at(port.protocol, SocketAddr::new(address, number))
}

fn open_at(protocol: Protocol, address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if protocol == Protocol::Udp { SocketType::DGRAM } else { SocketType::STREAM };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    if protocol == Protocol::Tcp {
        // Lingering connections of an earlier container must not block the port.
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<&str>, host: RangeInclusive<u16>) -> Port {
        let address = address.map(|text| text.parse().unwrap());
        Port { address, host, container: 80, protocol: Protocol::Tcp }
    }

    #[test]
    fn the_first_free_port_is_taken_and_named_where_there_is_none() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let only = port(Some("127.0.0.1"), number..=number);
        let error = reserve(&only).unwrap_err().to_string();
        assert_eq!(error, format!("publish port 127.0.0.1:{number}/tcp: address already in use"));
        // Each address has its own ports.
        assert!(reserve(&port(Some("127.0.0.2"), number..=number)).is_ok());
        let next = port(Some("127.0.0.1"), number..=number.saturating_add(20));
        let (endpoint, _socket) = reserve(&next).unwrap();
        assert!(endpoint.host.port() > number);
        let (any, _socket) = reserve(&port(None, 0..=0)).unwrap();
        assert_ne!(any.host.port(), 0);
        assert_eq!(any.to_string(), format!("80/tcp -> 0.0.0.0:{}", any.host.port()));
    }

    #[test]
    fn rules_are_for_the_address_that_was_asked_for() {
        let rule = |text: &str| {
            let host = text.parse().unwrap();
            let endpoint = Endpoint { host, container: 80, protocol: Protocol::Udp };
            super::rule(&endpoint, Ipv4Addr::new(10, 0, 0, 2))
        };
        let to = "udp dport 53 dnat ip to 10.0.0.2:80";
        assert_eq!(rule("0.0.0.0:53").unwrap(), format!("fib daddr type local {to}"));
        let one = rule("192.0.2.1:53").unwrap();
        assert_eq!(one, format!("ip daddr 192.0.2.1 fib daddr type local {to}"));
        assert_eq!(rule("127.0.0.1:53"), None);
        assert_eq!(rule("[::1]:53"), None);
        assert_eq!(rule("[2001:db8::1]:53"), None);
    }
}
