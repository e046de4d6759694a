//! docker's `certs.d/HOST/` and `daemon.json`.

#![expect(clippy::disallowed_methods, reason = "the configuration is the user's")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Host, Mirror, Scheme, read_if_there};
use crate::warnings::{Warnings, json_problem};

/// Reads the certificates for a host. `*.crt` files are CA certificates. A `*.cert` file is the
/// client's own certificate, and the `*.key` file of the same name is its key.
pub(super) fn certificates(directory: &Path, name: &str) -> Result<Host, String> {
    let mut host = Host::default();
    if name.contains('/') {
        return Ok(host);
    }
    let Ok(entries) = std::fs::read_dir(directory.join(name)) else { return Ok(host) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in &files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => host.trust.roots.push(path.clone()),
            Some("cert") => {
                let key = path.with_extension("key");
                if !files.contains(&key) {
                    return Err(format!(
                        "{} has no key beside it; certificates of authorities are named *.crt",
                        path.display()
                    ));
                }
                if host.trust.identity.replace((path.clone(), key)).is_some() {
                    let path = directory.join(name);
                    return Err(format!("{} has several client certificates", path.display()));
                }
            }
            Some("key") if !files.contains(&path.with_extension("cert")) => {
                return Err(format!("{} has no certificate beside it", path.display()));
            }
            _ => {}
        }
    }
    Ok(host)
}

/// The settings of docker's engine that kiln uses.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Engine {
    insecure_registries: Vec<String>,
    registry_mirrors: Vec<String>,
}

impl Engine {
    /// Reads the first existing file.
    pub(super) fn load(paths: &[PathBuf], warnings: &Warnings) -> Self {
        for path in paths {
            let text = match read_if_there(path) {
                Ok(None) => continue,
                Ok(Some(text)) => Ok(text),
                Err(problem) => Err(problem),
            };
            let engine: Self = text.and_then(|text| Self::parse(&text)).unwrap_or_else(|problem| {
                warnings.ignored(path, &problem);
                Self::default()
            });
            for problem in
                engine.registry_mirrors.iter().filter_map(|text| Mirror::parse(text).err())
            {
                warnings.warn(format!("{}: {problem}", path.display()));
            }
            return engine;
        }
        Self::default()
    }

    fn parse(text: &str) -> Result<Self, String> {
        // serde would accept a list in place of an object, so an object is checked first.
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
            .and_then(|_| serde_json::from_str(text))
            .map_err(|error| json_problem(&error))
    }

    /// Returns the engine's settings for a host.
    pub(super) fn host(&self, name: &str) -> Host {
        let mut host = Host::default();
        if name == "docker.io" {
            let mirrors = self.registry_mirrors.iter().map(|text| Mirror::parse(text));
            host.mirrors = mirrors.filter_map(Result::ok).collect();
        }
        if self.insecure_registries.iter().any(|entry| covers(entry, name)) {
            host.scheme = Scheme::Either;
            host.trust.insecure = true;
        }
        host
    }
}

/// Returns `true` if an entry covers a registry. An entry is a host, with or without a port, or a
/// network.
fn covers(entry: &str, name: &str) -> bool {
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest).trim_end_matches('/');
    if entry == name {
        return true;
    }
    let Some((network, bits)) = entry.split_once('/') else { return false };
    let host = match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => name,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (Ok(network), Ok(bits), Ok(address)) =
        (network.parse::<IpAddr>(), bits.parse::<u32>(), host.parse::<IpAddr>())
    else {
        return false;
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= bits
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_cover_their_addresses() {
        for (entry, name, expected) in [
            ("a:5000", "a:5000", true),
            ("a", "a:5000", false),
            ("http://a:5000/", "a:5000", true),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("fd00::/8", "[fd12::1]:5000", true),
            ("10.0.0.0/8", "ten.example.com", false),
            ("10.0.0.0/99", "10.0.0.1", false),
        ] {
            assert_eq!(covers(entry, name), expected, "{entry} {name}");
        }
    }

    #[test]
    fn engines_have_mirrors_for_the_hub_alone() {
        let text = r#"{"registry-mirrors": ["https://m"], "debug": true}"#;
        let engine: Engine = serde_json::from_str(text).unwrap();
        assert_eq!(engine.host("docker.io").mirrors[0].authority, "m");
        assert_eq!(engine.host("quay.io"), Host::default());
    }

    #[test]
    fn certificates_come_in_pairs() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("a:1");
        std::fs::create_dir(&host).unwrap();
        for name in ["ca.crt", "c.cert", "c.key", "README"] {
            std::fs::write(host.join(name), "").unwrap();
        }
        let trust = certificates(dir.path(), "a:1").unwrap().trust;
        assert_eq!(trust.roots, [host.join("ca.crt")]);
        assert_eq!(trust.identity, Some((host.join("c.cert"), host.join("c.key"))));
        std::fs::remove_file(host.join("c.key")).unwrap();
        assert!(certificates(dir.path(), "a:1").unwrap_err().contains("no key"));
        assert_eq!(certificates(dir.path(), "../a:1").unwrap(), Host::default());
    }
}
