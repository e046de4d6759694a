//! The result of a comparison.

use std::collections::BTreeMap;

use kiln_oci::Digest;
use serde::Serialize;

use super::source::Side;
use super::verdict::Verdict;
use crate::format::Json;

/// The differences between two images.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The summary of the first image.
    pub(super) a: Option<ImageSummary>,
    /// The summary of the second image.
    pub(super) b: Option<ImageSummary>,
    /// `true` if the images are the same, byte for byte.
    pub(crate) identical: bool,
    /// The summary of the differences.
    pub(super) verdict: Verdict,
    /// The differences between the indexes if both images have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) index: Vec<Change>,
    /// The differences between the manifests, except for config and layers.
    pub(super) manifest: Vec<Change>,
    /// The differences between the configs, except for history and layers.
    pub(super) config: Vec<Change>,
    /// The differences between the histories.
    pub(super) history: Vec<Change>,
    /// All layers, including equal ones.
    pub(super) layers: Vec<LayerChange>,
    /// The differences between the files that containers see.
    pub(super) files: Vec<EntryChange>,
}

/// A summary of a compared image.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ImageSummary {
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) platform: String,
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
pub(super) struct Change {
    /// The path of the value in its document, such as `config.Env[1]`.
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) a: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) b: Option<Json>,
}

/// The difference between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LayerStatus {
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
pub(super) struct LayerChange {
    pub(super) status: LayerStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) a: Option<LayerSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) b: Option<LayerSummary>,
    /// The differences between the entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) entries: Vec<EntryChange>,
    /// Further differences between the tars.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tar: Vec<String>,
}

/// A summary of a layer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerSummary {
    /// The layer's number, counted from 1.
    pub(super) number: usize,
    pub(super) diff_id: Digest,
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) size: u64,
}

/// The difference between two entries or files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EntryStatus {
    /// Only the second image has the entry.
    Added,
    /// Only the first image has the entry.
    Removed,
    /// Both images have the entry, with different properties.
    Changed,
}

/// An entry or a file that differs, or that only one image has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct EntryChange {
    pub(super) path: String,
    pub(super) status: EntryStatus,
    /// The properties that differ, each with its values in the first and in the second image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) what: BTreeMap<String, [String; 2]>,
}
