//! Image references.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference as Parsed;

use crate::Digest;

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
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseReferenceError::Identifier(text.to_owned()));
        }
        // The grammar has no other letters; the parser's classes have.
        if !text.is_ascii() {
            return Err(ParseReferenceError::Format);
        }
        let parsed: Parsed = text.parse().map_err(|error| match error {
            oci_spec::distribution::ParseError::NameContainsUppercase => {
                ParseReferenceError::Uppercase(repository_of(text).to_owned())
            }
            _ => ParseReferenceError::Format,
        })?;
        let digest = match parsed.digest() {
            Some(digest) => Some(digest.parse().map_err(|_| ParseReferenceError::Format)?),
            None => None,
        };
        let tag = match (parsed.tag(), digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            tag,
            digest,
        })
    }
}

fn repository_of(text: &str) -> &str {
    let name = text.split('@').next().unwrap_or(text);
    let path = name.rfind('/').map_or(0, |slash| slash + 1);
    name[path..].find(':').map_or(name, |colon| &name[..path + colon])
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
    fn bad_references_are_refused() {
        for text in
            ["", "a:", ":b", "UPPER", "a//b", "a b", "-x", "x@sha256:12", "x:é", &"a".repeat(64)]
        {
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
