//! Images in registries: inspecting, combining and copying them without pulling.

pub mod attestation;
pub mod combine;
pub mod copy;

use anyhow::{Context, Result, bail};
use kiln_oci::{Digest, Reference, json, media_type};
use kiln_registry::{Client, Repository};
use serde::Deserialize;
use serde_json::Value;

use crate::json::Json;

/// The most bytes of a config.
const CONFIG: u64 = 16 << 20;
/// Most images that an index names, layers that a manifest names, and documents that are copied with
/// one. A registry is asked for each.
const MOST_PARTS: usize = 1000;

/// A manifest or an index in a registry.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// The repository of the document.
    pub repository: Repository,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The document's media type, as the registry reports it.
    pub media_type: String,
    /// The document's contents.
    pub bytes: Vec<u8>,
}

/// The fields of a document that kiln uses.
#[derive(Debug, Default, Deserialize)]
pub struct Parsed {
    /// The entries of an index; empty for a manifest.
    #[serde(default)]
    pub manifests: Vec<Entry>,
    /// The config of a manifest; `None` for an index.
    #[serde(default)]
    pub config: Option<Entry>,
    /// The layers of a manifest; empty for an index.
    #[serde(default)]
    pub layers: Vec<Entry>,
}

/// A descriptor: a reference from a document to another document or to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The media type of the target.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the target.
    pub digest: Digest,
    /// The size of the target in bytes.
    pub size: u64,
    /// The annotations of the descriptor.
    #[serde(default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
    /// The platform of an image, as JSON.
    #[serde(default)]
    pub platform: Option<Value>,
    /// The URLs of a blob outside the registry.
    #[serde(default)]
    pub urls: Option<Vec<String>>,
}

impl Entry {
    /// Returns the platform as text, such as `linux/arm64`.
    pub fn platform_text(&self) -> Option<String> {
        let platform = self.platform.as_ref()?;
        let part = |name: &str| platform.get(name).and_then(Value::as_str).unwrap_or_default();
        let (os, architecture, variant) = (part("os"), part("architecture"), part("variant"));
        let base = format!("{os}/{architecture}");
        Some(if variant.is_empty() { base } else { format!("{base}/{variant}") })
    }

    /// Returns the value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

impl RemoteImage {
    /// Fetches the document that a reference names.
    pub async fn find(client: &Client, reference: &Reference) -> Result<Self> {
        let found = client.resolve(reference).await?;
        let repository = Repository::from(reference);
        let (digest, media_type, bytes) = (found.digest, found.media_type, found.bytes);
        Ok(Self { repository, digest, media_type, bytes })
    }

    /// Fetches a manifest or index of a repository by its digest.
    pub async fn by_digest(
        client: &Client,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Self> {
        let found = client.manifest(repository, digest).await?;
        let (digest, media_type, bytes) = (found.digest, found.media_type, found.bytes);
        Ok(Self { repository: repository.clone(), digest, media_type, bytes })
    }

    /// Returns `true` for an index.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// Parses the document's fields.
    ///
    /// # Errors
    /// Fails if the document is malformed, or names more documents than kiln requests of a registry.
    pub fn parse(&self) -> Result<Parsed> {
        let parsed: Parsed = json::from_go(&self.bytes)
            .with_context(|| format!("parse {}@{}", self.repository, self.digest))?;
        let count = parsed.manifests.len().max(parsed.layers.len());
        if count > MOST_PARTS {
            let name = format!("{}@{}", self.repository, self.digest);
            bail!("{name} names {count} images or layers, more than {MOST_PARTS}");
        }
        Ok(parsed)
    }

    /// Returns the document as JSON, with its members in order.
    pub fn json(&self) -> Result<Json> {
        Json::parse(&self.bytes)
    }

    /// Fetches the config of a manifest.
    pub async fn config(&self, client: &Client) -> Result<Json> {
        let Some(config) = self.parse()?.config else {
            bail!("{}@{} is no image", self.repository, self.digest);
        };
        let bytes = client.small_blob(&self.repository, &config.digest, CONFIG).await?;
        Json::parse(&bytes)
    }

    /// Returns the platform from a manifest's config, in the format of an index.
    pub async fn platform(&self, client: &Client) -> Result<Option<Value>> {
        let config = self.config(client).await?;
        let mut platform = serde_json::Map::new();
        for name in ["architecture", "os", "os.version", "os.features", "variant"] {
            let value = config.get(name).map(serde_json::to_value).transpose()?;
            let is_empty = |value: &Value| {
                value.is_null()
                    || value.as_str() == Some("")
                    || value.as_array().is_some_and(Vec::is_empty)
            };
            if let Some(value) = value.filter(|value| !is_empty(value)) {
                platform.insert(name.to_owned(), value);
            }
        }
        let is_known = platform.contains_key("os") && platform.contains_key("architecture");
        Ok(is_known.then_some(Value::Object(platform)))
    }
}

/// Parses a reference in docker's notation.
pub fn parse_reference(text: &str) -> Result<Reference> {
    text.parse().with_context(|| format!("invalid image {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(document: &Value) -> Result<Parsed> {
        let reference = parse_reference("registry.example/a").unwrap();
        let bytes = document.to_string().into_bytes();
        let (digest, media_type) = (Digest::of(&bytes), media_type::OCI_INDEX.to_owned());
        RemoteImage { repository: Repository::from(&reference), digest, media_type, bytes }.parse()
    }

    #[test]
    fn documents_name_as_much_as_a_registry_is_asked_for() {
        let entry = serde_json::json!({"digest": Digest::of(b""), "size": 1, "mediaType": null});
        for list in ["manifests", "layers"] {
            let many = |count| serde_json::json!({ list: vec![&entry; count], "config": null });
            assert!(parsed(&many(MOST_PARTS)).is_ok(), "{list}");
            let error = parsed(&many(MOST_PARTS + 1)).unwrap_err().to_string();
            assert!(error.contains("names 1001 images or layers, more than 1000"), "{error}");
        }
    }
}
