//! Descriptors, the documents that they refer to, and the two documents that list them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{self, TooLarge};
use crate::{Digest, ParseDigestError, Platform, json};

/// A reference to content by its digest. (OCI image specification, "Content Descriptors".)
///
/// The digest is text as it was read: one that kiln doesn't support matters only where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the content.
    pub media_type: String,
    /// The digest of the content, with the name of its algorithm.
    pub digest: String,
    /// The size of the content, in bytes.
    pub size: u64,
    /// Addresses that the content can be downloaded from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// The annotations of the descriptor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The platform of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The content itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Descriptor {
    /// Returns a descriptor without annotations and a platform.
    pub fn new(media_type: &str, digest: &Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
            data: None,
        }
    }

    /// Returns the digest of the content.
    ///
    /// # Errors
    /// Fails if the algorithm isn't SHA-256, or the text is no digest.
    pub fn digest(&self) -> Result<Digest, ParseDigestError> {
        self.digest.parse()
    }
}

/// A manifest, an index, a config or another document as bytes, with its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The SHA-256 digest of the bytes.
    pub digest: Digest,
    /// The reference to the document in the documents that list it.
    pub descriptor: Descriptor,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Returns a document whose descriptor has no annotations and no platform.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        let digest = Digest::of(&bytes);
        let descriptor = Descriptor::new(media_type, &digest, bytes.len() as u64);
        Self { digest, descriptor, bytes }
    }

    /// Returns a document that lists others. `name` describes it in the error.
    ///
    /// # Errors
    /// Fails if the document is larger than [`limits::DOCUMENT_LIMIT`].
    pub fn listing(name: &'static str, media_type: &str, bytes: Vec<u8>) -> Result<Self, TooLarge> {
        limits::check_document(name, bytes.len())?;
        Ok(Self::new(media_type, bytes))
    }
}

/// A list of images for several platforms. (OCI image specification, "Image Index".)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// The version of the document's format: 2.
    pub schema_version: u32,
    /// The media type of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The descriptors of the manifests.
    pub manifests: Vec<Descriptor>,
    /// The descriptor of the manifest that an artifact belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// The annotations of the index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageIndex {
    /// Returns an index without annotations.
    pub fn new(media_type: &str, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    /// Fails if the bytes are no index.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        json::from_go(bytes)
    }
}

/// The config and the layers of one image. (OCI image specification, "Image Manifest".)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// The version of the document's format: 2.
    pub schema_version: u32,
    /// The media type of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The descriptor of the image config.
    pub config: Descriptor,
    /// The descriptors of the layers, base first. BuildKit writes `null` if there are none.
    pub layers: Vec<Descriptor>,
    /// The descriptor of the manifest that an artifact belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// The annotations of the manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageManifest {
    /// Returns a manifest without annotations.
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// Fails if the bytes are no manifest of an image.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        json::from_go(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2}"#;

    #[test]
    fn a_manifest_may_have_no_layers() {
        for layers in ["null", "[]"] {
            let text = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":{layers}}}"#);
            assert!(ImageManifest::parse(text.as_bytes()).unwrap().layers.is_empty());
        }
        let missing = format!(r#"{{"schemaVersion":2,"config":{CONFIG}}}"#);
        assert!(ImageManifest::parse(missing.as_bytes()).is_err());
        assert!(ImageManifest::parse(b"{").is_err());
    }

    #[test]
    fn null_stands_for_nothing_as_in_go() {
        let entry = CONFIG.replace(
            r#""size":2"#,
            r#""size":2,"urls":null,"annotations":null,"platform":null,"data":null"#,
        );
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":null,"manifests":[{entry}],"subject":null,"annotations":null}}"#
        );
        let index = ImageIndex::parse(text.as_bytes()).unwrap();
        let written = serde_json::to_string(&index).unwrap();
        assert_eq!(written, format!(r#"{{"schemaVersion":2,"manifests":[{CONFIG}]}}"#));
        assert!(index.manifests[0].digest().is_ok());
    }

    #[test]
    fn digests_of_other_algorithms_are_errors_where_they_are_used() {
        let other = CONFIG.replace("sha256", "sha512");
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{CONFIG},{other}]}}"#);
        let index = ImageIndex::parse(text.as_bytes()).unwrap();
        assert!(index.manifests[0].digest().is_ok() && index.manifests[1].digest().is_err());
    }
}
