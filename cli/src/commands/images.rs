//! `kiln images`, `kiln image ls`.

use std::process::ExitCode;

use anyhow::Result;
use kiln::image::named::{NamedImage, is_tagged, named, repository};
use kiln_oci::Reference;
use time::OffsetDateTime;

use crate::arguments::images::ImagesArguments;
use crate::rendering::format::{Field, Listing};
use crate::rendering::printer::{Printer, human_age, human_size};
use crate::settings::Settings;
use crate::settings::filter::{Filters, OF_LISTS};

const NONE: &str = "<none>";

const LISTING: Listing<'_> = Listing {
    fields: &[
        Field::new("Containers", "CONTAINERS"),
        Field::new("CreatedAt", "CREATED AT"),
        Field::new("CreatedSince", "CREATED"),
        Field::new("Digest", "DIGEST"),
        Field::new("ID", "IMAGE ID"),
        Field::new("Repository", "REPOSITORY"),
        Field::new("SharedSize", "SHARED SIZE"),
        Field::new("Size", "SIZE"),
        Field::new("Tag", "TAG"),
        Field::new("UniqueSize", "UNIQUE SIZE"),
        Field::new("VirtualSize", "SIZE"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
};

/// The columns of a table with digests.
const WITH_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// Runs `kiln images`.
pub(crate) fn run(
    arguments: &ImagesArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let mut filters = Filters::parse(&arguments.filters, OF_LISTS, &store)?;
    if let Some(name) = &arguments.name {
        filters.add_reference(name)?;
    }
    let images = named(&store, &mut |damage| {
        printer.note(format_args!("WARNING: {damage}"));
    })?;
    let now = OffsetDateTime::now_utc();
    let mut rows = Vec::new();
    for image in images.into_iter().filter_map(|image| filters.admit(image)) {
        for (repository, tag) in rows_of(&image) {
            rows.push(row(&image, repository, tag, arguments.no_trunc, now));
        }
    }
    printer.raw(&listing(arguments).render(&format(arguments), &rows)?);
    Ok(ExitCode::SUCCESS)
}

fn format(arguments: &ImagesArguments) -> String {
    match &arguments.format {
        None if arguments.quiet => "{{.ID}}".to_owned(),
        None => "table".to_owned(),
        Some(format) if format == "table" && arguments.quiet => "{{.ID}}".to_owned(),
        Some(format) => {
            let lacks_digest = arguments.digests && !format.contains("{{.Digest}}");
            let is_table = format.starts_with("table ");
            if is_table && lacks_digest {
                format!("{format}\t{{{{.Digest}}}}")
            } else {
                format.clone()
            }
        }
    }
}

fn listing(arguments: &ImagesArguments) -> Listing<'static> {
    let table = if arguments.digests { WITH_DIGESTS } else { LISTING.table };
    Listing { table, ..LISTING }
}

/// Returns the repository and tag of each of an image's rows: one row for each tag, and one for
/// each repository in which the image is named by digest only.
fn rows_of(image: &NamedImage) -> Vec<(String, String)> {
    let none = || NONE.to_owned();
    let (tagged, pinned): (Vec<&Reference>, Vec<_>) =
        image.names.iter().partition(|name| is_tagged(name));
    let tag = |name: &&Reference| (repository(name), name.tag().map_or_else(none, str::to_owned));
    let mut rows: Vec<(String, String)> = tagged.iter().map(tag).collect();
    for name in pinned {
        let repository = repository(name);
        if !rows.iter().any(|(known, _)| *known == repository) {
            rows.push((repository, none()));
        }
    }
    if rows.is_empty() {
        rows.push((none(), none()));
    }
    rows
}

fn row(
    image: &NamedImage,
    repository: String,
    tag: String,
    no_trunc: bool,
    now: OffsetDateTime,
) -> Vec<String> {
    let id = image.image.id;
    let created = image.created().div_euclid(1_000_000_000) as i64;
    let digest =
        if repository == NONE { NONE.to_owned() } else { image.image.row.digest.to_string() };
    let size = human_size(image.image.size());
    let unknown = || "N/A".to_owned();
    vec![
        unknown(),
        created_at(created),
        format!("{} ago", human_age(now.unix_timestamp() - created)),
        digest,
        if no_trunc { id.to_string() } else { id.short() },
        repository,
        unknown(),
        size.clone(),
        tag,
        unknown(),
        size,
    ]
}

/// Returns a time in the format of Go's `time.Time.String`.
fn created_at(seconds: i64) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC"
    );
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&format).ok()).unwrap_or_default()
}
