//! The origins of blobs.

use std::fmt;
use std::path::PathBuf;

use kiln_store::CACHE_ORIGIN;

/// The prefix of the text for a store of a client. No repository has it.
const CLIENT: &str = "client=";

/// The origin of a blob. The store's index keeps it as text: a directory starts with a slash, a
/// repository's name doesn't, and caches and the stores of clients have prefixes of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No origin: the blob is only in the store.
    Store,
    /// A repository of a registry, as `docker.io/library/alpine`.
    Registry(String),
    /// The directory of an OCI layout.
    Layout(PathBuf),
    /// A store that the caller has registered, by its name ([`BlobStores`](crate::BlobStores)).
    Client(String),
    /// A build cache at the given origin.
    Cache(Box<Origin>),
}

impl Origin {
    /// Returns the text for the index, or `None` without an origin.
    pub fn text(&self) -> Option<String> {
        (*self != Self::Store).then(|| self.to_string())
    }

    /// Parses the text of the index.
    pub fn parse(text: &str) -> Self {
        if let Some(place) = text.strip_prefix(CACHE_ORIGIN) {
            Self::Cache(Box::new(Self::parse(place)))
        } else if let Some(name) = text.strip_prefix(CLIENT) {
            Self::Client(name.to_owned())
        } else if text.starts_with('/') {
            Self::Layout(PathBuf::from(text))
        } else {
            Self::Registry(text.to_owned())
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("the store"),
            Self::Registry(name) => f.write_str(name),
            Self::Client(name) => write!(f, "{CLIENT}{name}"),
            Self::Layout(directory) => write!(f, "{}", directory.display()),
            Self::Cache(place) => write!(f, "{CACHE_ORIGIN}{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_survive_as_text() {
        for text in [
            "docker.io/library/alpine",
            "localhost:5000/x",
            "/var/lib/layout",
            "cache=/var/cache",
            "cache=localhost:5000/x",
            "cache:5000/x",
            "client=oci:/x",
            "cache=client=local:x",
        ] {
            assert_eq!(Origin::parse(text).to_string(), text);
        }
        assert_eq!(Origin::parse("/x"), Origin::Layout("/x".into()));
        let cache = Origin::Cache(Box::new(Origin::Layout("/x".into())));
        assert_eq!(Origin::parse("cache=/x"), cache);
        assert_eq!(Origin::parse("client=a:b"), Origin::Client("a:b".to_owned()));
    }
}
