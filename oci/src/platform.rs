//! Platforms in containerd's normal form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod specifier;

pub use specifier::ParsePlatformError;

/// An operating system and a processor architecture, such as `linux/arm64` or `linux/arm/v7`.
///
/// Values are in the normal form of containerd's `platforms` package: `x86_64` is `amd64`,
/// `aarch64` is `arm64` without its variant `v8`, `arm` is `arm/v7`, `amd64/v1` is `amd64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The processor architecture, a `GOARCH` value.
    pub architecture: String,
    /// The operating system, a `GOOS` value.
    pub os: String,
    /// The operating system's version, for Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The features that the operating system must have.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the architecture, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The known operating systems: Go's `GOOS` values.
    pub const SYSTEMS: &[&str] = &[
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "windows",
        "zos",
    ];
    /// The known processor architectures: Go's `GOARCH` values.
    pub const ARCHITECTURES: &[&str] = &[
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "arm64",
        "arm64be",
        "armbe",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "mipsle",
        "ppc",
        "ppc64",
        "ppc64le",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    ];

    /// Returns the platform with these parts, in normal form.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = os.to_ascii_lowercase();
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        let (architecture, variant) =
            Self::normal_architecture(architecture, variant.unwrap_or_default());
        Self { architecture, os, os_version: None, os_features: Vec::new(), variant }
    }

    /// Returns the platform that this program was built for.
    pub fn host() -> Self {
        Self::new("linux", Self::host_architecture(), None)
    }

    /// Returns the processor architecture that this program was built for.
    pub fn host_architecture() -> &'static str {
        match std::env::consts::ARCH {
            // Rust's name for the architecture. containerd doesn't know it.
            "x86" => "386",
            architecture => architecture,
        }
    }

    /// Returns containerd's normal form of an architecture and its variant.
    pub fn normal_architecture(architecture: &str, variant: &str) -> (String, Option<String>) {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        (architecture.to_owned(), (!variant.is_empty()).then(|| variant.to_owned()))
    }

    /// Returns the platform's normal form.
    #[must_use]
    pub fn normal(&self) -> Self {
        let variant = self.variant.as_deref().unwrap_or_default();
        let (architecture, variant) = Self::normal_architecture(&self.architecture, variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        let os = match self.os.to_lowercase().as_str() {
            "" => "linux".to_owned(),
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        Self { architecture, os, os_version: self.os_version.clone(), os_features, variant }
    }

    /// Returns `true` if `self` can run images for `image`: they have the same system and
    /// architecture, and the image has the same variant or none.
    pub fn accepts(&self, image: &Self) -> bool {
        self.os == image.os
            && self.architecture == image.architecture
            && (self.variant == image.variant || image.variant.is_none())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Parses a specifier like [`Platform::parse_literal`] and returns the platform's normal form.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::parse_literal(text)?.normal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("Linux/ARM/6", "linux/arm/v6"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64/v8.0", "linux/arm64"),
            ("linux/arm64/9.0", "linux/arm64/v9"),
            ("macos/aarch64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("Windows(10.0.17763+b+a%2Fc+b)/X86_64", "windows(10.0.17763+a%2Fc+b)/amd64"),
            ("linux(+x)/arm/8", "linux(+x)/arm/v8"),
            ("linux()", &Platform::host().to_string()),
            ("linux/x86", "linux/x86"),
            ("i386", "linux/386"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().specifier(), normal, "{text}");
        }
        for text in
            ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/am d64", "linux(", "linux(a)b/amd64"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
