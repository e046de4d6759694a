//! What was found.

use std::collections::BTreeMap;

use kiln_oci::Digest;
use serde::Serialize;

use super::source::Side;
use super::verdict::Verdict;
use crate::format::Json;

/// What makes two images differ.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The first image.
    pub(super) a: Option<ImageSummary>,
    /// The second.
    pub(super) b: Option<ImageSummary>,
    /// Whether they are the same, byte for byte.
    pub(crate) identical: bool,
    /// What all of it comes to.
    pub(super) verdict: Verdict,
    /// How the indexes differ, where both have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) index: Vec<Change>,
    /// How the manifests differ, but for what config and layers are.
    pub(super) manifest: Vec<Change>,
    /// How the configs differ, but for history and layers.
    pub(super) config: Vec<Change>,
    /// How the histories differ.
    pub(super) history: Vec<Change>,
    /// All layers.
    pub(super) layers: Vec<LayerChange>,
    /// How the files differ that containers see.
    pub(super) files: Vec<EntryChange>,
}

/// Which image is compared.
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

/// A value that differs, or that only one has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// Where it stands, as `config.Env[1]`.
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) a: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) b: Option<Json>,
}

/// What became of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LayerStatus {
    /// The same blob.
    Same,
    /// The same content in another blob.
    Repacked,
    /// Other content.
    Changed,
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Removed,
}

/// A layer, or two that stand for one another.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerChange {
    pub(super) status: LayerStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) a: Option<LayerSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) b: Option<LayerSummary>,
    /// How the entries differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) entries: Vec<EntryChange>,
    /// How the tars differ besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tar: Vec<String>,
}

/// A layer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerSummary {
    /// Its place, from 1 on.
    pub(super) number: usize,
    pub(super) diff_id: Digest,
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) size: u64,
}

/// What became of an entry or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EntryStatus {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, and it differs.
    Changed,
}

/// An entry or a file that differs, or that only one has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct EntryChange {
    pub(super) path: String,
    pub(super) status: EntryStatus,
    /// What differs: the value of the first and of the second.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) what: BTreeMap<String, [String; 2]>,
}
