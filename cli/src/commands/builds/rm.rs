//! `kiln builds rm`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use kiln::records;
use kiln_store::{BuildRow, BuildStatus, Builds};

use crate::arguments::builds::RmArguments;
use crate::rendering::printer::Printer;

pub(crate) fn run(arguments: &RmArguments, builds: &Builds, printer: &Printer) -> Result<ExitCode> {
    if arguments.all {
        for row in builds.list()?.iter().filter(|row| row.status != BuildStatus::Running) {
            builds.remove(&row.id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // All builds are resolved before the first is removed: a removal changes the meaning of `^1`.
    let found: Vec<_> = arguments.builds.iter().map(|text| records::find(builds, text)).collect();
    let mut code = ExitCode::SUCCESS;
    for row in found {
        if let Err(error) = row.and_then(|row| remove(builds, &row, printer)) {
            printer.error(&error);
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn remove(builds: &Builds, row: &BuildRow, printer: &Printer) -> Result<()> {
    if row.status == BuildStatus::Running {
        bail!("build {} is running", row.id);
    }
    if builds.remove(&row.id)? {
        printer.line(&row.id);
    }
    Ok(())
}
