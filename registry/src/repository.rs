//! The names of repositories.

use std::fmt;
use std::str::FromStr;

use kiln_oci::{ParseReferenceError, Reference};

/// The name of a repository with its registry, such as `docker.io/library/alpine`.
///
/// Its parts follow the grammar of references, so they are safe in URLs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    name: String,
}

impl Repository {
    /// Returns the registry's host and port; `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path in the registry, such as `library/alpine`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<&Reference> for Repository {
    fn from(reference: &Reference) -> Self {
        let registry = reference.registry().to_owned();
        Self { registry, name: reference.repository().to_owned() }
    }
}

impl FromStr for Repository {
    type Err = ParseReferenceError;

    /// Parses a full or short name. Ignores a tag or digest.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Reference>().map(|reference| Self::from(&reference))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}
