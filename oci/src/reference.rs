//! Image references: names of images with a tag or a digest.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

mod grammar;

/// The maximum length of a repository's path.
const LONGEST_REPOSITORY: usize = 255;

/// The full name of an image, such as `docker.io/library/alpine:3.20`, with a tag, a digest or
/// both.
///
/// Parsing completes short names like docker does. The registry defaults to `docker.io`, names of
/// one component there belong to `library/`, and without a digest the tag defaults to `latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The reason why a text isn't an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// The name violates the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The registry has upper-case letters, and would be a path component without them.
    #[error("repository name must be lowercase")]
    UppercaseName,
    /// The repository's path is longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The digest has characters other than lower-case hexadecimal digits.
    #[error("invalid checksum digest format")]
    DigestFormat,
    /// The digest's length is wrong for its algorithm.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// The digest's algorithm is unknown.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// The digest's algorithm is known, but kiln can't verify it.
    #[error("unsupported digest algorithm {0}: name the image by its sha256 digest")]
    DigestUnsupported(String),
    /// 64 hexadecimal digits are an image ID, not a repository.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
}

impl Reference {
    /// Returns the registry's host and port; `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository's path in its registry, such as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if any.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns this reference pinned to `digest`. The tag is kept.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Returns this reference without its tag.
    #[must_use]
    pub fn without_tag(mut self) -> Self {
        self.tag = None;
        self
    }

    /// Returns the short form that users write, without `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        let official = short.strip_prefix("library/").filter(|name| !name.contains('/'));
        official.unwrap_or(short).to_owned()
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
        if text.len() == 64 && text.bytes().all(grammar::is_lower_hex) {
            return Err(ParseReferenceError::Identifier(text.to_owned()));
        }
        let (registry, rest) = grammar::split_registry(text);
        let path = rest.split(':').next().unwrap_or_default();
        if path != path.to_lowercase() {
            return Err(ParseReferenceError::Uppercase(path.to_owned()));
        }
        let Some(parts) = grammar::parts(registry, &rest) else {
            let (registry, rest) = (registry.to_lowercase(), rest.to_lowercase());
            return Err(match grammar::parts(&registry, &rest) {
                Some(_) => ParseReferenceError::UppercaseName,
                None => ParseReferenceError::Format,
            });
        };
        if parts.length > LONGEST_REPOSITORY {
            return Err(ParseReferenceError::TooLong);
        }
        let digest = parts.digest.map(grammar::parse_digest).transpose()?;
        let default = digest.is_none().then_some("latest");
        Ok(Self {
            registry: parts.registry.to_owned(),
            repository: parts.repository.to_owned(),
            tag: parts.tag.or(default).map(str::to_owned),
            digest,
        })
    }
}

#[cfg(test)]
mod tests;
