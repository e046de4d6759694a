//! The documents of a build cache that travels: what a cache in a registry or a directory holds, and
//! what an image with an inline cache says of itself. `docs/reference/cache.md` tells what they mean.
//!
//! All of it is plain data, as hostile as the place that it comes from: whoever reads it checks it.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The version of the documents. A reader takes no other.
pub const CACHE_VERSION: u32 = 1;

/// The member of an image's config that holds an [`InlineCache`].
pub const INLINE_CACHE: &str = "dev.kiln.cache";

/// What a cache holds. Layers, records and mounts name blobs that lie beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheConfig {
    /// [`CACHE_VERSION`].
    pub version: u32,
    /// Layers, each behind the one that it stands on.
    #[serde(default)]
    pub layers: Vec<CacheLayer>,
    /// Results of steps.
    #[serde(default)]
    pub records: Vec<CacheRecord>,
    /// Keys that lead to keys of results.
    #[serde(default)]
    pub links: Vec<CacheLink>,
    /// Cache mounts.
    #[serde(default)]
    pub mounts: Vec<CacheMountContent>,
}

/// A layer of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheLayer {
    /// The number of the layer below; `None` for the lowest of a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// The digest of its uncompressed tar.
    pub diff_id: Digest,
    /// When it was made, nanoseconds since 1970: histories of images tell it.
    pub created_at: i64,
    /// Whether it came with a base image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub base: bool,
    /// Its packed form.
    pub blob: CacheBlob,
}

/// A blob of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheBlob {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheRecord {
    /// The canonical key.
    pub key: Digest,
    /// For each output the number of its uppermost layer; `None` for an empty file system.
    pub outputs: Vec<Option<u32>>,
    /// How long the step took, in milliseconds; 0 where that isn't told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duration_ms: u64,
}

/// A key that leads to the key of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheLink {
    /// The definition key.
    pub definition: Digest,
    /// The canonical key.
    pub canonical: Digest,
}

/// What a cache mount holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheMountContent {
    /// The mount's key: its ID, and the digest of what it began with where it didn't begin empty.
    pub id: String,
    /// Permission bits of its directory.
    pub mode: u32,
    /// The user that the directory belongs to.
    pub uid: u32,
    /// The group that it belongs to.
    pub gid: u32,
    /// A tar of its files.
    pub blob: CacheBlob,
}

/// What an image says of the steps that made its layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineCache {
    /// [`CACHE_VERSION`].
    pub version: u32,
    /// How many of the image's layers, from the lowest on, came with a base image.
    #[serde(default)]
    pub base: u32,
    /// Results of steps. Numbers of layers count the image's, from zero on.
    #[serde(default)]
    pub records: Vec<CacheRecord>,
    /// Keys that lead to keys of results.
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
