//! Image references.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// The registry of names that have none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// A repository's path is at most this long.
const LONGEST_REPOSITORY: usize = 255;
/// A tag is at most this long.
const LONGEST_TAG: usize = 128;

/// The name of an image in full, as `docker.io/library/alpine:3.20`, with a tag, a digest or both.
///
/// Short names are completed as docker does: the registry defaults to `docker.io`, names of one
/// component there belong to `library/`, and the tag defaults to `latest` where there is no digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// The name breaks the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The repository's path is longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The digest is not written in lower-case hexadecimal digits.
    #[error("invalid checksum digest format")]
    DigestFormat,
    /// The digest has not as many digits as its algorithm gives.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// The digest is none of SHA-256.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// 64 hexadecimal digits name an image ID, not a repository.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
}

impl Reference {
    /// Returns the registry's host and port, `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository's path in its registry, as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns this reference pinned to `digest`, its tag kept.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Returns the reference as people write it: without `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ParseReferenceError::Identifier(text.to_owned()));
        }
        let (registry, rest) = split_registry(text);
        let path = rest.split(':').next().unwrap_or_default();
        if path != path.to_lowercase() {
            return Err(ParseReferenceError::Uppercase(path.to_owned()));
        }
        let (name, digest) = split_last(&rest, '@');
        let (repository, tag) = split_last(name, ':');
        if !is_registry(registry)
            || !repository.split('/').all(is_component)
            || !tag.is_none_or(is_tag)
            || !digest.is_none_or(is_digest)
        {
            return Err(ParseReferenceError::Format);
        }
        if repository.len() > LONGEST_REPOSITORY {
            return Err(ParseReferenceError::TooLong);
        }
        let digest = digest.map(parse_digest).transpose()?;
        let default = digest.is_none().then_some("latest");
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.or(default).map(str::to_owned),
            digest,
        })
    }
}

/// Splits the registry off, and completes both.
///
/// What stands in front of the first slash is a registry if it could be nothing else: if it has a
/// dot, a colon or an upper-case letter, or is `localhost`.
fn split_registry(text: &str) -> (&str, String) {
    let (registry, rest) = match text.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first != first.to_lowercase() =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    };
    if registry == DEFAULT_REGISTRY && !rest.contains('/') {
        return (registry, format!("library/{rest}"));
    }
    (registry, rest.to_owned())
}

fn split_last(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((front, back)) => (front, Some(back)),
        None => (text, None),
    }
}

/// Tells whether `text` is a host name or an IPv6 address in brackets, with a port or without.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = |port: &str| {
        port.strip_prefix(':')
            .is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        None => host.split('.').all(is_label),
    };
    is_host && (port.is_empty() || is_port(port))
}

/// Tells whether `text` is lower-case letters and digits, with a dot, one or two underscores, or
/// dashes between them.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text.split(|c: char| c.is_ascii() && is_word(c as u8));
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    text.bytes().next().is_some_and(is_word)
        && text.bytes().last().is_some_and(is_word)
        && separators.into_iter().all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

/// Tells whether `text` is the digest of some algorithm, known or not.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && digits.len() >= 32
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

fn parse_digest(text: &str) -> Result<Digest, ParseReferenceError> {
    let digits = text.strip_prefix("sha256:").ok_or(ParseReferenceError::DigestAlgorithm)?;
    if digits.len() != 64 {
        return Err(ParseReferenceError::DigestLength);
    }
    text.parse().map_err(|_| ParseReferenceError::DigestFormat)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("user/repo", "docker.io/user/repo:latest".to_owned()),
            ("quay.io/org/img:tag", "quay.io/org/img:tag".to_owned()),
            ("localhost:5000/x", "localhost:5000/x:latest".to_owned()),
            (&format!("alpine{digest}"), format!("docker.io/library/alpine{digest}")),
            (&format!("alpine:3{digest}"), format!("docker.io/library/alpine:3{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn registries_are_told_apart() {
        for (text, registry, repository) in [
            ("a.b/x", "a.b", "x"),
            ("a:80/x/y", "a:80", "x/y"),
            ("Reg/x", "Reg", "x"),
            ("localhost/x", "localhost", "x"),
            ("[::1]:5000/x", "[::1]:5000", "x"),
            ("index.docker.io/x", "docker.io", "library/x"),
            ("a/b/c", "docker.io", "a/b/c"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.registry(), reference.repository()), (registry, repository));
        }
    }

    #[test]
    fn messages() {
        let with = |algorithm: &str, digits: String| format!("x@{algorithm}:{digits}");
        for (text, message) in [
            (
                "Aa".to_owned(),
                "invalid reference format: repository name (library/Aa) must be lowercase",
            ),
            (with("sha256", "A".repeat(64)), "invalid checksum digest format"),
            (with("sha256", "a".repeat(63)), "invalid checksum digest length"),
            (with("md5", "a".repeat(32)), "unsupported digest algorithm"),
            (with("md5", "a".repeat(31)), "invalid reference format"),
            ("x".repeat(256), "repository name must not be more than 255 characters"),
            (format!("x:{}", "t".repeat(129)), "invalid reference format"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            "a:é",
            "a:",
            ":b",
            "UPPER",
            "a//b",
            "a b",
            "-x",
            "x-",
            "a..b",
            "a___b",
            "a_-b",
            "/a",
            "a/",
            "x@sha256:12",
            "-a.b/x",
            "a.b:/x",
            "a:x/y",
            "[x]/y",
            &"a".repeat(64),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn familiar_names_are_short() {
        let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("docker.io/library/alpine"), "alpine:latest");
        assert_eq!(familiar("user/repo:1"), "user/repo:1");
        assert_eq!(familiar("localhost:5000/x"), "localhost:5000/x:latest");
    }
}
