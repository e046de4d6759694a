//! `kiln tag`, `kiln image tag`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln_oci::Reference;

use crate::arguments::tag::TagArguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;

/// Adds a name to an image.
pub(crate) fn run(arguments: &TagArguments, settings: &Settings, _: &Printer) -> Result<ExitCode> {
    let target: Reference = arguments.target.parse().with_context(|| {
        format!("error parsing reference: {:?} is not a valid repository/tag", arguments.target)
    })?;
    if target.digest().is_some() {
        bail!("refusing to create a tag with a digest reference");
    }
    settings.engine()?.tag(&arguments.source, &target)?;
    Ok(ExitCode::SUCCESS)
}
