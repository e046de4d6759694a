//! Configuration of registries: credentials, hosts and proxies.

#![expect(clippy::disallowed_methods, reason = "the command line reads the environment")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use kiln_registry::{
    Client, CredentialFiles, HostSources, MinimumSpeed, Options, Proxies, Warnings,
};

use super::once::Sources;

/// The most bytes of a `registries.toml` that can be read only once.
const CONFIG_LIMIT: u64 = 1 << 20;

/// The configuration of registries from the environment.
#[derive(Clone, Debug)]
pub(crate) struct Registries {
    credentials: Vec<PathBuf>,
    hosts: HostSources,
    proxies: Proxies,
    warnings: Warnings,
    /// The minimum speed of a server; `None` for no limit.
    pub(crate) pace: Option<MinimumSpeed>,
    /// The most transfers from and to a registry at once; `None` for the default.
    pub(crate) transfers: Option<usize>,
}

impl Registries {
    /// Gathers the configuration. `explicit` is the path of the `registries.toml` on the command
    /// line.
    ///
    /// # Errors
    /// Fails if `explicit` can be read only once, and the reading fails.
    pub(crate) fn of_environment(explicit: Option<PathBuf>, warnings: Warnings) -> Result<Self> {
        let text = match &explicit {
            Some(path) => Sources::default().read(path, CONFIG_LIMIT)?,
            None => None,
        };
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let mut registries = Self::gather(explicit, variable);
        registries.hosts.explicit_text =
            text.map(|text| String::from_utf8_lossy(&text).into_owned());
        registries.warnings = warnings;
        Ok(registries)
    }

    fn gather(explicit: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let directory = |name: &str| {
            variable(name).map(PathBuf::from).filter(|directory| directory.is_absolute())
        };
        let home = directory("HOME");
        let config = directory("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let docker = variable("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let credentials = [
            variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
            docker.map(|directory| directory.join("config.json")),
            directory("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json")),
        ];
        let own = |name: &str| config.as_ref().map(|config| config.join(name));
        let both = |system: &str, own: Option<PathBuf>| {
            own.into_iter().chain([PathBuf::from(system)]).collect::<Vec<_>>()
        };
        let hosts = HostSources {
            explicit,
            explicit_text: None,
            registries: both("/etc/kiln/registries.toml", own("kiln/registries.toml")),
            docker_certificates: [
                both("/etc/docker/certs.d", own("docker/certs.d")),
                both("/etc/containers/certs.d", own("containers/certs.d")),
            ]
            .concat(),
            docker_engine: both("/etc/docker/daemon.json", own("docker/daemon.json")),
            containerd: vec![PathBuf::from("/etc/containerd/certs.d")],
        };
        let proxy = |upper: &str, lower: &str| {
            variable(upper).or_else(|| variable(lower)).and_then(|value| value.into_string().ok())
        };
        // In a CGI program, this variable holds a header of the client's request.
        let is_cgi = variable("REQUEST_METHOD").is_some();
        let http = if is_cgi { None } else { proxy("HTTP_PROXY", "http_proxy") };
        let proxies = Proxies {
            http,
            https: proxy("HTTPS_PROXY", "https_proxy"),
            all: proxy("ALL_PROXY", "all_proxy"),
            none: proxy("NO_PROXY", "no_proxy"),
        };
        let credentials = credentials.into_iter().flatten().collect();
        let (warnings, pace) = (Warnings::default(), Some(MinimumSpeed::default()));
        Self { credentials, hosts, proxies, warnings, pace, transfers: None }
    }

    /// Takes the configuration of hosts from a text, which is a part of the file at `path`.
    pub(crate) fn configure(&mut self, path: &Path, text: &str) {
        self.hosts.explicit = Some(path.to_owned());
        self.hosts.explicit_text = Some(text.to_owned());
    }

    /// Returns a client. It reads configuration files only when it needs them.
    pub(crate) fn client(&self) -> Client {
        Client::new(Options { credentials: Arc::new(self.credentials()), ..self.options() })
    }

    /// Returns the options of a client without credentials.
    pub(crate) fn options(&self) -> Options {
        let defaults = Options::default();
        let per_registry = self.transfers.unwrap_or(defaults.per_registry);
        Options {
            hosts: self.hosts.clone(),
            proxies: self.proxies.clone(),
            warnings: self.warnings.clone(),
            pace: self.pace,
            per_registry,
            downloads: defaults.downloads.max(per_registry),
            uploads: defaults.uploads.max(per_registry),
            ..defaults
        }
    }

    /// Returns the receiver of warnings about other programs' configuration files.
    pub(crate) fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Returns the files that hold credentials.
    pub(crate) fn credentials(&self) -> CredentialFiles {
        CredentialFiles::new(self.credentials.clone()).warning(self.warnings.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(variables: &[(&str, &str)]) -> Registries {
        Registries::gather(None, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn credentials_have_several_places() {
        let places = |variables: &[(&str, &str)]| gather(variables).credentials;
        let path = PathBuf::from;
        assert_eq!(places(&[("HOME", "/h")]), [path("/h/.docker/config.json")]);
        assert_eq!(
            places(&[
                ("HOME", "/h"),
                ("DOCKER_CONFIG", "/d"),
                ("REGISTRY_AUTH_FILE", "/a.json"),
                ("XDG_RUNTIME_DIR", "/run/user/1"),
            ]),
            [path("/a.json"), path("/d/config.json"), path("/run/user/1/containers/auth.json")]
        );
    }

    #[test]
    fn configuration_is_the_users_first() {
        let hosts = gather(&[("HOME", "/h")]).hosts;
        let own = PathBuf::from("/h/.config/kiln/registries.toml");
        assert_eq!(hosts.registries, [own, "/etc/kiln/registries.toml".into()]);
        let certificates =
            ["/h/.config/docker", "/etc/docker", "/h/.config/containers", "/etc/containers"];
        assert_eq!(
            hosts.docker_certificates,
            certificates.map(|it| PathBuf::from(it).join("certs.d"))
        );
        let hosts = gather(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]).hosts;
        assert_eq!(hosts.registries[0], PathBuf::from("/x/kiln/registries.toml"));
    }

    #[test]
    fn proxies_have_two_spellings() {
        let text = Some("p:1".to_owned());
        let proxies = gather(&[("http_proxy", "p:1"), ("HTTPS_PROXY", "p:1")]).proxies;
        assert_eq!((proxies.http, proxies.https), (text.clone(), text));
        let proxies = gather(&[("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")]).proxies;
        assert_eq!(proxies.http, None);
    }
}
