//! `kiln manifest`.

use std::process::ExitCode;

use anyhow::Result;
use kiln::json::Json;
use kiln::remote_image::{Entry, RemoteImage, parse_reference};
use kiln_registry::Client;
use serde_json::{Value, json};

use crate::arguments::manifest::InspectArguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;

/// Runs `kiln manifest inspect`.
pub(crate) async fn run(
    arguments: InspectArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let reference = parse_reference(&arguments.image)?;
    let client = settings.registries.client();
    let image = RemoteImage::find(&client, &reference).await?;
    if !arguments.verbose {
        let indent = if image.is_index() { "   " } else { "\t" };
        printer.line(image.json()?.pretty(indent));
        return Ok(ExitCode::SUCCESS);
    }
    if !image.is_index() {
        let platform = image.platform(&client).await.unwrap_or_default();
        let described = describe(&image, &reference.to_string(), platform)?;
        printer.line(described.pretty("\t"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut all = Vec::new();
    for entry in image.parse()?.manifests {
        all.push(of_entry(&client, &image, entry).await?);
    }
    printer.line(Json::List(all).pretty("\t"));
    Ok(ExitCode::SUCCESS)
}

async fn of_entry(client: &Client, index: &RemoteImage, entry: Entry) -> Result<Json> {
    let manifest = RemoteImage::by_digest(client, &index.repository, &entry.digest).await?;
    let name = format!("{}@{}", index.repository, entry.digest);
    describe(&manifest, &name, entry.platform)
}

/// Describes a manifest in docker's format.
fn describe(image: &RemoteImage, name: &str, platform: Option<Value>) -> Result<Json> {
    let mut descriptor = vec![
        ("mediaType".to_owned(), Json::String(image.media_type.clone())),
        ("digest".to_owned(), Json::String(image.digest.to_string())),
        ("size".to_owned(), Json::of(&image.bytes.len())?),
    ];
    if let Some(platform) = platform {
        descriptor.push(("platform".to_owned(), Json::of(&platform)?));
    }
    let kind = match image.media_type.as_str() {
        kiln_oci::media_type::DOCKER_MANIFEST => "SchemaV2Manifest",
        _ => "OCIManifest",
    };
    Ok(Json::Object(vec![
        ("Ref".to_owned(), Json::of(&json!(name))?),
        ("Descriptor".to_owned(), Json::Object(descriptor)),
        (kind.to_owned(), image.json()?),
    ]))
}
