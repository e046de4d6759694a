//! Access to repositories, and the credentials for it.
//!
//! Credentials are bound to a scheme, a host and a port. Git sends a header that it is configured with
//! after redirects too, wherever they lead. So git follows none where it has credentials: the first
//! redirect is resolved here. One within the same origin gives the address that git asks, with the
//! credentials; one that leads elsewhere is followed by a git that has none.
//!
//! A password of an address goes to the address that it is a part of. Secrets go over `https` alone: a
//! secret that names a host (`GIT_AUTH_TOKEN.HOST`, with or without a port) to that host, another one
//! to the hosts of contexts that the user has named. A Dockerfile can name any host, and gets no
//! secret for it.

use kiln_registry::FetchRequest;

use super::GitSource;
use super::reference::Remote;
use crate::error::{Error, Result};
use crate::source::http::{authority, host};
use crate::source::remote::Remotes;

/// The path below a repository's address that git asks for first.
const SERVICE: &str = "/info/refs";
/// Servers give a program that isn't git another page.
const AGENT: (&str, &str) = ("user-agent", "git/2");

/// How a repository is reached.
#[derive(Debug)]
pub(super) struct Access {
    /// The address that git asks.
    pub(super) url: String,
    /// The configuration that gives git its credentials; empty where it has none.
    pub(super) configuration: Vec<(String, String)>,
    /// Why a secret isn't used.
    pub(super) withheld: Option<String>,
}

impl Access {
    /// Finds out how a source is reached.
    pub(super) async fn find(source: &GitSource, remotes: &Remotes) -> Result<Self> {
        let url = source.remote.url().to_owned();
        let mut access = Self { url, configuration: Vec::new(), withheld: None };
        let Some(value) = access.authorization(source, remotes)? else { return Ok(access) };
        let request = FetchRequest {
            url: format!("{}{SERVICE}?service=git-upload-pack", access.url.trim_end_matches('/')),
            headers: vec![(AGENT.0.to_owned(), AGENT.1.to_owned())],
            authorization: Some(value.clone()),
            ..FetchRequest::default()
        };
        // A server that can't be asked is one that git complains about.
        if let Ok((end, is_same)) = remotes.client.leads_to(&request).await
            && end != request.url
            && let Some((moved, _)) = end.rsplit_once(SERVICE)
        {
            moved.clone_into(&mut access.url);
            if !is_same {
                let host = authority(moved);
                tracing::debug!(host, "a redirect is followed without credentials");
                access.withheld = Some(format!("a redirect to {host} gets no credentials"));
                return Ok(access);
            }
        }
        access.configuration = configuration(&access.url, &value);
        Ok(access)
    }

    /// Returns the header that secrets give, else user and password of the URL.
    fn authorization(&mut self, source: &GitSource, remotes: &Remotes) -> Result<Option<String>> {
        if !source.remote.is_http() {
            return Ok(None);
        }
        let url = source.remote.url();
        let names = [(&source.header_secret, false), (&source.token_secret, true)];
        let hosts = [Some(authority(url)), Some(host(url)), None];
        for (of, (name, is_token)) in hosts.iter().flat_map(|of| names.map(|name| (of, name))) {
            if name.is_empty() {
                continue;
            }
            let id = of.map_or_else(|| name.clone(), |of| format!("{name}.{of}"));
            let Some(value) = remotes.secrets.get(&id, true)? else { continue };
            if let Err(why) = may_have(url, of.is_some(), &remotes.options.contexts) {
                self.withheld.get_or_insert_with(|| format!("the secret {id} isn't sent: {why}"));
                continue;
            }
            return header(&id, is_token, value.trim_ascii_end()).map(Some);
        }
        Ok(source.remote.credentials().map(basic))
    }
}

/// Tells whether the server of an address may have a secret: one that names its host (`is_named`), or
/// one for the hosts of contexts.
fn may_have(url: &str, is_named: bool, contexts: &[String]) -> std::result::Result<(), String> {
    if !url.starts_with("https://") {
        return Err("it would go over plain http".to_owned());
    }
    let is_context = |context: &String| {
        let context = context.split('#').next().unwrap_or_default();
        Remote::parse(context).is_ok_and(|remote| {
            remote.is_http() && remote.url().starts_with("https://") && same_host(remote.url(), url)
        })
    };
    if is_named || contexts.iter().any(is_context) {
        return Ok(());
    }
    Err(format!("no context is on that host, and a secret for it has .{} at its end", host(url)))
}

/// Tells whether two addresses of `https` have the same host and port.
fn same_host(one: &str, other: &str) -> bool {
    let full = |url: &str| {
        let authority = authority(url).to_ascii_lowercase();
        authority.strip_suffix(":443").map_or(authority.clone(), str::to_owned)
    };
    full(one) == full(other)
}

/// Returns the value of the header that a secret gives.
fn header(id: &str, is_token: bool, value: &[u8]) -> Result<String> {
    if is_token {
        return Ok(basic(&[b"x-access-token:", value].concat()));
    }
    let value = String::from_utf8_lossy(value);
    if value.contains(char::is_control) {
        return Err(Error::Invalid(format!("secret {id}: no value of a header")));
    }
    Ok(value.into_owned())
}

/// Returns the configuration that has git send a header to an address, and follow no redirect from it.
fn configuration(url: &str, value: &str) -> Vec<(String, String)> {
    let scope = token_scope(url);
    vec![
        (format!("http.{scope}.extraHeader"), format!("Authorization: {value}")),
        (format!("http.{scope}.followRedirects"), "false".to_owned()),
    ]
}

fn basic(credentials: &[u8]) -> String {
    format!("basic {}", base64(credentials))
}

/// Returns the addresses that a token is sent to: the repository's, all of its host for GitHub,
/// where submodules mostly are on the same.
fn token_scope(url: &str) -> &str {
    ["https://github.com/", "https://www.github.com/"]
        .into_iter()
        .find(|prefix| url.starts_with(prefix))
        .unwrap_or(url)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn tokens_stay_with_the_repository() {
        assert_eq!(token_scope("https://h/a.git"), "https://h/a.git");
        assert_eq!(token_scope("https://github.com/a/b.git"), "https://github.com/");
        assert_eq!(token_scope("https://github.com.evil/a"), "https://github.com.evil/a");
    }

    #[test]
    fn secrets_go_to_hosts_that_the_user_named() {
        let contexts = ["https://u:p@git.example/a.git#main".to_owned(), "h:8443/b.git".to_owned()];
        for (url, is_named, may) in [
            ("https://git.example/other.git", false, true),
            ("https://git.example:443/other.git", false, true),
            ("https://git.example:444/other.git", false, false),
            ("https://h:8443/x", false, true),
            ("https://h/x", false, false),
            ("https://evil.example/x", false, false),
            ("https://evil.example/x", true, true),
            ("https://git.example.evil/x", false, false),
            ("http://git.example/x", false, false),
            ("http://git.example/x", true, false),
            ("http://127.0.0.1/x", true, false),
        ] {
            assert_eq!(may_have(url, is_named, &contexts).is_ok(), may, "{url} {is_named}");
        }
        assert!(may_have("https://h/x", false, &[]).is_err());
    }
}
