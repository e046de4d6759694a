//! `kiln image prune`.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kiln_oci::Digest;
use kiln_store::Store;

use crate::commands::rmi::report;
use crate::confirm::confirm;
use crate::image::filter::{Filters, OF_PRUNING};
use crate::printer::{Printer, human_size};
use crate::settings::Settings;
use kiln::image::named::{NamedImage, is_tagged};
use kiln::image::removal::{Removal, Removed};

/// Remove images that have no name, or all
#[derive(Debug, Args)]
pub(super) struct PruneArguments {
    /// Remove images that have names, too; those that running containers use stay
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
    /// Only images for which this holds: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE],
    /// dangling=true|false
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs `kiln image prune`.
pub(super) fn run(
    arguments: &PruneArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let filters = Filters::parse(&arguments.filters, OF_PRUNING, &store)?;
    // As in docker, this filter has the same effect as the flag.
    let all = filters.dangling().map_or(arguments.all, |dangling| !dangling);
    let what = if all {
        "all images that no running container uses, those with names too"
    } else {
        "all dangling images"
    };
    if !arguments.force && !confirm(&format!("WARNING! This will remove {what}."), printer)? {
        return Ok(ExitCode::SUCCESS);
    }
    let freed = remove_unused(&store, all, &filters, printer)?;
    printer.line(format_args!("Total reclaimed space: {}", human_size(freed)));
    Ok(ExitCode::SUCCESS)
}

/// Removes unnamed images, or all, then collects garbage, and prints the removed images. Returns
/// the number of bytes that this freed.
pub(in crate::commands) fn remove_unused(
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
            let lines = report(removed, "untagged", "deleted", removed.gone(store)?);
            for line in lines {
                printer.line(line);
            }
        }
        printer.line("");
    }
    Ok(collected.bytes)
}
