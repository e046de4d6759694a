//! `kiln man`: generates the manual pages for packages and `make install`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::arguments::man::ManArguments;

/// Writes the manual pages.
pub(crate) fn run(arguments: &ManArguments) -> Result<ExitCode> {
    let mut kiln = Arguments::command().disable_help_subcommand(true);
    kiln.build();
    let directory = &arguments.directory;
    write_pages(&kiln, directory)
        .with_context(|| format!("write manual pages to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and the pages of its subcommands.
fn write_pages(command: &Command, directory: &Path) -> std::io::Result<()> {
    let page = Man::new(command.clone()).source(concat!("kiln ", env!("CARGO_PKG_VERSION")));
    page.generate_to(directory)?;
    let mut visible = command.get_subcommands().filter(|below| !below.is_hide_set());
    visible.try_for_each(|below| write_pages(below, directory))
}
