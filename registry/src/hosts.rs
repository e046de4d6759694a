//! What is configured about registries: where they are, whom to trust, and what stands in for them.
//!
//! Nothing is read before the first request. What is said about a registry is put together from
//!
//! 1. kiln's own `registries.toml` ([`registries_toml`]);
//! 2. containerd's `certs.d/HOST/hosts.toml` ([`containerd`]);
//! 3. docker's `certs.d/HOST/` and `daemon.json` ([`docker`]).
//!
//! Of mirrors, schemes and client certificates the first that says anything counts; certificates of
//! authorities and leave to trust anybody add up. TLS settings belong to a host and go with it,
//! wherever its address turns up: as a registry, a mirror, a token server or where a redirect leads.

mod containerd;
mod docker;
mod registries_toml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use reqwest::Url;
use reqwest::header::HeaderMap;

use self::docker::Engine;
use self::registries_toml::RegistriesFile;
use crate::error::Problem;
use crate::http::Trust;
use crate::warnings::Warnings;

/// Where configuration is looked for. What isn't there, or may not be read, is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSources {
    /// A `registries.toml` that was named by somebody: it has to be there.
    pub explicit: Option<PathBuf>,
    /// Its text, where it can't be read a second time.
    pub explicit_text: Option<String>,
    /// Where else it may be; the first that exists counts.
    pub registries: Vec<PathBuf>,
    /// Directories in the manner of docker's `/etc/docker/certs.d`.
    pub docker_certificates: Vec<PathBuf>,
    /// Files in the manner of docker's `/etc/docker/daemon.json`.
    pub docker_engine: Vec<PathBuf>,
    /// Directories in the manner of containerd's `/etc/containerd/certs.d`.
    pub containerd: Vec<PathBuf>,
}

/// Which scheme a host is spoken to with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `https`; what is on this machine is asked what it speaks.
    #[default]
    Usual,
    /// `https`.
    Secure,
    /// Plain `http`.
    Plain,
    /// `https`, and plain `http` where that isn't spoken.
    Either,
}

/// What is configured about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) scheme: Scheme,
    pub(crate) trust: Trust,
    /// What is asked first, in this order.
    pub(crate) mirrors: Vec<Mirror>,
    /// Where the registry really is, if somewhere else.
    pub(crate) server: Option<Url>,
    /// Whether nothing but the mirrors is asked.
    pub(crate) only_mirrors: bool,
    /// Hosts that may be told the registry's credentials in exchange for a token.
    pub(crate) token_servers: Vec<String>,
}

/// A stand-in for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Host and port.
    pub(crate) authority: String,
    /// What stands between `/v2/` and the repository's name, as `hub/`; or the whole path, with its
    /// `/` at the beginning and the end.
    pub(crate) path: String,
    pub(crate) scheme: Option<Scheme>,
    /// Whom to trust, where the mirror's own configuration doesn't count.
    pub(crate) trust: Option<Trust>,
    /// Whether names are resolved there.
    pub(crate) resolves: bool,
    /// Whether content by digest comes from there.
    pub(crate) pulls: bool,
    /// What is sent along, to the mirror alone.
    pub(crate) headers: HeaderMap,
}

impl Mirror {
    /// Reads `[http[s]://]HOST[:PORT][/PATH]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Plain), rest),
            Some(("https", rest)) => (Some(Scheme::Secure), rest),
            Some(_) => return Err(format!("{text:?} is no address of a mirror")),
            None => (None, text),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let path = path.strip_prefix("v2/").unwrap_or(if path == "v2" { "" } else { path });
        if Url::parse(&format!("https://{authority}/")).is_err()
            || authority.contains(['@', '?', '#'])
        {
            return Err(format!("{text:?} is no address of a mirror"));
        }
        let path = if path.is_empty() { String::new() } else { format!("{path}/") };
        let authority = authority.to_owned();
        Ok(Self {
            authority,
            path,
            scheme,
            trust: None,
            resolves: true,
            pulls: true,
            headers: HeaderMap::new(),
        })
    }
}

/// The hosts of which anything is known.
#[derive(Debug)]
pub(crate) struct Hosts {
    sources: HostSources,
    warnings: Warnings,
    file: OnceLock<Result<RegistriesFile, String>>,
    engine: OnceLock<Engine>,
    known: Mutex<BTreeMap<String, Arc<Host>>>,
}

impl Hosts {
    pub(crate) fn new(sources: HostSources, warnings: Warnings) -> Self {
        let (file, engine) = (OnceLock::new(), OnceLock::new());
        Self { sources, warnings, file, engine, known: Mutex::default() }
    }

    /// Returns what is configured about a host, named as in references: `docker.io`,
    /// `registry.example.org:5000`.
    pub(crate) fn of(&self, name: &str) -> Result<Arc<Host>, Problem> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.get(name) {
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(self.read(name).map_err(Problem::Config)?);
        known.insert(name.to_owned(), Arc::clone(&host));
        Ok(host)
    }

    fn read(&self, name: &str) -> Result<Host, String> {
        let file = self.file.get_or_init(|| registries_toml::load(&self.sources));
        let mut host = file.as_ref().map_err(Clone::clone)?.host(name);
        for directory in &self.sources.containerd {
            if let Some((path, found)) = containerd::load(directory, name) {
                match found {
                    Ok(found) => host.add(found),
                    Err(problem) => self.warnings.ignored(&path, &problem),
                }
                break;
            }
        }
        for directory in &self.sources.docker_certificates {
            host.add(docker::certificates(directory, name)?);
        }
        let engine =
            self.engine.get_or_init(|| Engine::load(&self.sources.docker_engine, &self.warnings));
        host.add(engine.host(name));
        if host.scheme == Scheme::Usual && host.trust != Trust::default() && !host.trust.insecure {
            // Who gives certificates means them to be looked at.
            host.scheme = Scheme::Secure;
        }
        Ok(host)
    }
}

impl Host {
    /// Adds what a less important source says.
    fn add(&mut self, other: Self) {
        if self.scheme == Scheme::Usual {
            self.scheme = other.scheme;
        }
        if self.mirrors.is_empty() {
            self.mirrors = other.mirrors;
            self.only_mirrors = other.only_mirrors;
        }
        self.server = self.server.take().or(other.server);
        self.trust.insecure |= other.trust.insecure;
        self.trust.roots.extend(other.trust.roots);
        self.trust.identity = self.trust.identity.take().or(other.trust.identity);
        self.token_servers.extend(other.token_servers);
    }
}

/// Says what is wrong with TOML, with its line.
fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// Reads a file of configuration; `None` where it isn't there, or not for us.
fn read_if_there(path: &std::path::Path) -> Result<Option<String>, String> {
    use std::io::ErrorKind;
    match std::fs::read_to_string(path) {
        Ok(text) => {
            tracing::debug!(path = %path.display(), "configuration is read");
            Ok(Some(text))
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_have_addresses() {
        let parse = |text: &str| Mirror::parse(text).map(|m| (m.authority, m.path, m.scheme));
        assert_eq!(parse("a.b:1").unwrap(), ("a.b:1".into(), String::new(), None));
        assert_eq!(
            parse("http://a/v2/hub/").unwrap(),
            ("a".into(), "hub/".into(), Some(Scheme::Plain))
        );
        assert_eq!(parse("https://a/x/y").unwrap().1, "x/y/");
        for wrong in ["", "ftp://a", "u@h", "http://", "a b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sources_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let registries = vec![
            dir.path().join("missing"),
            write("registries.toml", "[registry.\"a:1\"]\nmirrors = [\"m1\"]\nca = [\"x.pem\"]\n"),
        ];
        write("certs/a:1/ca.crt", "");
        write("certs/b/ca.crt", "");
        write("containerd/a:1/hosts.toml", "server = \"https://c\"\n[host.\"https://m2\"]\n");
        let engine = write("daemon.json", r#"{"insecure-registries": ["d"]}"#);
        let sources = HostSources {
            registries,
            docker_certificates: vec![dir.path().join("certs"), dir.path().join("none")],
            docker_engine: vec![engine],
            containerd: vec![dir.path().join("containerd")],
            ..HostSources::default()
        };
        let hosts = Hosts::new(sources, Warnings::default());
        let a = hosts.of("a:1").unwrap();
        assert_eq!(a.mirrors.len(), 1);
        assert_eq!(a.mirrors[0].authority, "m1");
        assert_eq!(a.server.as_ref().unwrap().as_str(), "https://c/");
        let roots = [dir.path().join("x.pem"), dir.path().join("certs/a:1/ca.crt")];
        assert_eq!(a.trust.roots, roots);
        assert_eq!(a.scheme, Scheme::Secure);
        assert_eq!(hosts.of("b").unwrap().trust.roots.len(), 1);
        assert_eq!(hosts.of("d").unwrap().scheme, Scheme::Either);
        assert_eq!(*hosts.of("e").unwrap(), Host::default());
    }

    #[test]
    fn broken_configuration_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.toml");
        let explicit =
            |path: &PathBuf| HostSources { explicit: Some(path.clone()), ..HostSources::default() };
        let problem =
            Hosts::new(explicit(&path), Warnings::default()).of("a").unwrap_err().to_string();
        assert!(problem.contains("registries.toml"), "{problem}");
        for (text, part) in [
            ("[registry", "registries.toml"),
            ("[registry.a]\nmirors = []", "mirors"),
            ("[registry.a]\nmirrors = [\"ftp://x\"]", "ftp://x"),
            ("[registry.a]\nhttp = true\nca = [\"x\"]", "http"),
        ] {
            std::fs::write(&path, text).unwrap();
            let problem =
                Hosts::new(explicit(&path), Warnings::default()).of("a").unwrap_err().to_string();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn configuration_of_others_is_ignored_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let engine = dir.path().join("daemon.json");
        let containerd = dir.path().join("certs.d");
        std::fs::create_dir_all(containerd.join("a")).unwrap();
        let warned = Arc::new(Mutex::new(Vec::new()));
        let found = |json: &[u8], toml: &str| {
            std::fs::write(&engine, json).unwrap();
            std::fs::write(containerd.join("a/hosts.toml"), toml).unwrap();
            let sources = HostSources {
                docker_engine: vec![engine.clone()],
                containerd: vec![containerd.clone()],
                ..HostSources::default()
            };
            let told = Arc::clone(&warned);
            let warnings = Warnings::to(move |text| told.lock().unwrap().push(text));
            let hosts = Hosts::new(sources, warnings);
            let found = [hosts.of("a").unwrap(), hosts.of("docker.io").unwrap()];
            (found.map(|host| host.mirrors.len()), std::mem::take(&mut *warned.lock().unwrap()))
        };
        let mirrors = "{\n  \"registry-mirrors\": [\"https://m\"]";
        let good = format!("{mirrors}\n}}");
        assert_eq!(found(good.as_bytes(), "[host.\"https://b\"]"), ([1, 1], Vec::new()));
        let (count, told) = found(format!("{mirrors},\n}}").as_bytes(), "[host.\"https://b\"]");
        assert_eq!(count, [1, 0]);
        let problem =
            "daemon.json: invalid JSON: trailing comma at line 3 column 1; the file is ignored";
        assert!(told.len() == 1 && told[0].ends_with(problem), "{told:?}");
        for (json, part) in [
            (&b"\xff"[..], "daemon.json"),
            (b"[]", "daemon.json: not the expected values at line 1"),
            (b"{\"registry-mirrors\": [\"ftp://x\"]}", "\"ftp://x\" is no address of a mirror"),
        ] {
            let (_, told) = found(json, "");
            assert!(told.len() == 1 && told[0].contains(part), "{told:?}");
        }
        for (toml, part) in [
            ("server = \"x\"\n[host", "hosts.toml: line 2: "),
            ("[host.\"ftp://x\"]", "ftp://x"),
            ("skip_verify = 1", "hosts.toml: "),
        ] {
            let (count, told) = found(b"{}", toml);
            assert_eq!(count, [0, 0]);
            assert!(told.len() == 1 && told[0].contains(part), "{told:?}");
        }
    }
}
