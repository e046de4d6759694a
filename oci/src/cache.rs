//! The documents of a portable build cache: the config of a cache in a registry or a directory, and
//! the inline cache in an image's config. `docs/reference/cache.md` explains them.
//!
//! These types are plain, untrusted data. The reader must check them.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The version of the documents. Readers reject other versions.
pub const CACHE_VERSION: u32 = 1;

/// The property of an image's config that contains an [`InlineCache`].
pub const INLINE_CACHE: &str = "dev.kiln.cache";

/// The content of a cache. Layers, records and mounts refer to blobs beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheConfig {
    /// The version of the format: [`CACHE_VERSION`].
    pub version: u32,
    /// The layers. Each comes after its parent.
    #[serde(default)]
    pub layers: Vec<CacheLayer>,
    /// The results of steps.
    #[serde(default)]
    pub records: Vec<CacheRecord>,
    /// The links from definition keys to canonical keys.
    #[serde(default)]
    pub links: Vec<CacheLink>,
    /// The contents of cache mounts.
    #[serde(default)]
    pub mounts: Vec<CacheMountContent>,
}

/// A layer of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheLayer {
    /// The index of the layer below. `None` for the lowest of a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// The digest of the layer's uncompressed tar.
    pub diff_id: Digest,
    /// The time of creation in nanoseconds since 1970, for the histories of images.
    pub created_at: i64,
    /// `true` if the layer is part of a base image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub base: bool,
    /// The blob with the layer's tar.
    pub blob: CacheBlob,
}

/// A blob of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheBlob {
    /// The media type of the blob.
    pub media_type: String,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheRecord {
    /// The canonical key of the step.
    pub key: Digest,
    /// The index of each output's uppermost layer. `None` for an empty file system.
    pub outputs: Vec<Option<u32>>,
    /// The run time of the step in milliseconds. 0 if it is unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duration_ms: u64,
}

/// A link from a definition key to a canonical key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheLink {
    /// The definition key that the link starts from.
    pub definition: Digest,
    /// The canonical key that the link leads to.
    pub canonical: Digest,
}

/// The content of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheMountContent {
    /// The mount's key: its ID, and the digest of its initial content unless it started empty.
    pub id: String,
    /// The permission bits of the mount's directory.
    pub mode: u32,
    /// The user ID of the directory's owner.
    pub uid: u32,
    /// The group ID of the directory's owner.
    pub gid: u32,
    /// A tar of the mount's files.
    pub blob: CacheBlob,
}

/// The results of the steps that made an image's layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineCache {
    /// The version of the format: [`CACHE_VERSION`].
    pub version: u32,
    /// The number of the image's layers, from the lowest on, that are part of a base image.
    #[serde(default)]
    pub base: u32,
    /// The results of steps. Layers are numbered as in the image, from zero on.
    #[serde(default)]
    pub records: Vec<CacheRecord>,
    /// The links from definition keys to canonical keys.
    #[serde(default)]
    pub links: Vec<CacheLink>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_survive_and_bear_members_that_are_not_known() {
        let blob = CacheBlob { media_type: "x".to_owned(), digest: Digest::of(b"blob"), size: 4 };
        let layer = |parent, base| CacheLayer {
            parent,
            diff_id: Digest::of(b"diff"),
            created_at: -1,
            base,
            blob: blob.clone(),
        };
        let config = CacheConfig {
            version: CACHE_VERSION,
            layers: vec![layer(None, true), layer(Some(0), false)],
            records: vec![CacheRecord {
                key: Digest::of(b"key"),
                outputs: vec![Some(1), None],
                duration_ms: 7,
            }],
            links: vec![CacheLink { definition: Digest::of(b"d"), canonical: Digest::of(b"c") }],
            mounts: vec![CacheMountContent {
                id: "/go".to_owned(),
                mode: 0o755,
                uid: 0,
                gid: 0,
                blob,
            }],
        };
        let mut json = serde_json::to_value(&config).unwrap();
        json["later"] = 1.into();
        json["layers"][0]["later"] = 1.into();
        assert_eq!(serde_json::from_value::<CacheConfig>(json).unwrap(), config);
        let least: InlineCache = serde_json::from_str(r#"{"version":1}"#).unwrap();
        assert_eq!(least, InlineCache { version: 1, ..InlineCache::default() });
        let bad = r#"{"version":1,"records":[{"key":"sha256:../x","outputs":[]}]}"#;
        assert!(serde_json::from_str::<InlineCache>(bad).is_err());
    }
}
