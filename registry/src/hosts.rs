//! The configuration of registries: addresses, certificates and mirrors.
//!
//! The files are read at the first request. The configuration of a registry combines
//!
//! 1. kiln's own `registries.toml` (`registries_toml`);
//! 2. containerd's `certs.d/HOST/hosts.toml` (`containerd`);
//! 3. docker's `certs.d/HOST/` and `daemon.json` (`docker`).
//!
//! The first source that sets them determines the mirrors, the scheme and the client certificate.
//! CA certificates and `insecure` add up. TLS settings belong to a host. They apply wherever the
//! host occurs: as a registry, a mirror, a token server or the target of a redirect.

#![expect(clippy::disallowed_methods, reason = "the configuration is the user's")]

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

/// The paths of configuration files. Missing and unreadable files are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSources {
    /// The `registries.toml` that the user named. It must exist.
    pub explicit: Option<PathBuf>,
    /// The content of the explicit file, if it can't be read twice.
    pub explicit_text: Option<String>,
    /// The default paths of `registries.toml`. The first existing file is used.
    pub registries: Vec<PathBuf>,
    /// Directories in the format of docker's `/etc/docker/certs.d`.
    pub docker_certificates: Vec<PathBuf>,
    /// Files in the format of docker's `/etc/docker/daemon.json`.
    pub docker_engine: Vec<PathBuf>,
    /// Directories in the format of containerd's `/etc/containerd/certs.d`.
    pub containerd: Vec<PathBuf>,
}

/// The URL scheme of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `https`. On this machine, the client probes which scheme the server speaks.
    #[default]
    Usual,
    /// `https` without exception.
    Secure,
    /// Plain `http` without exception.
    Plain,
    /// `https`, or plain `http` if the server doesn't speak TLS.
    Either,
}

/// The configuration of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) scheme: Scheme,
    pub(crate) trust: Trust,
    /// The mirrors, in the order of requests.
    pub(crate) mirrors: Vec<Mirror>,
    /// The URL of the registry, if it isn't the host itself.
    pub(crate) server: Option<Url>,
    /// `true` if requests go to the mirrors only.
    pub(crate) only_mirrors: bool,
    /// The hosts that may receive the registry's credentials in exchange for a token.
    pub(crate) token_servers: Vec<String>,
}

/// A configured mirror of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The host and port of the mirror.
    pub(crate) authority: String,
    /// The path between `/v2/` and the repository's name, such as `hub/`. With a leading `/`, the
    /// whole path before the name. It ends with `/`.
    pub(crate) path: String,
    pub(crate) scheme: Option<Scheme>,
    /// The TLS settings that replace those of the mirror's host.
    pub(crate) trust: Option<Trust>,
    /// `true` if the mirror may resolve tags.
    pub(crate) resolves: bool,
    /// `true` if the mirror may serve content by digest.
    pub(crate) pulls: bool,
    /// The additional headers of requests to the mirror.
    pub(crate) headers: HeaderMap,
}

impl Mirror {
    /// Parses `[http[s]://]HOST[:PORT][/PATH]`.
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

/// The configuration of all hosts, read on demand.
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

    /// Returns the configuration of a host. Hosts are named as in references: `docker.io`,
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
            // Configured certificates must not be bypassed by plain HTTP.
            host.scheme = Scheme::Secure;
        }
        Ok(host)
    }
}

impl Host {
    /// Adds the settings of a source of lower precedence.
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

/// Returns the message of a TOML error with its line number.
fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// Reads a configuration file. Returns `None` if it is missing or access is denied.
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
