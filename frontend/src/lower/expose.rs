//! `EXPOSE`: ports on which containers listen, as `[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::error::Error;
use crate::lint::rules;
use crate::text::{quote, to_lower};

use super::dispatch::Site;
use super::go_text;

/// Adds the ports to the image config.
pub(super) fn dispatch(site: &mut Site<'_, '_>, ports: &[String]) -> Result<(), Error> {
    let env = site.env();
    let mut exposed = Vec::new();
    let mut specs = Vec::new();
    for port in ports {
        site.note_variables(port);
        let words = site.lowering.expander.process_words(port, &*env)?;
        site.lowering.budget.spend(words.iter().map(String::len).sum());
        site.lowering.budget.check()?;
        specs.extend(words);
    }
    for spec in &specs {
        let port = PortSpec::split(spec)
            .map_err(|error| Error::new(format!("invalid port: {}: {error}", quote(spec))))?;
        if port.protocol != to_lower(port.protocol) {
            site.report(rules::expose_proto_casing(spec));
        }
        if !port.ip.is_empty() || !port.host.is_empty() {
            site.report(rules::expose_invalid_format(spec));
        }
        let known = exposed.len();
        port.expand(&mut exposed).map_err(Error::new)?;
        site.lowering.budget.spend(exposed[known..].iter().map(String::len).sum());
        site.lowering.budget.check()?;
    }
    let text = format!("EXPOSE {}", go_text::list(&exposed));
    let config = &mut site.stage.image_mut().config;
    config.exposed_ports.extend(exposed.into_iter().map(|port| (port, BTreeMap::new())));
    site.commit(text, false);
    Ok(())
}

/// The parts of a port specification.
#[derive(Debug, PartialEq, Eq)]
struct PortSpec<'a> {
    ip: &'a str,
    host: &'a str,
    container: &'a str,
    protocol: &'a str,
}

impl<'a> PortSpec<'a> {
    fn split(spec: &'a str) -> Result<Self, String> {
        let (rest, last) = match spec.rfind(':') {
            Some(colon) => (Some(&spec[..colon]), &spec[colon + 1..]),
            None => (None, spec),
        };
        let (ip, host) = match rest {
            None => ("", ""),
            Some(rest) => rest.rfind(':').map_or(("", rest), |at| (&rest[..at], &rest[at + 1..])),
        };
        let (container, protocol) = last.split_once('/').unwrap_or((last, ""));
        if container.is_empty() {
            return Err("no port specified".to_owned());
        }
        match to_lower(protocol).as_str() {
            "" => Ok(Self { ip, host, container, protocol: "tcp" }),
            "tcp" | "udp" | "sctp" => Ok(Self { ip, host, container, protocol }),
            _ => Err(format!("invalid proto: {protocol}")),
        }
    }

    /// Appends each port of the range, with its protocol.
    fn expand(&self, exposed: &mut Vec<String>) -> Result<(), String> {
        check_address(self.ip)?;
        let invalid = || format!("invalid containerPort: {}", self.container);
        let (start, end) = range(self.container).ok_or_else(invalid)?;
        if !self.host.is_empty() {
            let (host_start, host_end) =
                range(self.host).ok_or_else(|| format!("invalid hostPort: {}", self.host))?;
            if end - start != host_end - host_start && end != start {
                return Err(format!(
                    "invalid ranges specified for container and host Ports: {} and {}",
                    self.container, self.host
                ));
            }
        }
        let protocol = to_lower(self.protocol);
        exposed.extend((start..=end).map(|port| format!("{port}/{protocol}")));
        Ok(())
    }
}

fn check_address(written: &str) -> Result<(), String> {
    if written.is_empty() {
        return Ok(());
    }
    let mut ip = written;
    if let Some(rest) = ip.strip_prefix('[') {
        let missing =
            || format!("invalid IP address {written}: address {written}:: missing ']' in address");
        let (inner, behind) = rest.split_once(']').ok_or_else(missing)?;
        if !behind.is_empty() {
            return Err(format!(
                "invalid IP address {written}: address {written}:: missing port in address"
            ));
        }
        ip = inner;
    }
    if ip.parse::<IpAddr>().is_ok() { Ok(()) } else { Err(format!("invalid IP address: {ip}")) }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let range = (number(start)?, number(end)?);
    (range.0 <= range.1).then_some(range)
}

fn number(text: &str) -> Option<u16> {
    text.parse::<i64>().ok().and_then(|port| u16::try_from(port).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(spec: &str) -> Result<Vec<String>, String> {
        let mut exposed = Vec::new();
        PortSpec::split(spec)?.expand(&mut exposed)?;
        Ok(exposed)
    }

    #[test]
    fn specifications_are_expanded() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("1-2/UDP").unwrap(), ["1/udp", "2/udp"]);
        assert_eq!(ports("127.0.0.1:8080:80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("[::1]:1-2:3-4/sctp").unwrap(), ["3/sctp", "4/sctp"]);
        assert_eq!(ports("::1:1-5:3").unwrap(), ["3/tcp"]);
    }

    #[test]
    fn malformed_specifications() {
        for (spec, message) in [
            ("/tcp", "no port specified"),
            ("80/icmp", "invalid proto: icmp"),
            ("abc", "invalid containerPort: abc"),
            ("2-1", "invalid containerPort: 2-1"),
            ("65536", "invalid containerPort: 65536"),
            ("x:80", "invalid hostPort: x"),
            ("1-2:3-6", "invalid ranges specified for container and host Ports: 3-6 and 1-2"),
            ("1.2.3:1:2", "invalid IP address: 1.2.3"),
        ] {
            assert_eq!(ports(spec).unwrap_err(), message, "{spec}");
        }
    }
}
