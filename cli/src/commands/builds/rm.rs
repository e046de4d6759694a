//! `kiln builds rm`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use kiln_store::{BuildRow, BuildStatus, Builds};

use crate::printer::Printer;
use kiln::records;

#[derive(Debug, Args)]
pub(super) struct RmArguments {
    /// The builds to remove
    #[arg(value_name = "BUILD", required_unless_present = "all", conflicts_with = "all")]
    builds: Vec<String>,
    /// All builds but those that run
    #[arg(long)]
    all: bool,
}

pub(super) fn run(arguments: &RmArguments, builds: &Builds, printer: &Printer) -> Result<ExitCode> {
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
