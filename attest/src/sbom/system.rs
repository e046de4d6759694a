//! The distribution of an image. (`os-release(5)`)

use super::source::{Files, MANIFEST};
use crate::error::Result;

/// The distribution that an image's `os-release` declares. Missing members are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct System {
    /// The short name, as `debian`.
    pub(crate) id: String,
    /// The version number, as `12`.
    pub(crate) version: String,
    /// The full name and version for display.
    pub(crate) name: String,
}

impl System {
    /// Reads `os-release`. Returns empty members if the image has none.
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

    /// Returns the namespace of the package URLs: the short name, or `other` if it is empty.
    pub(crate) fn namespace<'a>(&'a self, other: &'a str) -> &'a str {
        if self.id.is_empty() { other } else { &self.id }
    }

    /// Returns the value of package URLs' `distro` qualifier, as `debian-12`.
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
