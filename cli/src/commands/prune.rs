//! `kiln prune`, `kiln builder prune`.

use std::process::ExitCode;

use anyhow::Result;
use kiln_store::{PruneOptions, Pruned};

use crate::arguments::prune::PruneArguments;
use crate::rendering::confirm::confirm;
use crate::rendering::printer::{Printer, human_size};
use crate::rendering::removal as report;
use crate::settings::Settings;
use crate::settings::prune::{Filters, Keep};

/// Runs `kiln prune`.
pub(crate) fn run(
    arguments: &PruneArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let mut filters = Filters::parse(&arguments.filters)?;
    let room = Keep::parse(arguments)?;
    let store = settings.store()?;
    if !arguments.force && !confirm(&arguments.warning(), printer)? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut pruned = Pruned::default();
    if filters.can_match() {
        pruned = store.prune(&PruneOptions {
            all: arguments.all,
            volumes: arguments.volumes,
            kinds: std::mem::take(&mut filters.kinds),
            ids: std::mem::take(&mut filters.ids),
            unused_since: filters.unused_since,
            keep_bytes: room.bytes(&store)?,
        })?;
    }
    report::cache(&pruned, printer);
    printer.line(format_args!("Total reclaimed space: {}", human_size(pruned.bytes)));
    Ok(ExitCode::SUCCESS)
}

impl PruneArguments {
    fn warning(&self) -> String {
        // Images stay, but builds don't reuse their layers any more.
        let cache = if self.all {
            "all build cache that nothing running uses, cache mounts, and what leads builds to the \
             layers of images"
        } else {
            "all build cache that no image stands on"
        };
        let volumes = if self.volumes { " and all volumes that no container uses" } else { "" };
        format!("WARNING! This will remove {cache}{volumes}.")
    }
}
