//! The removal of all images that have no name or no use, for `image prune` and `system prune`.

use std::collections::HashSet;

use anyhow::Result;
use kiln::image::named::{NamedImage, is_tagged};
use kiln::image::removal::{Removal, Removed};
use kiln_oci::Digest;
use kiln_store::Store;

use crate::rendering::printer::Printer;
use crate::rendering::removal as report;
use crate::settings::filter::Filters;

/// Removes unnamed images, or all, then collects garbage, and prints the removed images. Returns
/// the number of bytes that this freed.
pub(crate) fn remove_unused(
    store: &Store,
    all: bool,
    filters: &Filters,
    printer: &Printer,
) -> Result<u64> {
    let mut removal = Removal::begin(store, &mut |damage| {
        printer.note(format_args!("WARNING: {damage}"));
    })?;
    let images = store.disk_usage()?.images;
    let used: HashSet<Digest> =
        images.iter().filter(|image| image.is_used).map(|image| image.digest).collect();
    let is_used = |image: &NamedImage| used.contains(&image.image.row.digest);
    let is_doomed = |image: &mut NamedImage| {
        (all || !image.names.iter().any(is_tagged))
            && filters.admits_config(image)
            && !is_used(image)
    };
    let together = store.images().together();
    let removed: Vec<Removed> = removal.delete_all(is_doomed)?;
    together.end()?;
    let collected = store.collect()?;
    if !removed.is_empty() {
        printer.line("Deleted Images:");
        for removed in &removed {
            let lines = report::image(removed, "untagged", "deleted", removed.gone(store)?);
            for line in lines {
                printer.line(line);
            }
        }
        printer.line("");
    }
    Ok(collected.bytes)
}
