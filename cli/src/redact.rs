//! What is kept and shown of arguments, names and errors: everything but credentials.
//!
//! What a step prints is its author's business and is kept as it is. But what kiln itself says of a
//! build, in the history and in the commands that it proposes, holds no value of a secret, no user
//! and password of a URL, no proxy, and no value of a build argument whose name or looks are those
//! of a credential.

use std::borrow::Cow;

/// What stands for a value.
pub(crate) const MASK: &str = "***";
/// The shortest value that is looked for in texts: shorter ones are parts of ordinary words.
const SHORTEST: usize = 4;

/// Words that names of credentials have.
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
/// How names of credentials end.
const ENDS: [&str; 5] = ["_KEY", "_PASS", "_PWD", "_PAT", "_PROXY"];
/// How tokens of well-known services, keys and signed tokens begin.
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

/// Tells whether a name is one that credentials have.
pub(crate) fn is_credential_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    WORDS.iter().any(|word| name.contains(word)) || ENDS.iter().any(|end| name.ends_with(end))
}

/// Tells whether `NAME=VALUE` gives a credential, by its name or by its looks.
pub(crate) fn is_credential(name: &str, value: &str) -> bool {
    is_credential_name(name) || STARTS.iter().any(|start| value.starts_with(start))
}

/// Returns a text without users and passwords of the URLs in it, and without the credentials that
/// are parameters of their queries.
pub(crate) fn urls(text: &str) -> Cow<'_, str> {
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

/// Returns `user:password@host` without what is nobody's business. That of SSH has a user who is no
/// secret, and without whom the address is another one.
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

/// Returns an argument, `--flag=value`, `value` or `key=value,key=value`, without credentials.
pub(crate) fn argument(text: &str) -> String {
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

/// Takes known values and users of URLs out of texts.
#[derive(Default)]
pub(crate) struct Redactor {
    values: Vec<String>,
}

impl Redactor {
    /// Has a value taken out; one that is too short to be told from ordinary words is not.
    pub(crate) fn add(&mut self, value: &[u8]) {
        let Ok(value) = std::str::from_utf8(value.trim_ascii()) else { return };
        if value.len() >= SHORTEST {
            self.values.push(value.to_owned());
        }
        // Names and errors are in one line each.
        let lines = value.lines().map(str::trim).filter(|line| line.len() >= 2 * SHORTEST);
        self.values.extend(lines.filter(|line| *line != value).map(str::to_owned));
    }

    /// Returns a text without them.
    pub(crate) fn text(&self, text: &str) -> String {
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
