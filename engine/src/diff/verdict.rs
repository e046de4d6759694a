//! The verdict of a report.

use serde::Serialize;

use super::report::{Change, EntryStatus, LayerChange, LayerStatus, Report};
use super::source::Side;

/// A summary of the differences between two images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The images are equal, byte for byte.
    #[default]
    Identical,
    /// The images have the same ID, and their layers differ in compression.
    Compression,
    /// The images have the same ID, and their manifests differ in more than the compression.
    Packing,
    /// The images differ only in times.
    Times,
    /// The images differ only in times and compression.
    CompressionAndTimes,
    /// The images differ in other properties.
    Different,
}

impl Verdict {
    /// Returns the verdict for two images from their complete report.
    pub(super) fn of(a: &Side, b: &Side, report: &Report) -> Self {
        let is_repacked = report.layers.iter().any(is_repacked);
        if a.image_id() == b.image_id() {
            let is_only_repacked = is_repacked && report.manifest.is_empty();
            return if is_only_repacked { Self::Compression } else { Self::Packing };
        }
        let is_alike = report.manifest.is_empty()
            && report.config.iter().chain(&report.history).all(is_time)
            && report.layers.iter().all(has_same_files);
        match (is_alike, is_repacked) {
            (true, false) => Self::Times,
            (true, true) => Self::CompressionAndTimes,
            (false, _) => Self::Different,
        }
    }

    /// Returns the verdict as a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::Identical => "The images are the same.",
            Self::Compression => "The images have the same ID: only their compression differs.",
            Self::Packing => "The images have the same ID: only their manifests differ.",
            Self::Times => "The images are the same but for times.",
            Self::CompressionAndTimes => "The images are the same but for compression and times.",
            Self::Different => "The images are different.",
        }
    }
}

/// Returns `true` if the changed member of a config or history is a time.
fn is_time(change: &Change) -> bool {
    let name = change.path.rsplit('.').next();
    name == Some("created") && change.a.is_some() && change.b.is_some()
}

/// Returns `true` if two layers differ in their compression.
fn is_repacked(layer: &LayerChange) -> bool {
    let kinds = (&layer.a, &layer.b);
    layer.status == LayerStatus::Repacked
        || matches!(kinds, (Some(a), Some(b)) if a.media_type != b.media_type)
}

/// Returns `true` if two layers differ in times at most.
fn has_same_files(layer: &LayerChange) -> bool {
    match layer.status {
        LayerStatus::Same | LayerStatus::Repacked => true,
        LayerStatus::Added | LayerStatus::Removed => false,
        LayerStatus::Changed => {
            layer.tar.is_empty()
                && layer.entries.iter().all(|entry| {
                    entry.status == EntryStatus::Changed
                        && entry.what.keys().all(|what| what == "mtime")
                })
        }
    }
}
