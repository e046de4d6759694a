//! The arguments of `kiln man`.

use std::path::PathBuf;

use clap::Args;

/// Write the manual pages
///
/// There is one page for each command: kiln.1, kiln-build.1 and so on.
#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Existing directory that the pages are written to
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
