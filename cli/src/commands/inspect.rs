//! `kiln inspect`, `kiln image inspect`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::build::parse_platform;
use crate::format::{Document, inspect};
use crate::image::description::describe;
use crate::printer::Printer;
use crate::settings::Settings;
use kiln::image::Wanted;
use kiln::image::named::find_named;

/// Show everything about images, as JSON
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The format of the output: json for an array on one line, or a Go template for each image
    #[arg(short, long, value_name = "FORMAT", default_value = "", hide_default_value = true)]
    format: String,
    /// The type of the objects
    #[arg(long = "type", value_enum, default_value = "image", hide_default_value = true)]
    kind: Kind,
    /// Show the image for this platform, where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
}

/// The type of object to inspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Images: containers are never kept
    Image,
}

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
