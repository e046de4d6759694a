//! Comparison of two images: `kiln diff`.
//!
//! kiln compares an image part by part, and keeps the order within each part:
//!
//! - manifest and config, as JSON: members that only one side has, and values that differ;
//! - the history, step by step;
//! - layers. Layers with the same diff ID have the same content and differ at most in their
//!   packing. The others are compared entry by entry. If all entries are equal, the report names
//!   the remaining differences: their order, the dialect of the tar, the names of owners;
//! - files, as a container sees them with all layers applied.
//!
//! The report begins with a verdict: whether the images differ only in compression or times.
//!
//! No layer is unpacked. kiln reads layers as streams and keeps only digests of their contents. Its
//! memory use is proportional to the number of entries, which the limits of archives bound. Layers
//! that both images begin with are read only if later layers differ.

mod align;
mod document;
mod entries;
mod files;
mod layers;
mod report;
mod source;
mod verdict;

use anyhow::{Context, Result};
use kiln_oci::Platform;
use kiln_store::Store;
use kiln_tree::ArchiveLimits;

pub use report::{
    Change, EntryChange, EntryStatus, ImageSummary, LayerChange, LayerStatus, LayerSummary, Report,
};
pub use verdict::Verdict;

use crate::engine::Engine;
use source::{Finder, Side};

impl Engine {
    /// Compares two images: of the store, in archives or layouts, or in registries.
    ///
    /// # Errors
    /// Fails if an image or its platform doesn't exist, or if a part of it can't be read.
    pub async fn diff(&self, a: &str, b: &str, platform: Option<Platform>) -> Result<Report> {
        let finder = Finder::new(self, platform);
        let (a, b) = (finder.find(a).await?, finder.find(b).await?);
        let (limits, store) = (self.archive_limits(), self.store.clone());
        let work = move || compare(&a, &b, &store, limits);
        tokio::task::spawn_blocking(work).await.context("compare")?
    }
}

/// Compares two images whose documents and layers are in the store. Blocks.
fn compare(a: &Side, b: &Side, store: &Store, limits: ArchiveLimits) -> Result<Report> {
    let identical = a.manifest_digest == b.manifest_digest;
    let sides = [a, b].map(|side| Some(ImageSummary::of(side)));
    let [summary_a, summary_b] = sides;
    let mut report = Report { a: summary_a, b: summary_b, identical, ..Report::default() };
    report.index = document::index(a, b);
    report.identical &= report.index.is_empty();
    if a.manifest_digest == b.manifest_digest {
        if !report.identical {
            report.verdict = Verdict::Packing;
        }
        return Ok(report);
    }
    report.manifest = document::manifest(a, b);
    report.config = document::config(a, b);
    report.history = document::history(a, b);
    let mut reader = entries::LayerReader::new(store, limits);
    report.layers = layers::compare(a, b, &mut reader)?;
    if a.diff_ids() != b.diff_ids() {
        report.files = files::compare(a, b, &mut reader)?;
    }
    report.verdict = Verdict::of(a, b, &report);
    Ok(report)
}
