//! The options of `kiln serve`, from its arguments and from a `buildkitd.toml`.

#![expect(clippy::disallowed_methods, reason = "the user names the file")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_server::{HistoryLimits, Options};
use kiln_worker::{NETWORK_HOST, SECURITY_INSECURE};
use toml::{Table, Value};

use super::{Settings, absolute};
use crate::arguments::serve::ServeArguments;

/// The keys of a `buildkitd.toml` that have a meaning here.
const KNOWN: [&str; 4] = ["debug", "grpc", "insecure-entitlements", "registry"];

/// The options of a server, its sockets, and warnings about what has no effect.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The options of the server.
    pub(crate) options: Options,
    /// The paths of the sockets.
    pub(crate) sockets: Vec<PathBuf>,
    /// The number of the group that may use the sockets.
    pub(crate) group: Option<u32>,
    /// The warnings.
    pub(crate) warnings: Vec<String>,
}

impl Serving {
    /// Combines arguments and configuration.
    ///
    /// # Errors
    /// Fails if an argument or the configuration is invalid.
    pub(crate) fn new(arguments: &ServeArguments, settings: &Settings) -> Result<Self> {
        let mut document = Document::default();
        if let Some(path) = &arguments.config {
            document = Document::read(path)?;
        }
        let mut registries = settings.registries.clone();
        if let (Some(text), Some(path)) = (&document.registries, &arguments.config) {
            registries.configure(path, text);
        }
        let mut entitlements = arguments.allow.clone();
        entitlements.append(&mut document.entitlements);
        for right in &entitlements {
            if ![NETWORK_HOST, SECURITY_INSECURE].contains(&right.as_str()) {
                bail!("no right {right:?}: {NETWORK_HOST} or {SECURITY_INSECURE}");
            }
        }
        let engine = kiln::Options {
            registries: registries.client(),
            ssh_agent: None,
            ..settings.options()
        };
        let addresses =
            if arguments.addr.is_empty() { document.addresses } else { arguments.addr.clone() };
        let sockets = if addresses.is_empty() {
            vec![default_socket()?]
        } else {
            addresses.iter().map(|address| socket(address)).collect::<Result<_>>()?
        };
        Ok(Self {
            options: Options {
                engine,
                registries: registries.options(),
                entitlements,
                labels: arguments.label.iter().map(|text| label(text)).collect::<Result<_>>()?,
                history: HistoryLimits::default(),
            },
            sockets,
            group: arguments.group.as_deref().map(group).transpose()?,
            warnings: document.warnings,
        })
    }
}

/// The part of a `buildkitd.toml` that has a meaning here.
#[derive(Debug, Default)]
struct Document {
    addresses: Vec<String>,
    entitlements: Vec<String>,
    /// The part about registries, as a document of its own.
    registries: Option<String>,
    warnings: Vec<String>,
}

impl Document {
    fn read(path: &Path) -> Result<Self> {
        let about = || format!("read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(about)?;
        Self::parse(&text).with_context(about)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut table: Table = text.parse()?;
        let unknown = table.keys().filter(|key| !KNOWN.contains(&key.as_str()));
        let warnings =
            unknown.map(|key| format!("{key} in the configuration has no effect on kiln"));
        let warnings = warnings.collect();
        let addresses = match table.get("grpc").and_then(|grpc| grpc.get("address")) {
            None => Vec::new(),
            Some(addresses) => texts(addresses).context("address of grpc")?,
        };
        let entitlements = match table.get("insecure-entitlements") {
            None => Vec::new(),
            Some(names) => texts(names).context("insecure-entitlements")?,
        };
        let registries = table
            .remove("registry")
            .map(|registries| Table::from_iter([("registry".to_owned(), registries)]).to_string());
        Ok(Self { addresses, entitlements, registries, warnings })
    }
}

fn texts(value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().context("it is no list")?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("it is no list of texts");
    list.iter().map(text).collect()
}

fn socket(address: &str) -> Result<PathBuf> {
    match address.strip_prefix("unix://") {
        Some(path) if Path::new(path).is_absolute() => Ok(path.into()),
        _ => bail!("{address:?} is no address to listen on: unix:///path/to/socket"),
    }
}

fn default_socket() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/run/kiln/serve.sock"));
    }
    let run = absolute("XDG_RUNTIME_DIR").context("no directory for the socket: set --addr")?;
    Ok(run.join("kiln/serve.sock"))
}

fn label(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        bail!("invalid label {text:?}: NAME=VALUE");
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn group(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = nix::unistd::Group::from_name(name).context("look up a group")?;
    Ok(found.with_context(|| format!("there is no group {name}"))?.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildkits_configuration_is_read() {
        let text = "insecure-entitlements = [\"security.insecure\"]\n[worker.oci]\nenabled = true\n\
                    [grpc]\naddress = [\"unix:///a\"]\n[registry.\"docker.io\"]\nmirrors = [\"m:5000\"]\n";
        let document = Document::parse(text).unwrap();
        assert_eq!(document.entitlements, ["security.insecure"]);
        assert_eq!(document.addresses, ["unix:///a"]);
        assert_eq!(document.warnings, ["worker in the configuration has no effect on kiln"]);
        let registries: Table = document.registries.unwrap().parse().unwrap();
        assert_eq!(registries["registry"]["docker.io"]["mirrors"][0].as_str(), Some("m:5000"));
        assert!(Document::parse("insecure-entitlements = 1").is_err());
    }

    #[test]
    fn addresses_are_sockets() {
        assert_eq!(socket("unix:///run/s").unwrap(), PathBuf::from("/run/s"));
        for address in ["tcp://0.0.0.0:1", "unix://s", "/run/s"] {
            assert!(socket(address).is_err(), "{address}");
        }
    }
}
