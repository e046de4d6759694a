//! Repository addresses and references, checked before git receives them.

use std::fmt;

use crate::error::{Error, Result};
use crate::source::file_name::unescape;

/// The address of a repository.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Remote {
    /// The address without a password.
    url: String,
    /// The `user:password` in the address, decoded.
    credentials: Option<Vec<u8>>,
    is_ssh: bool,
}

impl Remote {
    /// Parses an address: a URL, whose default scheme is `https`, or `user@host:path`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let shown = kiln_registry::redacted(text);
        let invalid = |problem: &str| Error::Invalid(format!("{shown:?}: {problem}"));
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid("invalid address of a repository"));
        }
        if let Some((user, host, path)) = scp_style(text) {
            if [user, host, path].iter().any(|part| part.starts_with('-')) {
                return Err(invalid("invalid address of a repository"));
            }
            return Ok(Self { url: text.to_owned(), credentials: None, is_ssh: true });
        }
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let Some((scheme, rest)) = full.split_once("://") else {
            return Err(invalid("invalid address of a repository"));
        };
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https" | "ssh" | "git") {
            return Err(invalid("not an address that repositories are fetched from"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let leads_on = host.is_empty() || host.starts_with('-') || host.contains("::");
        if leads_on && !host.starts_with('[') || user.is_some_and(|user| user.starts_with('-')) {
            return Err(invalid("invalid address of a repository"));
        }
        let is_ssh = scheme == "ssh";
        let (user, credentials) = match user {
            Some(user) if is_ssh => (Some(user.split(':').next().unwrap_or_default()), None),
            Some(user) => (None, Some(credentials(user))),
            None => (None, None),
        };
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        Ok(Self { url: format!("{scheme}://{user}{host}{path}"), credentials, is_ssh })
    }

    /// Returns the address without a password, for git and for messages.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the host and the path, without scheme and user.
    pub(super) fn location(&self) -> String {
        if let Some((_, host, path)) = scp_style(&self.url) {
            return format!("{host}/{}", path.trim_start_matches('/'));
        }
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{host}{path}")
    }

    /// Returns the `user:password` in the address, if there is one.
    pub(super) fn credentials(&self) -> Option<&[u8]> {
        self.credentials.as_deref()
    }

    /// Returns `true` if the address is for SSH.
    pub(super) fn is_ssh(&self) -> bool {
        self.is_ssh
    }

    /// Returns `true` if the address is for HTTP or HTTPS.
    pub(super) fn is_http(&self) -> bool {
        self.url.starts_with("http://") || self.url.starts_with("https://")
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Splits an address of the form `user@host:path`.
fn scp_style(text: &str) -> Option<(&str, &str, &str)> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (!text.contains("://") && word(user) && word(host) && !host.is_empty() && !user.is_empty())
        .then_some((user, host, path))
}

fn credentials(user: &str) -> Vec<u8> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    [unescape(user), unescape(password)].join(&b':')
}

/// Returns `true` if a text is a full commit ID of SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns an error unless a text is a valid name of a branch or tag (git-check-ref-format) that
/// git can't mistake for an option.
pub(super) fn check_reference(text: &str) -> Result<()> {
    let banned = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let is_bad = text.is_empty()
        || text.starts_with(['-', '/'])
        || text.ends_with(['/', '.'])
        || text.chars().any(banned)
        || ["..", "@{", "//"].iter().any(|part| text.contains(part))
        || text.split('/').any(|part| part.starts_with('.') || is_lock(part));
    if is_bad { Err(Error::Invalid(format!("invalid git ref {text:?}"))) } else { Ok(()) }
}

fn is_lock(part: &str) -> bool {
    part.strip_suffix(".lock").is_some()
}

/// Returns the components of a path after removing `.` and `..`.
pub(super) fn directories(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name.to_owned()),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_split_off() {
        let remote = Remote::parse("https://user:p%40ss@h:1/a.git").unwrap();
        assert_eq!(remote.url(), "https://h:1/a.git");
        assert_eq!(remote.credentials(), Some(&b"user:p@ss"[..]));
        assert!(!format!("{remote:?} {remote}").contains("p%40ss"));
        let remote = Remote::parse("ssh://git:secret@h/a").unwrap();
        assert_eq!((remote.url(), remote.is_ssh()), ("ssh://git@h/a", true));
        assert_eq!(Remote::parse("git@h:a/b.git").unwrap().url(), "git@h:a/b.git");
        assert_eq!(Remote::parse("h/a.git").unwrap().url(), "https://h/a.git");
        assert_eq!(Remote::parse("http://[::1]:80/a").unwrap().url(), "http://[::1]:80/a");
    }

    #[test]
    fn references_are_names() {
        for name in ["main", "v1.0", "refs/pull/1/head", "a-b/c", "feature/x#1", "x@y"] {
            assert!(check_reference(name).is_ok(), "{name}");
        }
        assert_eq!(directories("/a/./b/../../../c/"), ["c"]);
        assert!(directories("../..").is_empty());
    }
}
