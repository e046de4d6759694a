//! Manifests and indexes from untrusted sources.

use kiln_oci::{Descriptor, Digest, ImageIndex, ImageManifest, limits, media_type};
use kiln_registry::check_document;

use crate::error::{Error, Result};

/// The maximum size of a manifest or an index in bytes.
pub const DOCUMENT_LIMIT: u64 = limits::DOCUMENT_LIMIT as u64;
/// The maximum size of an image config in bytes.
pub const CONFIG_LIMIT: u64 = limits::CONFIG_LIMIT as u64;

/// A manifest or an index.
#[derive(Debug)]
pub enum Document {
    /// A list of images for several platforms.
    Index(Box<ImageIndex>),
    /// The manifest of one image.
    Manifest(Box<ImageManifest>),
}

impl Document {
    /// Parses a document. Rejects one that can be read as both kinds.
    ///
    /// # Errors
    /// Fails if the document is invalid or ambiguous. `name` is its name for the error.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let media_type =
            check_document(bytes, None).map_err(|problem| Error::image(name, problem))?;
        let parsed = if media_type::is_index(&media_type) {
            ImageIndex::parse(bytes).map(|index| Self::Index(Box::new(index)))
        } else {
            ImageManifest::parse(bytes).map(|manifest| Self::Manifest(Box::new(manifest)))
        };
        parsed.map_err(|error| Error::image(name, format!("invalid manifest: {error}")))
    }
}

/// Returns the parsed digest of a descriptor.
///
/// # Errors
/// Fails if the descriptor's digest is invalid.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().map_err(|error| Error::image(&descriptor.digest, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_documents_are_refused() {
        for text in [
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"config":{}}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            "[]",
            "nonsense",
        ] {
            assert!(Document::parse("x", text.as_bytes()).is_err(), "{text}");
        }
    }
}
