//! What makes two images differ: `kiln diff`.
//!
//! An image is compared part by part, each in the order in which it stands:
//!
//! - manifest and config, as JSON: members that only one has, and values that differ;
//! - the history, step by step;
//! - layers. Those with the same diff ID have the same content, and differ at most in how they are
//!   packed. The others are compared entry by entry, and where all entries are the same, what is left
//!   is told: their order, the dialect of the tar, the names of owners;
//! - files, as a container would see them, all layers on top of one another.
//!
//! What all of it comes to is said first: whether the images are the same but for compression or times.
//!
//! Nothing is unpacked. Layers are read as streams, their contents as digests; what is held in memory
//! is what the entries are, whose number the limits of archives bound. Layers that both images begin
//! with are read only where later ones differ.

mod align;
mod document;
mod entries;
mod files;
mod layers;
mod report;
mod source;
mod text;
mod verdict;

use anyhow::Result;
use kiln_store::Store;
use kiln_tree::ArchiveLimits;

use report::ImageSummary;
use verdict::Verdict;

pub(crate) use report::Report;
pub(crate) use source::{Finder, Side};
pub(crate) use text::render;

/// Compares two images whose documents and layers are in the store. Blocks.
///
/// # Errors
/// Fails where a layer can't be read, or isn't what the config says.
pub(crate) fn compare(a: &Side, b: &Side, store: &Store, limits: ArchiveLimits) -> Result<Report> {
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
