//! Manifests and indexes, as hostile as the world they come from.

use kiln_oci::{Descriptor, Digest, ImageIndex, ImageManifest, Platform, media_type};
use serde_json::Value;

use crate::error::{Error, Result};

/// Most bytes of a manifest or an index.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;
/// Most bytes of an image config.
pub(crate) const CONFIG_LIMIT: u64 = 16 << 20;

/// A manifest or an index.
#[derive(Debug)]
pub(crate) enum Document {
    /// Several images, told apart by platform.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

impl Document {
    /// Reads a document. What it is, its members say: a document that could be read as both is
    /// refused.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::image(name, format!("invalid manifest: {error}")))?;
        let (layers, manifests) = (value.get("layers"), value.get("manifests"));
        let parsed = match (layers.is_some() || value.get("config").is_some(), manifests) {
            (true, Some(_)) => {
                return Err(Error::image(name, "document is both a manifest and an index"));
            }
            (true, None) => serde_json::from_value(value).map(|m| Self::Manifest(Box::new(m))),
            (false, Some(_)) => {
                serde_json::from_value(value).map(|index| Self::Index(Box::new(index)))
            }
            (false, None) => {
                return Err(Error::image(name, "document is neither a manifest nor an index"));
            }
        };
        let document =
            parsed.map_err(|error| Error::image(name, format!("invalid manifest: {error}")))?;
        document.check_media_type(name)?;
        Ok(document)
    }

    fn check_media_type(&self, name: &str) -> Result<()> {
        let (stated, fits): (_, fn(&str) -> bool) = match self {
            Self::Index(index) => (index.media_type(), media_type::is_index),
            Self::Manifest(manifest) => (manifest.media_type(), media_type::is_manifest),
        };
        match stated {
            Some(stated) if !fits(stated.as_ref()) => {
                Err(Error::image(name, format!("unexpected media type {stated}")))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the digest that a descriptor names.
pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|error| Error::image(&text, error))
}

/// Returns the entry of an index that fits `platform` best, or `None`.
pub(crate) fn select<'a>(index: &'a ImageIndex, platform: &Platform) -> Option<&'a Descriptor> {
    let ranked = index.manifests().iter().enumerate().filter_map(|(position, entry)| {
        let media_type = entry.media_type().as_ref();
        if !media_type::is_manifest(media_type) && !media_type::is_index(media_type) {
            return None;
        }
        let rank = match entry.platform() {
            None => 2,
            Some(stated) => {
                let stated = Platform::new(
                    &stated.os().to_string(),
                    &stated.architecture().to_string(),
                    stated.variant().as_deref(),
                );
                match () {
                    () if stated == *platform => 0,
                    () if platform.accepts(&stated) => 1,
                    () => return None,
                }
            }
        };
        Some((rank, position, entry))
    });
    ranked.min_by_key(|(rank, position, _)| (*rank, *position)).map(|(_, _, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fill: char, platform: Option<(&str, &str)>) -> Value {
        let digest = format!("sha256:{}", fill.to_string().repeat(64));
        let mut entry =
            serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 2});
        if let Some((os, architecture)) = platform {
            entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        }
        entry
    }

    #[test]
    fn the_best_platform_is_selected() {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [
            entry('1', None), entry('2', Some(("linux", "arm64"))), entry('3', Some(("linux", "amd64"))),
            entry('4', Some(("unknown", "unknown"))),
        ]});
        let Document::Index(index) = Document::parse("x", index.to_string().as_bytes()).unwrap()
        else {
            panic!("an index");
        };
        let digest = |platform: &str| {
            let platform = platform.parse().unwrap();
            select(&index, &platform).map(|d| digest_of(d).unwrap().hex()[..1].to_owned())
        };
        assert_eq!(digest("linux/amd64").as_deref(), Some("3"));
        assert_eq!(digest("linux/arm64").as_deref(), Some("2"));
        assert_eq!(digest("linux/s390x").as_deref(), Some("1"));
    }

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
