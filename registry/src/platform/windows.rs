//! The compatibility of Windows versions.
//!
//! A container of Windows runs on its own build. From Windows Server 2022 on, a host also runs
//! containers of all builds back to the previous long-term release.

/// The build numbers of the long-term releases: Windows Server 2022 and 2025.
const LONG_TERM: [u16; 2] = [20348, 26100];

/// The leading parts of a version, as `10.0.20348.169`.
struct Version {
    major: u8,
    minor: u8,
    build: u16,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { major, minor, build: parts.next()?.parse().ok()? })
    }
}

/// Returns `true` if a host of one version runs containers of another. An absent or malformed
/// version of the host runs everything, and a container without a version runs everywhere.
pub(super) fn runs(host: Option<&str>, container: Option<&str>) -> bool {
    let Some(host) = host.and_then(Version::parse) else { return true };
    let Some(container) = container.filter(|version| !version.is_empty()) else { return true };
    let Some(container) = Version::parse(container) else { return false };
    if (host.major, host.minor) != (container.major, container.minor) {
        return false;
    }
    if host.build < LONG_TERM[0] {
        return host.build == container.build;
    }
    let previous = LONG_TERM.into_iter().rev().find(|release| *release < host.build);
    (previous.unwrap_or(LONG_TERM[0])..=host.build).contains(&container.build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_compatible_back_to_the_previous_long_term_release() {
        for (host, container, expected) in [
            ("10.0.17763.1", "10.0.17763.5000", true),
            ("10.0.17763", "10.0.17762", false),
            ("1.2.3", "1.1.0", false),
            ("10.0.20348", "10.0.20348.1", true),
            ("10.0.20348", "10.0.20347", false),
            ("10.0.26100", "10.0.20348", true),
            ("10.0.26100", "10.0.26101", false),
            ("10.0.30000", "10.0.25000", false),
            ("10.0.30000", "10.0.26100", true),
            ("10", "10.0.17763", true),
            ("10.0.17763", "", true),
            ("10.0.17763", "new", false),
        ] {
            assert_eq!(runs(Some(host), Some(container)), expected, "{host} {container}");
        }
        assert!(runs(None, Some("1.1.0")) && runs(Some("1.1.0"), None));
    }
}
