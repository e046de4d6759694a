//! `kiln diff`.

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::diff::{DiffArguments, Format};
use crate::flush;
use crate::rendering::diff::render;
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::settings::parse_platform;

/// The exit status for an error, as for `diff`.
const TROUBLE: u8 = 2;

/// Runs `kiln diff`.
pub(crate) async fn run(
    arguments: DiffArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match differ(&arguments, settings, printer).await {
        Ok(true) => Ok(ExitCode::FAILURE),
        Ok(false) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            printer.error(&error);
            Ok(ExitCode::from(TROUBLE))
        }
    }
}

/// Prints the differences between two images. Returns `true` if they differ.
async fn differ(arguments: &DiffArguments, settings: &Settings, printer: &Printer) -> Result<bool> {
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let engine = settings.engine()?;
    let report = engine.diff(&arguments.a, &arguments.b, platform).await?;
    match arguments.format {
        Format::Text => printer.raw(&render(&report)),
        Format::Json => printer.line(serde_json::to_string_pretty(&report)?),
    }
    flush::start(engine.store())?;
    Ok(!report.identical)
}
