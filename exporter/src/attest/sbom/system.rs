//! Which distribution an image is of. (`os-release(5)`)

use super::source::{Files, MANIFEST};
use crate::error::Result;

/// What an image says it is of. Members that it doesn't say are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct System {
    /// Its short name, as `debian`.
    pub(crate) id: String,
    /// Its version, as `12`.
    pub(crate) version: String,
    /// Its name for people.
    pub(crate) name: String,
}

impl System {
    /// Reads what the image says.
    pub(crate) fn read(files: &Files<'_>) -> Result<Self> {
        for path in ["etc/os-release", "usr/lib/os-release"] {
            if let Some(bytes) = files.read(path, MANIFEST)? {
                return Ok(Self::parse(&String::from_utf8_lossy(&bytes)));
            }
        }
        Ok(Self::default())
    }

    fn parse(text: &str) -> Self {
        let mut system = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once('=') else { continue };
            let value = value.trim_matches(['"', '\'']).to_owned();
            match name {
                "ID" => system.id = value.to_ascii_lowercase(),
                "VERSION_ID" => system.version = value,
                "PRETTY_NAME" => system.name = value,
                _ => {}
            }
        }
        system
    }

    /// Returns the namespace of its packages' URLs, or `other` where it has no name.
    pub(crate) fn namespace<'a>(&'a self, other: &'a str) -> &'a str {
        if self.id.is_empty() { other } else { &self.id }
    }

    /// Returns what URLs of packages say of it, as `debian-12`.
    pub(crate) fn distro(&self) -> String {
        match (self.id.as_str(), self.version.as_str()) {
            (id, "") => id.to_owned(),
            ("", version) => version.to_owned(),
            (id, version) => format!("{id}-{version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_say_what_they_are() {
        let text =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n# ID=x\nVERSION_ID='12'\nID=Debian\n";
        let system = System::parse(text);
        assert_eq!(system.name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(system.distro(), "debian-12");
        assert_eq!(System::parse("ID=arch").distro(), "arch");
        assert_eq!(System::default().namespace("alpine"), "alpine");
    }
}
