//! `kiln inspect`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kiln_oci::Descriptor;
use serde_json::{Value, json};

use crate::build::parse_platform;
use crate::image::{self, StoredImage, Wanted};
use crate::printer::Printer;
use crate::settings::Settings;

/// Show everything about images, as JSON
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Show the image for this platform, where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
}

/// Prints a JSON array with an object for each image, in docker's terms.
pub(crate) fn run(
    arguments: &InspectArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let wanted = platform.as_ref().map_or(Wanted::Any, Wanted::Platform);
    let mut code = ExitCode::SUCCESS;
    let mut described = Vec::new();
    for name in &arguments.images {
        match image::find(&store, name, wanted) {
            Ok(found) => described.push(describe(&found)?),
            Err(error) => {
                printer.error(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    printer.line(serde_json::to_string_pretty(&described)?);
    Ok(code)
}

/// Describes one image; `rows` are its names.
fn describe(rows: &[StoredImage]) -> Result<Value> {
    let Some(image) = rows.first() else { return Ok(Value::Null) };
    let names: Vec<String> = rows
        .iter()
        .filter_map(|image| image.row.name.as_deref()?.parse::<kiln_oci::Reference>().ok())
        .map(|reference| reference.familiar())
        .collect();
    let config = &image.config;
    let mut value = json!({
        "Id": image.id,
        "RepoTags": names,
        "Descriptor": {
            "mediaType": image.row.media_type,
            "digest": image.row.digest,
            "size": image.row.size,
        },
        "Created": config.created,
        "Author": config.author,
        "Config": serde_json::to_value(&config.config)?,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": image.size(),
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids() },
    });
    if !image.entries.is_empty() {
        value["Manifests"] = image.entries.iter().map(describe_entry).collect();
    }
    Ok(value)
}

/// Describes an entry of an index.
fn describe_entry((entry, is_there): &(Descriptor, bool)) -> Value {
    json!({
        "ID": entry.digest(),
        "Descriptor": entry,
        "Available": is_there,
        "Kind": "image",
        "ImageData": { "Platform": entry.platform() },
    })
}
