//! Platforms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and a processor architecture, as `linux/arm64` or `linux/arm/v7`.
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
    /// Features of the operating system that are needed.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the architecture, as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    /// A component is empty or has characters other than letters, digits, `_`, `-` and `.`.
    #[error(
        "{component:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component {
        /// The whole text.
        text: String,
        /// The offending component.
        component: String,
    },
    /// There are more than three components.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    Form(String),
    /// A single word is neither an operating system nor an architecture.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
}

impl Platform {
    /// The operating systems that there are: Go's `GOOS` values.
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
    /// The processor architectures that there are: Go's `GOARCH` values.
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
            // Rust's name, which is none of containerd's.
            "x86" => "386",
            architecture => architecture,
        }
    }

    /// Returns the normal form of an architecture and its variant, as containerd has it.
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

    /// Tells whether images for `image` run where `self` is asked for: the same system and
    /// architecture, and a variant that is the same or not given.
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

    /// Parses `OS`, `ARCHITECTURE`, `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if part.is_empty() || !part.bytes().all(valid) {
                return Err(ParsePlatformError::Component {
                    text: text.to_owned(),
                    component: (*part).to_owned(),
                });
            }
        }
        match *parts.as_slice() {
            [word] => {
                let system = word.to_ascii_lowercase();
                if system == "macos" || Self::SYSTEMS.contains(&system.as_str()) {
                    return Ok(Self::new(word, Self::host_architecture(), None));
                }
                let (architecture, variant) = Self::normal_architecture(word, "");
                if Self::ARCHITECTURES.contains(&architecture.as_str()) {
                    return Ok(Self::new("linux", &architecture, variant.as_deref()));
                }
                Err(ParsePlatformError::Unknown(text.to_owned()))
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(ParsePlatformError::Form(text.to_owned())),
        }
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
            ("linux/x86", "linux/x86"),
            ("i386", "linux/386"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal, "{text}");
        }
        for text in ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
