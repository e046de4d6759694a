//! `kiln system df`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use kiln::image::named::{NamedImage, is_tagged, named, repository};
use kiln_store::{CacheKind, CacheUsage, DiskUsage, ImageUsage, Store};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::arguments::system::DfArguments;
use crate::rendering::format::{Field, Listing};
use crate::rendering::printer::{Printer, human_age, human_size, table};
use crate::rendering::progress::clean_text;
use crate::settings::Settings;

/// The most characters of a description that the table shows.
const DESCRIPTION: usize = 60;

const LISTING: Listing<'_> = Listing {
    fields: &[
        Field::new("Active", "ACTIVE"),
        Field::new("Reclaimable", "RECLAIMABLE"),
        Field::new("ReclaimableBytes", "RECLAIMABLE BYTES"),
        Field::new("Size", "SIZE"),
        Field::new("SizeBytes", "SIZE BYTES"),
        Field::new("TotalCount", "TOTAL"),
        Field::new("Type", "TYPE"),
    ],
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
};

/// Runs `kiln system df`.
pub(crate) fn run(
    arguments: &DfArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let usage = store.disk_usage()?;
    match (arguments.verbose, arguments.format.as_deref()) {
        (false, format) => {
            printer.raw(&LISTING.render(format.unwrap_or("table"), &rows(&usage))?);
        }
        (true, None | Some("table")) => printer.text(&details(&store, &usage, printer)?),
        (true, Some("json")) => printer.line(document(&usage)),
        (true, Some(_)) => bail!("--verbose has no templates: expected --format table or json"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns one row per kind of object.
fn rows(usage: &DiskUsage) -> Vec<Vec<String>> {
    let mounts = |part: &&CacheUsage| part.kind == CacheKind::CacheMount;
    let layers = || usage.cache.iter().filter(|part| !mounts(part));
    let mounts = || usage.cache.iter().filter(mounts);
    let mount_bytes: u64 = mounts().map(|part| part.bytes).sum();
    let used_mounts: u64 = mounts().filter(|part| part.is_used).map(|part| part.bytes).sum();
    let (image_bytes, unused_images) = usage.images_bytes;
    let (cache, reclaimable) = usage.cache_bytes;
    let (builds, build_bytes) = usage.builds;
    let volumes: u64 = usage.volumes.iter().map(|volume| volume.bytes).sum();
    let used_volumes: u64 =
        usage.volumes.iter().filter(|volume| volume.is_used).map(|volume| volume.bytes).sum();
    let used_images = usage.images.iter().filter(|image| image.is_used).count();
    let own = usage.index_bytes + usage.temporary_bytes;
    let used_volume_count = usage.volumes.iter().filter(|volume| volume.is_used).count();
    let used_layer_count = layers().filter(|part| part.is_used).count();
    let used_mount_count = mounts().filter(|part| part.is_used).count();
    vec![
        row("Images", usage.images.len(), used_images, image_bytes, unused_images),
        row(
            "Local Volumes",
            usage.volumes.len(),
            used_volume_count,
            volumes,
            volumes - used_volumes,
        ),
        row(
            "Build Cache",
            layers().count(),
            used_layer_count,
            cache - mount_bytes,
            reclaimable - (mount_bytes - used_mounts),
        ),
        row(
            "Cache Mounts",
            mounts().count(),
            used_mount_count,
            mount_bytes,
            mount_bytes - used_mounts,
        ),
        row("Build History", builds as usize, 0, build_bytes, 0),
        row("Store", 1, 1, own, 0),
    ]
}

/// Returns the row of a kind of object: their number, the number in use, their size in bytes, and
/// the number of reclaimable bytes.
fn row(kind: &str, total: usize, active: usize, bytes: u64, reclaimable: u64) -> Vec<String> {
    let share = (reclaimable * 100).checked_div(bytes);
    let share = share.map(|share| format!(" ({share}%)")).unwrap_or_default();
    vec![
        active.to_string(),
        format!("{}{share}", human_size(reclaimable)),
        reclaimable.to_string(),
        human_size(bytes),
        bytes.to_string(),
        total.to_string(),
        kind.to_owned(),
    ]
}

/// Lists every object.
fn details(store: &Store, usage: &DiskUsage, printer: &Printer) -> Result<String> {
    let images = named(store, &mut |damage| {
        printer.note(format_args!("WARNING: {damage}"));
    })?;
    let now = OffsetDateTime::now_utc();
    let rows: Vec<Vec<String>> = images
        .iter()
        .filter_map(|image| {
            let found = usage.images.iter().find(|it| it.digest == image.image.row.digest)?;
            Some(image_row(image, found, now))
        })
        .collect();
    let heading = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "IN USE",
    ];
    let images = table(&heading, &rows);
    let rows: Vec<Vec<String>> = usage
        .volumes
        .iter()
        .map(|it| vec![it.name.clone(), it.is_used.to_string(), human_size(it.bytes)])
        .collect();
    let volumes = table(&["VOLUME NAME", "IN USE", "SIZE"], &rows);
    let rows: Vec<Vec<String>> = usage.cache.iter().map(|part| cache_row(part, now)).collect();
    let heading = [
        "CACHE ID",
        "CACHE TYPE",
        "SIZE",
        "CREATED",
        "LAST USED",
        "IN USE",
        "SHARED",
        "DESCRIPTION",
    ];
    let cache = table(&heading, &rows);
    Ok(format!(
        "Images space usage:\n\n{images}\n\nLocal Volumes space usage:\n\n{volumes}\n\n\
         Build cache usage: {}\n\n{cache}\n\nBuild history: {}\nStore: {}\nTotal: {}",
        human_size(usage.cache_bytes.0),
        human_size(usage.builds.1),
        human_size(usage.index_bytes + usage.temporary_bytes),
        human_size(usage.total()),
    ))
}

fn image_row(image: &NamedImage, usage: &ImageUsage, now: OffsetDateTime) -> Vec<String> {
    let none = || "<none>".to_owned();
    let name = image.names.iter().find(|name| is_tagged(name)).or(image.names.first());
    let tag = name.and_then(|name| name.tag().map(str::to_owned));
    vec![
        name.map_or_else(none, repository),
        tag.unwrap_or_else(none),
        image.image.id.short(),
        age((image.created()) as i64, now),
        human_size(usage.bytes),
        human_size(usage.shared_bytes),
        human_size(usage.bytes - usage.shared_bytes),
        usage.is_used.to_string(),
    ]
}

fn cache_row(part: &CacheUsage, now: OffsetDateTime) -> Vec<String> {
    let description = description(part);
    let description = if description.chars().count() > DESCRIPTION {
        description.chars().take(DESCRIPTION - 1).chain(['…']).collect()
    } else {
        description
    };
    vec![
        part.id.clone(),
        part.kind.as_str().to_owned(),
        human_size(part.bytes),
        age(part.created_at, now),
        age(part.used_at, now),
        part.is_used.to_string(),
        part.is_shared.to_string(),
        description,
    ]
}

/// Returns the description of a part of the cache. For a step's record, it is the step's name.
fn description(part: &CacheUsage) -> String {
    let record: Option<Value> = serde_json::from_str(&part.description).ok();
    let name = record.as_ref().and_then(|record| record["name"].as_str());
    clean_text(name.unwrap_or(&part.description))
}

fn age(nanoseconds: i64, now: OffsetDateTime) -> String {
    format!("{} ago", human_age(now.unix_timestamp() - nanoseconds / 1_000_000_000))
}

/// Returns the usage as JSON: sizes in bytes, times in RFC 3339.
fn document(usage: &DiskUsage) -> Value {
    let images = usage.images.iter().map(|image| {
        json!({
            "Digest": image.digest,
            "Size": image.bytes,
            "SharedSize": image.shared_bytes,
            "UniqueSize": image.bytes - image.shared_bytes,
            "InUse": image.is_used,
        })
    });
    let volumes = usage.volumes.iter().map(
        |volume| json!({ "Name": volume.name, "Size": volume.bytes, "InUse": volume.is_used }),
    );
    let cache = usage.cache.iter().map(|part| {
        json!({
            "ID": part.id,
            "Parent": part.parent,
            "Type": part.kind.as_str(),
            "Description": description(part),
            "Size": part.bytes,
            "CreatedAt": crate::rendering::times::timestamp(part.created_at),
            "LastUsedAt": crate::rendering::times::timestamp(part.used_at),
            "InUse": part.is_used,
            "Shared": part.is_shared,
        })
    });
    json!({
        "Images": images.collect::<Vec<_>>(),
        "Volumes": volumes.collect::<Vec<_>>(),
        "BuildCache": cache.collect::<Vec<_>>(),
        "BuildHistory": { "Builds": usage.builds.0, "Size": usage.builds.1 },
        "Store": { "Size": usage.index_bytes + usage.temporary_bytes },
        "Total": usage.total(),
    })
}
