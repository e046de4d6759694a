//! `--publish` and the ports of an image.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use kiln_sandbox::network::{Port, Protocol};

/// The most ports of one `--publish`, and of all ports that an image exposes.
const MOST: usize = 4096;

/// Parses `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`. `HOST` and `CONTAINER` may be ranges.
pub fn parse(text: &str) -> Result<Vec<Port>> {
    read(text).with_context(|| format!("invalid --publish {text:?}"))
}

/// Parses `CONTAINER[/PROTOCOL]` of `--expose`.
pub fn expose(text: &str) -> Result<Vec<Port>> {
    if text.contains(':') {
        bail!("invalid --expose {text:?}: expected CONTAINER[/PROTOCOL]");
    }
    read(text).with_context(|| format!("invalid --expose {text:?}"))
}

/// Returns the ports that an image exposes. The kernel chooses their ports on the host.
pub fn exposed<'a>(ports: impl IntoIterator<Item = &'a String>) -> Result<Vec<Port>> {
    let mut all = Vec::new();
    for text in ports {
        // An image must not choose addresses and ports of the host.
        if text.contains(':') {
            bail!("the image exposes the port {text:?}: expected CONTAINER[/PROTOCOL]");
        }
        all.extend(read(text).with_context(|| format!("the image exposes the port {text:?}"))?);
        if all.len() > MOST {
            bail!("the image exposes more than {MOST} ports");
        }
    }
    Ok(all)
}

fn read(text: &str) -> Result<Vec<Port>> {
    if text.contains('=') {
        bail!("fields with names are not supported: write [[IP:][HOST]:]CONTAINER[/PROTOCOL]");
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => bail!("the protocol {protocol:?} is none of tcp, udp and sctp"),
    };
    let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let container = range(container)?;
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let address = read_address(address)?;
    let one = |host, container| Port { address, host, container, protocol };
    // 0 lets the kernel choose a port, as for sockets.
    if matches!(host, "" | "0") {
        return Ok(container.map(|port| one(0..=0, port)).collect());
    }
    let host = range(host)?;
    match container.len() {
        // The container's port gets the first free port of the host's range.
        1 => Ok(vec![one(host, *container.start())]),
        length if length == host.len() => {
            Ok(host.zip(container).map(|(host, container)| one(host..=host, container)).collect())
        }
        _ => bail!("the ranges of host and container differ in length"),
    }
}

fn read_address(text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = plain.parse().with_context(|| format!("{text:?} is no IP address"))?;
    // `0.0.0.0` means no address: the container's port is then reachable by IPv6, too.
    Ok(Some(address).filter(|address| *address != IpAddr::from([0, 0, 0, 0])))
}

fn range(text: &str) -> Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => bail!("{text:?} is no port"),
    };
    let range = port(first)?..=port(last)?;
    match range.len() {
        0 => bail!("{text:?} is no range of ports"),
        1..=MOST => Ok(range),
        _ => bail!("{text:?} is more than {MOST} ports"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |port: Port| {
            let address =
                port.address.map_or_else(|| "*".to_owned(), |address| address.to_string());
            let (first, last) = (port.host.start(), port.host.end());
            format!("{address} {first}-{last} {}/{}", port.container, port.protocol)
        };
        parse(text).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        assert_eq!(shown("80"), ["* 0-0 80/tcp"]);
        assert_eq!(shown("8080:80"), ["* 8080-8080 80/tcp"]);
        assert_eq!(shown("0.0.0.0:8080:80/udp"), ["* 8080-8080 80/udp"]);
        assert_eq!(shown("127.0.0.1:8080:80/UDP"), ["127.0.0.1 8080-8080 80/udp"]);
        assert_eq!(shown("127.0.0.1::80/sctp"), ["127.0.0.1 0-0 80/sctp"]);
        assert_eq!(shown("[::1]:8080:80"), ["::1 8080-8080 80/tcp"]);
        assert_eq!(shown("8000-8010:80"), ["* 8000-8010 80/tcp"]);
        assert_eq!(shown("8000-8001:80-81"), ["* 8000-8000 80/tcp", "* 8001-8001 81/tcp"]);
        assert_eq!(shown("0:80"), ["* 0-0 80/tcp"]);
        assert_eq!(shown("127.0.0.1:0:80"), ["127.0.0.1 0-0 80/tcp"]);
        assert_eq!(shown("80-81"), ["* 0-0 80/tcp", "* 0-0 81/tcp"]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        let refused = |text: &str| format!("{:#}", parse(text).unwrap_err());
        for (text, problem) in [
            ("", "\"\" is no port"),
            ("0", "\"0\" is no port"),
            ("65536", "\"65536\" is no port"),
            ("a:80", "\"a\" is no port"),
            ("81-80", "\"81-80\" is no range of ports"),
            ("1-2:1-3", "the ranges of host and container differ in length"),
            ("1-3:1-2", "the ranges of host and container differ in length"),
            ("host:80:80", "\"host\" is no IP address"),
            ("80/icmp", "the protocol \"icmp\" is none of tcp, udp and sctp"),
            ("1-65535", "\"1-65535\" is more than 4096 ports"),
            ("target=80,published=8080", "fields with names are not supported"),
        ] {
            assert!(refused(text).contains(problem), "{}", refused(text));
        }
    }

    #[test]
    fn an_image_exposes_ports_of_its_own_alone() {
        let exposed = |texts: &[String]| {
            let found = exposed(texts).map(|ports| ports.len());
            found.map_err(|error| format!("{error:#}"))
        };
        assert_eq!(exposed(&["80/tcp".to_owned(), "90-92/udp".to_owned()]), Ok(4));
        for text in ["8080:80/tcp", "127.0.0.1:22:22", "0.0.0.0::80", ":80"] {
            let refused = exposed(&[text.to_owned()]).unwrap_err();
            assert!(refused.contains("expected CONTAINER"), "{refused}");
        }
        let many: Vec<String> = (1..=4097).map(|port| format!("{port}/tcp")).collect();
        assert_eq!(exposed(&many), Err("the image exposes more than 4096 ports".to_owned()));
    }
}
