//! `kiln man`: generates the manual pages for packages and `make install`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::arguments::Arguments;

/// Write the manual pages
///
/// There is one page for each command: kiln.1, kiln-build.1 and so on.
#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Existing directory that the pages are written to
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

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
