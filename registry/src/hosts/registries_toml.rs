//! kiln's own `registries.toml`, with the keys of BuildKit's `buildkitd.toml`.

#![expect(clippy::disallowed_methods, reason = "the configuration is the user's")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Host, HostSources, Mirror, Scheme, read_if_there, toml_problem};
use crate::http::Trust;

/// The content of a `registries.toml`, by host.
#[derive(Debug, Default)]
pub(super) struct RegistriesFile(BTreeMap<String, Host>);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    registry: BTreeMap<String, WrittenRegistry>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenRegistry {
    mirrors: Vec<String>,
    #[serde(rename = "only-mirrors")]
    only_mirrors: bool,
    http: Option<bool>,
    insecure: bool,
    ca: Vec<PathBuf>,
    keypair: Vec<Keypair>,
    #[serde(rename = "token-servers")]
    token_servers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keypair {
    cert: PathBuf,
    key: PathBuf,
}

impl RegistriesFile {
    /// Returns the file's settings for a host.
    pub(super) fn host(&self, name: &str) -> Host {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// Reads the explicit file, or else the first existing default file.
pub(super) fn load(sources: &HostSources) -> Result<RegistriesFile, String> {
    if let Some(path) = &sources.explicit {
        if let Some(text) = &sources.explicit_text {
            return parse(path, text);
        }
        let text = std::fs::read_to_string(path);
        return parse(path, &text.map_err(|error| format!("read {}: {error}", path.display()))?);
    }
    for path in &sources.registries {
        if let Some(text) = read_if_there(path)? {
            return parse(path, &text);
        }
    }
    Ok(RegistriesFile::default())
}

fn parse(path: &Path, text: &str) -> Result<RegistriesFile, String> {
    let named = |problem: String| format!("{}: {problem}", path.display());
    let written = toml::from_str(text).map_err(|error| named(toml_problem(text, &error)));
    let written: Written = written?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut hosts = BTreeMap::new();
    for (name, registry) in written.registry {
        let host = registry
            .host(directory)
            .map_err(|problem| named(format!("registry {name:?}: {problem}")))?;
        hosts.insert(name, host);
    }
    Ok(RegistriesFile(hosts))
}

impl WrittenRegistry {
    fn host(self, directory: &Path) -> Result<Host, String> {
        let mut pairs = self.keypair.into_iter();
        let identity =
            pairs.next().map(|pair| (directory.join(pair.cert), directory.join(pair.key)));
        if pairs.next().is_some() {
            return Err("there can be one keypair only".to_owned());
        }
        let roots = self.ca.iter().map(|path| directory.join(path)).collect();
        let trust = Trust { insecure: self.insecure, roots, identity };
        let scheme = match self.http {
            Some(true) if trust != Trust::default() => {
                return Err("http = true leaves no use for insecure, ca and keypair".to_owned());
            }
            Some(true) => Scheme::Plain,
            Some(false) => Scheme::Secure,
            None => Scheme::Usual,
        };
        let mirrors = self.mirrors.iter().map(|text| Mirror::parse(text));
        Ok(Host {
            scheme,
            trust,
            mirrors: mirrors.collect::<Result<_, _>>()?,
            server: None,
            only_mirrors: self.only_mirrors,
            token_servers: self.token_servers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read() {
        let text = r#"
            [registry."docker.io"]
            mirrors = ["mirror.example.com/hub", "http://10.0.0.1:5000"]
            only-mirrors = true
            [registry."a.example.com:5000"]
            insecure = true
            ca = ["ca.pem", "/etc/ca.pem"]
            token-servers = ["auth.example.net"]
            [[registry."a.example.com:5000".keypair]]
            cert = "c.pem"
            key = "k.pem"
            [registry.plain]
            http = true
        "#;
        let file = parse(Path::new("/conf/registries.toml"), text).unwrap();
        let hub = file.host("docker.io");
        assert_eq!((hub.mirrors.len(), hub.only_mirrors), (2, true));
        let a = file.host("a.example.com:5000");
        assert_eq!(a.trust.roots, [Path::new("/conf/ca.pem"), Path::new("/etc/ca.pem")]);
        assert_eq!(a.trust.identity, Some(("/conf/c.pem".into(), "/conf/k.pem".into())));
        assert!(a.trust.insecure);
        assert_eq!(a.token_servers, ["auth.example.net"]);
        assert_eq!(file.host("plain").scheme, Scheme::Plain);
        assert_eq!(file.host("other"), Host::default());
    }
}
