//! `kiln inspect`, `kiln image inspect`.

use std::process::ExitCode;

use anyhow::Result;
use kiln::image::Wanted;
use kiln::image::named::find_named;

use crate::arguments::inspect::{InspectArguments, Kind};
use crate::rendering::description::describe;
use crate::rendering::format::{Document, inspect};
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::settings::parse_platform;

/// Prints a JSON array with one object per image, with docker's field names.
pub(crate) fn run(
    arguments: &InspectArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let Kind::Image = arguments.kind;
    let store = settings.store()?;
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let wanted = platform.as_ref().map_or(Wanted::Any, Wanted::Platform);
    let mut code = ExitCode::SUCCESS;
    let mut documents: Vec<Document> = Vec::new();
    for name in &arguments.images {
        match find_named(&store, name, wanted) {
            Ok(image) => documents.push(describe(&image)?),
            Err(error) => {
                printer.error(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    printer.raw(&inspect(&arguments.format, &documents)?);
    Ok(code)
}
