//! The addresses that `kiln serve` listens on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String),
    /// Sockets that the service manager has opened: those of a name, or all.
    Passed(Option<String>),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            if Path::new(path).is_absolute() {
                return Ok(Self::Unix(path.into()));
            }
        } else if let Some(host) = text.strip_prefix("tcp://") {
            if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                return Ok(Self::Tcp(host.to_owned()));
            }
        } else if let Some(name) = text.strip_prefix("fd://") {
            let is_all = matches!(name, "" | "*");
            return Ok(Self::Passed((!is_all).then(|| name.to_owned())));
        }
        bail!(
            "{text:?} is no address to listen on: unix:///path/to/socket, tcp://HOST:PORT or fd://"
        );
    }
}

/// Returns the addresses of a host. Without TLS, all of them have to be of this machine alone, and
/// the user has to insist.
///
/// # Errors
/// Fails if the name is unknown, and for addresses that aren't safe without TLS.
pub(crate) fn resolve(host: &str, has_tls: bool, is_insecure: bool) -> Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs as _;
    let host =
        host.strip_prefix(':').map_or_else(|| host.to_owned(), |port| format!("[::]:{port}"));
    let found: Vec<_> =
        host.to_socket_addrs().with_context(|| format!("look up {host}"))?.collect();
    check(&host, &found, has_tls, is_insecure)?;
    Ok(found)
}

/// Refuses TCP without TLS, except on loopback if the user insists.
pub(crate) fn check(
    name: &str,
    found: &[SocketAddr],
    has_tls: bool,
    is_insecure: bool,
) -> Result<()> {
    if has_tls {
        return Ok(());
    }
    if !found.iter().all(|address| address.ip().is_loopback()) {
        bail!(
            "tcp://{name} without TLS lets everyone build: set --tlscacert, --tlscert and --tlskey"
        );
    }
    if !is_insecure {
        bail!(
            "tcp://{name} without TLS lets all users of this machine build: set --tlscacert, \
             --tlscert and --tlskey, or --insecure-tcp"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_three_kinds() {
        let parse = |text| Address::parse(text).unwrap();
        assert_eq!(parse("unix:///run/s"), Address::Unix("/run/s".into()));
        assert_eq!(parse("tcp://0.0.0.0:1"), Address::Tcp("0.0.0.0:1".to_owned()));
        assert_eq!(parse("fd://"), Address::Passed(None));
        assert_eq!(parse("fd://kiln"), Address::Passed(Some("kiln".to_owned())));
        for address in ["tcp://0.0.0.0", "unix://s", "/run/s", "tcp://a:b"] {
            assert!(Address::parse(address).is_err(), "{address}");
        }
    }

    #[test]
    fn tcp_without_tls_is_for_loopback() {
        assert!(resolve("0.0.0.0:1", true, false).is_ok());
        assert!(resolve("0.0.0.0:1", false, true).is_err());
        assert!(resolve(":1", false, true).is_err());
        assert!(resolve("127.0.0.1:1", false, false).is_err());
        assert!(resolve("127.0.0.1:1", false, true).is_ok());
    }
}
