//! `kiln rmi`, `kiln image rm`.

use std::process::ExitCode;

use anyhow::Result;
use kiln::image::removal::Removal;

use crate::arguments::rmi::RmiArguments;
use crate::rendering::printer::Printer;
use crate::rendering::removal as report;
use crate::settings::Settings;

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
        for line in report::image(removed, "Untagged", "Deleted", removed.gone(&store)?) {
            printer.line(line);
        }
    }
    Ok(code)
}
