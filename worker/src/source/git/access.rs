//! Access to repositories with credentials.
//!
//! Credentials are bound to a scheme, a host and a port. Git sends a configured header after
//! redirects as well, to any target. Git therefore doesn't follow redirects when it has
//! credentials: kiln resolves the first redirect itself. If it stays within the origin, git uses
//! its target with the credentials. If it leads to another origin, git follows it without
//! credentials.
//!
//! A password in an address is sent to that address. Secrets are sent over `https` only: a secret
//! with a host in its name (`GIT_AUTH_TOKEN.HOST`, with or without a port) to that host, and other
//! secrets to the hosts of contexts that the user has named. A Dockerfile can name any host, but
//! that host gets no secret.

use kiln_registry::FetchRequest;

use super::GitSource;
use super::reference::Remote;
use crate::error::{Error, Result};
use crate::source::http::{authority, host};
use crate::source::remote::Remotes;

/// The path below a repository's address that git requests first.
const SERVICE: &str = "/info/refs";
/// The user agent of git. Servers send other pages to other programs.
const AGENT: (&str, &str) = ("user-agent", "git/2");

/// The address and the credentials for a repository.
#[derive(Debug)]
pub(super) struct Access {
    /// The address that git uses.
    pub(super) url: String,
    /// Git's configuration with the credentials. Empty without credentials.
    pub(super) configuration: Vec<(String, String)>,
    /// The reason why a secret isn't sent.
    pub(super) withheld: Option<String>,
}

impl Access {
    /// Determines the access to a source.
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
        // If the server can't be reached, git reports the error.
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

    /// Returns the value of the authorization header: a secret's, or else that of the user and
    /// password in the URL.
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

/// Checks that the server of an address may receive a secret. `is_named` is `true` for a secret
/// with the host in its name. Other secrets are for the hosts of contexts. The error is the reason
/// for withholding the secret.
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

/// Returns `true` if two `https` addresses have the same host and port.
fn same_host(one: &str, other: &str) -> bool {
    let full = |url: &str| {
        let authority = authority(url).to_ascii_lowercase();
        authority.strip_suffix(":443").map_or(authority.clone(), str::to_owned)
    };
    full(one) == full(other)
}

/// Returns the header value of a secret.
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

/// Returns the configuration with which git sends a header to an address and doesn't follow
/// redirects from it.
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

/// Returns the prefix of the addresses that receive a token: the repository's address, or all of
/// GitHub, because submodules are usually on the same host.
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
