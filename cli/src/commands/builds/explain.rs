//! `kiln builds explain`.

use std::process::ExitCode;

use anyhow::Result;
use kiln::Engine;

use crate::arguments::builds::{ExplainArguments, Format};
use crate::rendering::explanation;
use crate::rendering::printer::Printer;

pub(crate) fn run(
    arguments: &ExplainArguments,
    engine: &Engine,
    printer: &Printer,
) -> Result<ExitCode> {
    let explanation = engine.explain(&arguments.build, arguments.other.as_deref())?;
    if arguments.format == Format::Json {
        printer.line(serde_json::to_string_pretty(&explanation)?);
    } else {
        printer.text(&explanation::text(&explanation));
    }
    Ok(ExitCode::SUCCESS)
}
