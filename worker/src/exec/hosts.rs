//! The content of a step's `/etc/hosts`.

use std::fmt::Write;
use std::net::Ipv4Addr;

use kiln_llb::op::{HOST_GATEWAY, HostIp};

/// Returns the content of `/etc/hosts`. Without a route to the host, entries with [`HOST_GATEWAY`]
/// are left out.
pub(super) fn hosts(hostname: &str, extra: &[HostIp], gateway: Option<Ipv4Addr>) -> String {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in extra {
        let address = match (host.ip.as_str(), gateway) {
            (HOST_GATEWAY, Some(gateway)) => &gateway.to_string(),
            (HOST_GATEWAY, None) => continue,
            (address, _) => address,
        };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{address}\t{}", host.host);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_follow_the_usual_ones() {
        let extra = [HostIp { host: "db".to_owned(), ip: "10.0.0.2".to_owned() }];
        let text = hosts("box", &extra, None);
        assert!(text.starts_with("127.0.0.1\tlocalhost box\n::1\t"), "{text}");
        assert!(text.ends_with("\n10.0.0.2\tdb\n"), "{text}");
    }

    #[test]
    fn the_gateway_is_known_late() {
        let extra = [HostIp { host: "me".to_owned(), ip: HOST_GATEWAY.to_owned() }];
        let text = hosts("box", &extra, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert!(text.ends_with("\n10.0.0.1\tme\n"), "{text}");
        assert!(!hosts("box", &extra, None).contains("me\n"));
    }
}
