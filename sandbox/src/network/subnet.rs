//! The choice of the bridge's addresses, which no other network of this machine may use.

use std::net::Ipv4Addr;

/// The prefix length of every candidate. It has as many addresses as a bridge has ports.
const PREFIX: u8 = 22;

/// The candidate networks in order of precedence: private ones, away from the defaults of Docker,
/// Podman, libvirt and home routers.
const CANDIDATES: [Ipv4Addr; 8] = [
    Ipv4Addr::new(10, 75, 72, 0),
    Ipv4Addr::new(10, 139, 72, 0),
    Ipv4Addr::new(10, 203, 72, 0),
    Ipv4Addr::new(172, 27, 72, 0),
    Ipv4Addr::new(172, 30, 136, 0),
    Ipv4Addr::new(192, 168, 216, 0),
    Ipv4Addr::new(192, 168, 148, 0),
    Ipv4Addr::new(10, 11, 72, 0),
];

/// A network, as one of its addresses and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    /// An address in the network. For the bridge's network, the bridge's address.
    pub(super) address: Ipv4Addr,
    /// The number of bits that all addresses share.
    pub(super) prefix: u8,
}

impl Subnet {
    /// Returns the first candidate that doesn't overlap with `used`, with the bridge's address.
    pub(super) fn choose(used: &[Subnet]) -> Option<Self> {
        CANDIDATES
            .iter()
            .map(|&base| Self { address: Ipv4Addr::from(u32::from(base) + 1), prefix: PREFIX })
            .find(|candidate| !used.iter().any(|other| candidate.overlaps(*other)))
    }

    fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }

    /// Returns the network's address.
    pub(super) fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & mask(self.prefix))
    }

    /// Returns every address that a namespace may have, once. `start` selects the first one.
    pub(super) fn hosts(self, start: u64) -> impl Iterator<Item = Ipv4Addr> {
        let (network, own) = (u32::from(self.network()), u32::from(self.address));
        // The network's own address and the broadcast address are left out.
        let count = u64::from(!mask(self.prefix)).saturating_sub(1);
        (0..count)
            .map(move |step| network + 1 + ((start % count + step) % count) as u32)
            .filter(move |address| *address != own)
            .map(Ipv4Addr::from)
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    #[test]
    fn networks_of_the_host_are_avoided() {
        let chosen = |used: &[&str]| {
            let used: Vec<Subnet> = used.iter().map(|text| subnet(text)).collect();
            Subnet::choose(&used).map(|subnet| subnet.to_string())
        };
        assert_eq!(chosen(&[]).unwrap(), "10.75.72.0/22");
        assert_eq!(chosen(&["10.75.75.255/32"]).unwrap(), "10.139.72.0/22");
        assert_eq!(chosen(&["10.75.76.0/24"]).unwrap(), "10.75.72.0/22");
        assert_eq!(chosen(&["10.0.0.0/8"]).unwrap(), "172.27.72.0/22");
        assert_eq!(chosen(&["10.0.0.0/8", "172.16.0.0/12"]).unwrap(), "192.168.216.0/22");
        assert_eq!(chosen(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]), None);
    }

    #[test]
    fn every_address_is_given_out_once() {
        for start in [0, 1, 4, 5, 6, u64::MAX] {
            let mut hosts: Vec<Ipv4Addr> = subnet("10.0.0.1/29").hosts(start).collect();
            hosts.sort();
            let expected: Vec<Ipv4Addr> =
                (2..7).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect();
            assert_eq!(hosts, expected, "{start}");
        }
        assert_eq!(subnet("10.0.0.1/31").hosts(3).count(), 0);
        assert_eq!(subnet("10.0.0.1/32").hosts(3).count(), 0);
        assert_eq!(subnet("10.75.72.1/22").hosts(7).count(), 1021);
    }
}
