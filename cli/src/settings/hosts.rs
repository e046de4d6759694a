//! Additional lines of `/etc/hosts`: `--add-host`.

use anyhow::{Result, bail};
use kiln_llb::op::HOST_GATEWAY;

/// Parses `NAME:ADDRESS` or `NAME=ADDRESS`. Keeps the address [`HOST_GATEWAY`] as it is: its IP
/// address is known only once a network exists.
pub(crate) fn parse_host(text: &str) -> Result<(String, String)> {
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = parts.filter(|(name, _)| !name.is_empty()) else {
        bail!("invalid host {text:?}: expected NAME:ADDRESS");
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address != HOST_GATEWAY && address.parse::<std::net::IpAddr>().is_err() {
        bail!("invalid host {text:?}: {address:?} is no IP address");
    }
    Ok((name.to_owned(), address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_checked() {
        let parsed = parse_host("db:10.0.0.1").unwrap();
        assert_eq!(parsed, ("db".to_owned(), "10.0.0.1".to_owned()));
        assert_eq!(parse_host("db=[::1]").unwrap().1, "::1");
        assert_eq!(parse_host("host:host-gateway").unwrap().1, "host-gateway");
        for text in ["db", ":1.2.3.4", "db:nowhere"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }
}
