//! `kiln imagetools inspect`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use kiln::json::Json;
use kiln::remote_image::attestation::{Kind, REFERENCE_TYPE, statements};
use kiln::remote_image::{Entry, RemoteImage, parse_reference};
use kiln_registry::Client;

use crate::arguments::imagetools::InspectArguments;
use crate::rendering::format::{Columns, Document};
use crate::rendering::printer::Printer;
use crate::rendering::progress::clean_text;
use crate::settings::Settings;

/// Runs `kiln imagetools inspect`.
pub(crate) async fn run(
    arguments: InspectArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let reference = parse_reference(&arguments.image)?;
    let client = settings.registries.client();
    let image = RemoteImage::find(&client, &reference).await?;
    let name = reference.to_string();
    if arguments.raw {
        printer.bytes(&image.bytes);
    } else if arguments.format.is_empty() {
        printer.raw(&clean_text(&describe(&name, &image)?));
    } else {
        let document = document(&client, &name, &image, &arguments.format).await?;
        let format = if arguments.format == "json" { "{{json .}}" } else { &arguments.format };
        let text = document.execute(format)?;
        printer.raw(text.strip_suffix('\n').unwrap_or(&text));
    }
    Ok(ExitCode::SUCCESS)
}

/// Describes an image in buildx's format.
fn describe(name: &str, image: &RemoteImage) -> Result<String> {
    let mut head = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(
        head,
        "Name:\t{name}\nMediaType:\t{}\nDigest:\t{}",
        image.media_type, image.digest
    );
    let narrow = Columns { narrowest: 0, padding: 1, tab: None };
    let mut text = narrow.align(&head);
    if !image.is_index() {
        return Ok(text);
    }
    text.push_str(&narrow.align("\t\nManifests:\t\n"));
    let wide = Columns { narrowest: 0, padding: 2, tab: None };
    let mut part = String::new();
    for (place, entry) in image.parse()?.manifests.iter().enumerate() {
        if place > 0 {
            part.push_str("\t\n");
        }
        describe_entry(&mut part, entry, image);
        if let Some(annotations) = entry.annotations.as_ref().filter(|all| !all.is_empty()) {
            part.push_str("  Annotations:\t\n");
            text.push_str(&wide.align(&std::mem::take(&mut part)));
            let lines = annotations.iter().map(|(key, value)| format!("    {key}:\t{value}\n"));
            text.push_str(&narrow.align(&lines.collect::<String>()));
        }
    }
    text.push_str(&wide.align(&part));
    Ok(text)
}

fn describe_entry(part: &mut String, entry: &Entry, image: &RemoteImage) {
    let _ = writeln!(part, "  Name:\t{}@{}", image.repository, entry.digest);
    let _ = writeln!(part, "  MediaType:\t{}", entry.media_type);
    if let Some(platform) = entry.platform_text() {
        let _ = writeln!(part, "  Platform:\t{platform}");
    }
    if let Some(urls) = &entry.urls {
        let _ = writeln!(part, "  URLs:\t{}", urls.join(", "));
    }
}

/// Returns the document for a template. Fetches only the parts that the template names.
async fn document(
    client: &Client,
    name: &str,
    image: &RemoteImage,
    format: &str,
) -> Result<Document> {
    let is_asked =
        |field: &str| format.contains(field) || format == "json" || format.contains("json .}}");
    let mut members = vec![
        ("name".to_owned(), Json::String(name.to_owned())),
        ("manifest".to_owned(), manifest(image)?),
    ];
    if is_asked(".Image") {
        members.push(("image".to_owned(), configs(client, image).await?));
    }
    for (field, member, kind) in
        [(".Provenance", "provenance", Kind::Provenance), (".SBOM", "sbom", Kind::Sbom)]
    {
        let found = if is_asked(field) && image.is_index() {
            statements(client, image, kind).await?
        } else {
            Json::Object(Vec::new())
        };
        members.push((member.to_owned(), found));
    }
    let field = |name: &str| match name {
        "name" => "Name",
        "manifest" => "Manifest",
        "image" => "Image",
        "provenance" => "Provenance",
        _ => "SBOM",
    };
    let fields = members.iter().map(|(name, value)| (field(name).to_owned(), value.clone()));
    let fields = Json::Object(fields.collect());
    Ok(Document::renamed(Json::Object(members), fields))
}

/// Returns the descriptor of an image and, for an index, its entries.
fn manifest(image: &RemoteImage) -> Result<Json> {
    let json = image.json()?;
    let mut members = Vec::new();
    if image.is_index() {
        members.push(("schemaVersion".to_owned(), Json::of(&2)?));
    }
    members.push(("mediaType".to_owned(), Json::String(image.media_type.clone())));
    members.push(("digest".to_owned(), Json::String(image.digest.to_string())));
    members.push(("size".to_owned(), Json::of(&image.bytes.len())?));
    for name in ["manifests", "annotations"] {
        if let Some(value) = json.get(name).filter(|_| image.is_index() || name == "annotations") {
            members.push((name.to_owned(), value.clone()));
        }
    }
    Ok(Json::Object(members))
}

/// Returns the config of an image. For an index of several images, returns the configs by platform.
async fn configs(client: &Client, image: &RemoteImage) -> Result<Json> {
    if !image.is_index() {
        return image.config(client).await;
    }
    let mut all = Vec::new();
    for entry in image.parse()?.manifests {
        let Some(platform) =
            entry.platform_text().filter(|_| entry.annotation(REFERENCE_TYPE).is_none())
        else {
            continue;
        };
        let manifest = RemoteImage::by_digest(client, &image.repository, &entry.digest).await?;
        if !manifest.is_index() {
            all.push((platform, manifest.config(client).await?));
        }
    }
    if let [(_, only)] = all.as_slice() {
        return Ok(only.clone());
    }
    Ok(Json::Object(all))
}
