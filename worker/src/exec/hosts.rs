//! `/etc/hosts`.

use std::fmt::Write;

use kiln_llb::op::HostIp;

/// Returns what a program sees as `/etc/hosts`.
pub(super) fn hosts(hostname: &str, extra: &[HostIp]) -> String {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in extra {
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "{}\t{}", host.ip, host.host);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_follow_the_usual_ones() {
        let extra = [HostIp { host: "db".to_owned(), ip: "10.0.0.2".to_owned() }];
        let text = hosts("box", &extra);
        assert!(text.starts_with("127.0.0.1\tlocalhost box\n::1\t"), "{text}");
        assert!(text.ends_with("\n10.0.0.2\tdb\n"), "{text}");
    }
}
