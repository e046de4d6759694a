//! `kiln system prune`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln_store::PruneOptions;

use crate::arguments::system::PruneArguments;
use crate::removal::remove_unused;
use crate::rendering::confirm::confirm;
use crate::rendering::printer::{Printer, human_size};
use crate::rendering::removal as report;
use crate::settings::Settings;
use crate::settings::filter::{Filters, OF_PRUNING};
use crate::settings::until;

/// Runs `kiln system prune`. Removes images first, since this turns their contents into unused
/// cache.
pub(crate) fn run(
    arguments: &PruneArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let mut unused_since = None;
    for text in &arguments.filters {
        if let Some(time) = text.strip_prefix("until=") {
            let since = until::parse(time).with_context(|| format!("invalid filter {text:?}"))?;
            unused_since = Some(i64::try_from(since).unwrap_or(i64::MIN));
        } else if text.starts_with("dangling") {
            bail!("invalid filter {text:?}: --all says whether images with names are removed");
        }
    }
    let store = settings.store()?;
    let filters = Filters::parse(&arguments.filters, OF_PRUNING, &store)?;
    if !arguments.force && !confirm(&arguments.warning(), printer)? {
        return Ok(ExitCode::SUCCESS);
    }
    let freed = remove_unused(&store, arguments.all, &filters, printer)?;
    let (all, volumes) = (arguments.all, arguments.volumes);
    let options = PruneOptions { all, volumes, unused_since, ..PruneOptions::default() };
    let pruned = store.prune(&options)?;
    report::cache(&pruned, printer);
    let bytes = freed + pruned.bytes;
    printer.line(format_args!("Total reclaimed space: {}", human_size(bytes)));
    Ok(ExitCode::SUCCESS)
}

impl PruneArguments {
    fn warning(&self) -> String {
        let images = if self.all {
            "all images that no running container uses, those with names too"
        } else {
            "all dangling images"
        };
        let cache = if self.all {
            "all build cache that nothing running uses, and cache mounts"
        } else {
            "build cache that no image stands on"
        };
        let volumes = if self.volumes { "\n  - all volumes that no container uses" } else { "" };
        format!("WARNING! This will remove:\n  - {images}\n  - {cache}{volumes}\n")
    }
}
