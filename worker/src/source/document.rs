//! Manifests and indexes, as hostile as the world they come from.

use kiln_oci::{
    Descriptor, Digest, ImageIndex, ImageManifest, limits, media_type, parse_index, parse_manifest,
};
use kiln_registry::check_document;

use crate::error::{Error, Result};

/// Most bytes of a manifest or an index.
pub(crate) const DOCUMENT_LIMIT: u64 = limits::DOCUMENT_LIMIT as u64;
/// Most bytes of an image config.
pub(crate) const CONFIG_LIMIT: u64 = limits::CONFIG_LIMIT as u64;

/// A manifest or an index.
#[derive(Debug)]
pub(crate) enum Document {
    /// Several images, told apart by platform.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

impl Document {
    /// Reads a document. One that could be read as both kinds is refused.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let media_type =
            check_document(bytes, None).map_err(|problem| Error::image(name, problem))?;
        let parsed = if media_type::is_index(&media_type) {
            parse_index(bytes).map(|index| Self::Index(Box::new(index)))
        } else {
            parse_manifest(bytes).map(|manifest| Self::Manifest(Box::new(manifest)))
        };
        parsed.map_err(|error| Error::image(name, format!("invalid manifest: {error}")))
    }
}

/// Returns the digest that a descriptor names.
pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|error| Error::image(&text, error))
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
