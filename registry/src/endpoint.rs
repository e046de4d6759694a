//! Where a registry is.

use reqwest::Url;

use crate::error::Problem;

/// Returns the host and port at which a registry is served.
pub(crate) fn authority(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Returns the registry's address with this scheme.
pub(crate) fn base(scheme: &str, registry: &str) -> Result<Url, Problem> {
    let text = format!("{scheme}://{}/v2/", authority(registry));
    let wrong = || Problem::Document(format!("{registry:?} is no address of a registry"));
    let url = Url::parse(&text).map_err(|_| wrong())?;
    // What isn't all host and port would lead elsewhere.
    let plain = url.path() == "/v2/" && url.username().is_empty() && url.password().is_none();
    if plain && url.host_str().is_some() { Ok(url) } else { Err(wrong()) }
}

/// Tells whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Tells whether two URLs lead to the same server.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Says why a redirect or a token server at `to` is not gone to from `from`, if it isn't.
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

    #[test]
    fn registries_have_addresses() {
        let https = |registry| base("https", registry).map(|url| url.to_string()).ok();
        assert_eq!(https("docker.io").as_deref(), Some("https://registry-1.docker.io/v2/"));
        assert_eq!(https("localhost:5000").as_deref(), Some("https://localhost:5000/v2/"));
        assert_eq!(https("[::1]:5000").as_deref(), Some("https://[::1]:5000/v2/"));
        for wrong in ["", "a@b", "a/b", "a?b", "a#b"] {
            assert_eq!(https(wrong), None, "{wrong}");
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
        let url = |text: &str| Url::parse(text).unwrap();
        let https = url("https://registry.example.org/v2/");
        assert_eq!(forbidden(&https, &url("https://cdn.example.org/x")), None);
        assert_eq!(forbidden(&https, &url("http://127.0.0.1/x")), None);
        assert!(forbidden(&https, &url("http://cdn.example.org/x")).is_some());
        assert!(forbidden(&https, &url("file:///etc/passwd")).is_some());
        assert!(forbidden(&url("http://localhost/"), &url("ftp://localhost/x")).is_some());
    }
}
