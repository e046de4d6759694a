//! The servers of a registry.

use reqwest::Url;
use reqwest::header::HeaderMap;

use crate::connection_error::{Place, Role};
use crate::error::Problem;
use crate::hosts::{Host, Mirror, Scheme};
use crate::http::Trust;

/// A server of a registry's repositories: the registry itself or a mirror.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The host and port of the server.
    pub(crate) authority: String,
    /// The name that the server's credentials are stored under.
    pub(crate) account: String,
    /// The path before a repository's name, such as `/v2/`.
    pub(crate) path: String,
    pub(crate) scheme: Scheme,
    pub(crate) trust: Trust,
    /// The hosts that may receive the credentials in exchange for a token.
    pub(crate) token_servers: Vec<String>,
    /// The registry that this server mirrors. `None` for the registry itself.
    pub(crate) mirror_of: Option<String>,
    pub(crate) headers: HeaderMap,
}

impl Endpoint {
    /// Returns the endpoint of the registry itself.
    pub(crate) fn upstream(registry: &str, host: &Host) -> Result<Self, Problem> {
        let (authority, path) = match &host.server {
            Some(url) => {
                let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
                let path = url.path().trim_matches('/');
                let path = path.strip_suffix("v2").unwrap_or(path).trim_matches('/');
                let path = if path.is_empty() { String::new() } else { format!("{path}/") };
                (format!("{}{port}", url.host_str().unwrap_or_default()), format!("/v2/{path}"))
            }
            None => (authority(registry).to_owned(), "/v2/".to_owned()),
        };
        check(&authority)?;
        Ok(Self {
            authority,
            account: registry.to_owned(),
            path,
            scheme: host.scheme,
            trust: host.trust.clone(),
            token_servers: host.token_servers.clone(),
            mirror_of: None,
            headers: HeaderMap::new(),
        })
    }

    /// Returns the endpoint of a mirror. `host` is the configuration of the mirror as a registry.
    pub(crate) fn mirror(registry: &str, mirror: &Mirror, host: &Host) -> Result<Self, Problem> {
        check(&mirror.authority)?;
        let whole = mirror.path.starts_with('/');
        Ok(Self {
            authority: authority(&mirror.authority).to_owned(),
            account: mirror.authority.clone(),
            path: if whole { mirror.path.clone() } else { format!("/v2/{}", mirror.path) },
            scheme: mirror.scheme.unwrap_or(host.scheme),
            trust: mirror.trust.as_ref().unwrap_or(&host.trust).clone(),
            token_servers: host.token_servers.clone(),
            mirror_of: Some(registry.to_owned()),
            headers: mirror.headers.clone(),
        })
    }

    /// Returns the URL of the endpoint with this scheme.
    pub(crate) fn base(&self, scheme: &str) -> Result<Url, Problem> {
        let text = format!("{scheme}://{}{}", self.authority, self.path);
        Url::parse(&text).map_err(|_| no_address(&self.authority))
    }

    /// Returns `true` if a URL is on this server.
    pub(crate) fn serves(&self, url: &Url) -> bool {
        self.base(url.scheme()).is_ok_and(|base| same_origin(&base, url))
    }

    /// Returns the server's role for error messages.
    pub(crate) fn place(&self) -> Place {
        let role = if self.mirror_of.is_some() { Role::Mirror } else { Role::Registry };
        let has_trust = self.trust != Trust::default();
        Place { host: self.account.clone(), role, has_trust }
    }

    /// Returns the name of a repository at this endpoint.
    pub(crate) fn name(&self, repository: &str) -> String {
        let prefix = self.path.strip_prefix("/v2/").unwrap_or_default();
        format!("{prefix}{repository}")
    }
}

/// Returns the host and port that serve a registry.
fn authority(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Fails unless the text is only a host and a port.
fn check(authority: &str) -> Result<(), Problem> {
    let url = Url::parse(&format!("https://{authority}/v2/")).map_err(|_| no_address(authority))?;
    let plain = url.path() == "/v2/" && url.username().is_empty() && url.password().is_none();
    if plain && url.host_str().is_some() { Ok(()) } else { Err(no_address(authority)) }
}

fn no_address(text: &str) -> Problem {
    Problem::Document(format!("{text:?} is no address of a registry"))
}

/// Returns the host and port of a URL, in the form of configuration files.
pub(crate) fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Returns `true` if a token server may receive the credentials of a registry. It must be on the
/// same host, in the registry's domain, or listed in the configuration. Registries can name any
/// token server, so a password goes only to these.
pub(crate) fn is_of_registry(realm: &Url, base: &Url, known: &[String]) -> bool {
    let (Some(realm_host), Some(host)) = (realm.host_str(), base.host_str()) else { return false };
    if realm_host == host {
        return true;
    }
    if known.iter().any(|known| known == realm_host || *known == authority_of(realm)) {
        return true;
    }
    if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
        return false;
    }
    let within = |domain: &str| {
        let rest = realm_host.strip_suffix(domain);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let parent = host.split_once('.').map(|(_, parent)| parent);
    within(host) || parent.is_some_and(|parent| parent.contains('.') && within(parent))
}

/// Returns `true` if a URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns `true` if two URLs have the same scheme, host and port.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Returns the reason why a redirect from `from`, or its token server, must not lead to `to`.
/// Returns `None` if it may.
pub(crate) fn forbidden(from: &Url, to: &Url) -> Option<String> {
    match to.scheme() {
        "https" => None,
        "http" if from.scheme() == "http" || is_loopback(to) => None,
        "http" => Some(format!(
            "the server leads from https to plain http at {}",
            to.host_str().unwrap_or_default()
        )),
        other => Some(format!("the server leads to a {other} address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn registries_have_addresses() {
        let https = |registry| {
            let endpoint = Endpoint::upstream(registry, &Host::default()).ok()?;
            endpoint.base("https").map(|url| url.to_string()).ok()
        };
        assert_eq!(https("docker.io").as_deref(), Some("https://registry-1.docker.io/v2/"));
        assert_eq!(https("localhost:5000").as_deref(), Some("https://localhost:5000/v2/"));
        assert_eq!(https("[::1]:5000").as_deref(), Some("https://[::1]:5000/v2/"));
        for wrong in ["", "a@b", "a/b", "a?b", "a#b"] {
            assert_eq!(https(wrong), None, "{wrong}");
        }
        let host = Host { server: Some(url("https://r.example.com:1/x/v2")), ..Host::default() };
        let served = Endpoint::upstream("docker.io", &host).unwrap();
        assert_eq!(served.base("https").unwrap().as_str(), "https://r.example.com:1/v2/x/");
        assert_eq!(served.account, "docker.io");
    }

    #[test]
    fn mirrors_have_paths() {
        let mirror = Mirror::parse("https://m.example.com/hub").unwrap();
        let endpoint = Endpoint::mirror("docker.io", &mirror, &Host::default()).unwrap();
        assert_eq!(endpoint.base("https").unwrap().as_str(), "https://m.example.com/v2/hub/");
        assert_eq!(endpoint.name("library/alpine"), "hub/library/alpine");
        assert_eq!(endpoint.account, "m.example.com");
    }

    #[test]
    fn passwords_stay_in_the_registrys_domain() {
        for (registry, realm, expected) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("https://example.com", "https://auth.example.com", true),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://ghcr.io", "https://evil.io/token", false),
            ("https://a.b:5000", "https://a.b:5001", true),
            ("https://registry.example.com", "https://notexample.com", false),
            ("https://registry.example.com", "https://example.com.evil.net", false),
            ("https://10.0.0.1", "https://10.0.0.2", false),
            ("https://10.0.0.1", "https://1.0.0.1", false),
            ("https://registry.example.com", "https://known.net", true),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001", true),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5000", false),
        ] {
            let known = ["known.net".to_owned()];
            let found = is_of_registry(&url(realm), &url(registry), &known);
            assert_eq!(found, expected, "{registry} {realm}");
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for (text, loopback) in [
            ("http://localhost:1/", true),
            ("http://127.8.0.1/", true),
            ("http://[::1]/", true),
            ("http://localhost.example.org/", false),
            ("http://127.0.0.1.example.org/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(text).unwrap()), loopback, "{text}");
        }
    }

    #[test]
    fn redirects_do_not_lead_astray() {
        let https = url("https://registry.example.org/v2/");
        assert_eq!(forbidden(&https, &url("https://cdn.example.org/x")), None);
        assert_eq!(forbidden(&https, &url("http://127.0.0.1/x")), None);
        assert!(forbidden(&https, &url("http://cdn.example.org/x")).is_some());
        assert!(forbidden(&https, &url("file:///etc/passwd")).is_some());
        assert!(forbidden(&url("http://localhost/"), &url("ftp://localhost/x")).is_some());
    }
}
