//! `kiln rmi`, `kiln image rm`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::printer::Printer;
use crate::settings::Settings;
use kiln::image::removal::{Removal, Removed};

/// Remove images: by name, which takes the name away and removes the image when it was the last;
/// or by ID
#[derive(Debug, Args)]
pub(crate) struct RmiArguments {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image that has several names by its ID; don't fail on images that aren't there
    #[arg(short, long)]
    force: bool,
    /// Leave layers and blobs that are of no use any more to the next clean-up
    #[arg(long)]
    no_prune: bool,
}

/// Removes images. Continues after an image that can't be removed, and fails at the end.
pub(crate) fn run(
    arguments: &RmiArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let mut code = ExitCode::SUCCESS;
    let mut done = Vec::new();
    let together = store.images().together();
    let mut removal = Removal::begin(&store, &mut |_| ())?;
    for name in &arguments.images {
        let removed = match removal.remove(name, arguments.force) {
            Ok(None) if !arguments.force => Err(removal.no_such_image(name)),
            removed => removed,
        };
        match removed {
            Ok(removed) => done.extend(removed),
            Err(error) => {
                printer.error(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    together.end()?;
    if !arguments.no_prune && done.iter().any(|removed| removed.deleted.is_some()) {
        store.collect()?;
    }
    for removed in &done {
        for line in report(removed, "Untagged", "Deleted", removed.gone(&store)?) {
            printer.line(line);
        }
    }
    Ok(code)
}

/// Returns docker's lines about a removed image: its names with the prefix `untagged`, and its
/// digests with the prefix `deleted`.
pub(super) fn report(
    removed: &Removed,
    untagged: &str,
    deleted: &str,
    gone: Vec<kiln_oci::Digest>,
) -> Vec<String> {
    let names = removed.untagged.iter().map(|name| format!("{untagged}: {name}"));
    let digests = removed.deleted.iter().copied().chain(gone);
    names.chain(digests.map(|digest| format!("{deleted}: {digest}"))).collect()
}
