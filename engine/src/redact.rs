//! Removal of credentials from arguments, names and errors.
//!
//! The author of a step is responsible for its output, which is kept unchanged. But kiln's own
//! texts about a build, in its record and in suggested commands, contain no value of a secret, no
//! user and password of a URL, no proxy, and no value of a build argument whose name or value looks
//! like that of a credential.

use std::borrow::Cow;

/// The text that replaces a value.
pub const MASK: &str = "***";
/// The least length of a value that is searched for in texts. Shorter values occur in ordinary
/// words.
const SHORTEST: usize = 4;

/// Words in the names of credentials.
const WORDS: [&str; 13] = [
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "CREDENTIAL",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "ACCESSKEY",
    "PRIVATE_KEY",
    "AUTH",
    "SIGNATURE",
];
/// Suffixes of the names of credentials.
const ENDS: [&str; 5] = ["_KEY", "_PASS", "_PWD", "_PAT", "_PROXY"];
/// Prefixes of the tokens of well-known services, of keys, and of signed tokens.
const STARTS: [&str; 11] = [
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "eyJ",
    "-----BEGIN",
];

/// Returns `true` if a name looks like that of a credential.
pub fn is_credential_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    WORDS.iter().any(|word| name.contains(word)) || ENDS.iter().any(|end| name.ends_with(end))
}

/// Returns `true` if the name or the value of `NAME=VALUE` looks like that of a credential.
pub fn is_credential(name: &str, value: &str) -> bool {
    is_credential_name(name) || STARTS.iter().any(|start| value.starts_with(start))
}

/// Removes users and passwords from the URLs in a text, and masks credentials in the parameters of
/// their queries.
pub fn urls(text: &str) -> Cow<'_, str> {
    let Some(mut colon) = text.find("://") else { return Cow::Borrowed(text) };
    let masked = kiln_oci::redact::mask_queries(text);
    let text = masked.as_ref();
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (before, after) = rest.split_at(colon + 3);
        safe.push_str(before);
        let is_end = |c: char| c.is_whitespace() || "/?#\"'<>\\".contains(c);
        let (authority, behind) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        safe.push_str(&without_user(before, authority));
        rest = behind;
        match rest.find("://") {
            Some(next) => colon = next,
            None => break,
        }
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// Removes user and password from `user:password@host`. Keeps the user of an SSH address, which is
/// no secret and part of the address.
fn without_user<'a>(before: &str, authority: &'a str) -> Cow<'a, str> {
    let Some((user, host)) = authority.rsplit_once('@') else { return Cow::Borrowed(authority) };
    match user.split_once(':') {
        None if before.to_ascii_lowercase().ends_with("ssh://") => Cow::Borrowed(authority),
        Some((user, _)) if before.to_ascii_lowercase().ends_with("ssh://") => {
            Cow::Owned(format!("{user}@{host}"))
        }
        _ => Cow::Borrowed(host),
    }
}

/// Removes credentials from an argument: `--flag=value`, `value` or `key=value,key=value`.
pub fn argument(text: &str) -> String {
    let field = |field: &str| match field.split_once('=') {
        Some((key, value)) if is_credential(key, value) => format!("{key}={MASK}"),
        _ => field.to_owned(),
    };
    let (flag, rest) = match text.split_once('=') {
        Some((flag, rest)) if flag.starts_with("--") && !flag.contains(',') => {
            (format!("{flag}="), rest)
        }
        _ => (String::new(), text),
    };
    let fields = rest.split(',').map(field).collect::<Vec<_>>().join(",");
    urls(&format!("{flag}{fields}")).into_owned()
}

/// A redactor that removes known values, and the users of URLs, from texts.
#[derive(Default)]
pub struct Redactor {
    values: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Adds a value to remove. Ignores a value that is too short to be distinguished from ordinary
    /// words.
    pub fn add(&mut self, value: &[u8]) {
        let Ok(value) = std::str::from_utf8(value.trim_ascii()) else { return };
        if value.len() >= SHORTEST {
            self.values.push(value.to_owned());
        }
        // Names and errors contain single lines of a value.
        let lines = value.lines().map(str::trim).filter(|line| line.len() >= 2 * SHORTEST);
        self.values.extend(lines.filter(|line| *line != value).map(str::to_owned));
    }

    /// Returns a text without the values.
    pub fn text(&self, text: &str) -> String {
        let safe = self.values.iter().fold(urls(text), |text, value| {
            if text.contains(value) { Cow::Owned(text.replace(value, MASK)) } else { text }
        });
        safe.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_users() {
        for (text, safe) in [
            ("https://u:p@h/x", "https://h/x"),
            ("https://token@h", "https://h"),
            ("ADD https://u:p@h/x /y", "ADD https://h/x /y"),
            ("http://u:p@a/ https://q@b/", "http://a/ https://b/"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:p@h/x", "ssh://git@h/x"),
            ("git@h:a/b.git", "git@h:a/b.git"),
            ("https://h/x@y", "https://h/x@y"),
            ("https://u:p@@h/", "https://h/"),
            ("a://", "a://"),
            ("https://u:p@h/x?token=y&v=1", "https://h/x?token=***&v=1"),
            ("no url", "no url"),
        ] {
            assert_eq!(urls(text), safe);
        }
    }

    #[test]
    fn arguments_lose_their_credentials() {
        for (text, safe) in [
            ("--build-arg=NPM_TOKEN=x", "--build-arg=NPM_TOKEN=***"),
            ("GITHUB=ghp_abc", "GITHUB=***"),
            ("type=s3,bucket=b,secret_access_key=x", "type=s3,bucket=b,secret_access_key=***"),
            ("--cache-to=type=s3,access-key=x", "--cache-to=type=s3,access-key=***"),
            ("id=token,src=/x", "id=token,src=/x"),
            ("--build-context=a=https://u:p@h/", "--build-context=a=https://h/"),
            ("http_proxy=http://u:p@h", "http_proxy=***"),
            ("VERSION=1.2", "VERSION=1.2"),
            ("--target=x", "--target=x"),
            (".", "."),
        ] {
            assert_eq!(argument(text), safe);
        }
    }

    #[test]
    fn known_values_are_taken_out() {
        let mut redactor = Redactor::default();
        redactor.add(b"s3cret\n");
        redactor.add(b"abc");
        redactor.add(b"first line\nsecond line\n");
        assert_eq!(redactor.text("RUN x s3cret abc"), "RUN x *** abc");
        assert_eq!(redactor.text("a second line of"), "a *** of");
    }
}
