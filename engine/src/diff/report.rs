//! The result of a comparison.

use std::collections::BTreeMap;

use kiln_oci::Digest;
use serde::Serialize;

use super::source::Side;
use super::verdict::Verdict;
use crate::json::Json;

/// The differences between two images.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The summary of the first image.
    pub a: Option<ImageSummary>,
    /// The summary of the second image.
    pub b: Option<ImageSummary>,
    /// `true` if the images are the same, byte for byte.
    pub identical: bool,
    /// The summary of the differences.
    pub verdict: Verdict,
    /// The differences between the indexes if both images have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub index: Vec<Change>,
    /// The differences between the manifests, except for config and layers.
    pub manifest: Vec<Change>,
    /// The differences between the configs, except for history and layers.
    pub config: Vec<Change>,
    /// The differences between the histories.
    pub history: Vec<Change>,
    /// All layers, including equal ones.
    pub layers: Vec<LayerChange>,
    /// The differences between the files that containers see.
    pub files: Vec<EntryChange>,
}

/// A summary of a compared image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageSummary {
    /// The name that the user gave.
    pub name: String,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The platform of the config.
    pub platform: String,
}

impl ImageSummary {
    pub(super) fn of(side: &Side) -> Self {
        Self {
            name: side.name.clone(),
            digest: side.manifest_digest,
            platform: side.config.platform().to_string(),
        }
    }
}

/// A value that differs, or that only one image has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The path of the value in its document, such as `config.Env[1]`.
    pub path: String,
    /// The value in the first image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Json>,
    /// The value in the second image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Json>,
}

/// The difference between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerStatus {
    /// Both images have the same blob.
    Same,
    /// Both images have the same content in different blobs.
    Repacked,
    /// The contents differ.
    Changed,
    /// Only the second image has the layer.
    Added,
    /// Only the first image has the layer.
    Removed,
}

/// A layer, or two corresponding layers.
#[derive(Clone, Debug, Serialize)]
pub struct LayerChange {
    /// The difference between the two.
    pub status: LayerStatus,
    /// The layer of the first image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<LayerSummary>,
    /// The layer of the second image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<LayerSummary>,
    /// The differences between the entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryChange>,
    /// Further differences between the tars.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tar: Vec<String>,
}

/// A summary of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerSummary {
    /// The layer's number, counted from 1.
    pub number: usize,
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub digest: Digest,
    /// The media type of the blob.
    pub media_type: String,
    /// The size of the blob in bytes.
    pub size: u64,
}

/// The difference between two entries or files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryStatus {
    /// Only the second image has the entry.
    Added,
    /// Only the first image has the entry.
    Removed,
    /// Both images have the entry, with different properties.
    Changed,
}

/// An entry or a file that differs, or that only one image has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryChange {
    /// The path from the image's root. Bytes that aren't text are escaped.
    pub path: String,
    /// The difference between the two.
    pub status: EntryStatus,
    /// The properties that differ, each with its values in the first and in the second image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub what: BTreeMap<String, [String; 2]>,
}
