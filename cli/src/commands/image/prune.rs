//! `kiln image prune`.

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::image::PruneArguments;
use crate::removal::remove_unused;
use crate::rendering::confirm::confirm;
use crate::rendering::printer::{Printer, human_size};
use crate::settings::Settings;
use crate::settings::filter::{Filters, OF_PRUNING};

/// Runs `kiln image prune`.
pub(crate) fn run(
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
