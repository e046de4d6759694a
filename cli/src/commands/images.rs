//! `kiln images`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use time::OffsetDateTime;

use crate::image::{self, StoredImage};
use crate::printer::{Printer, human_age, human_size, table};
use crate::settings::Settings;

/// List images
#[derive(Debug, Args)]
pub(crate) struct ImagesArguments {
    /// Only images with this name, and tag where one is given
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Print image IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole IDs
    #[arg(long)]
    no_trunc: bool,
}

/// Lists the images of the store, newest first.
pub(crate) fn run(
    arguments: &ImagesArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let mut images = image::list(&store, &mut |damage| {
        printer.note(format_args!("WARNING: {damage}"));
    })?;
    if let Some(name) = &arguments.name {
        images.retain(|image| is_named(image, name));
    }
    let id = |image: &StoredImage| {
        if arguments.no_trunc { image.id.to_string() } else { image.id.short() }
    };
    if arguments.quiet {
        let mut shown = std::collections::BTreeSet::new();
        for image in images.iter().filter(|image| shown.insert(image.id)) {
            printer.line(id(image));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            let (repository, tag) = name_parts(image);
            let age = format!("{} ago", human_age(now - image.row.created_at));
            vec![repository, tag, id(image), age, human_size(image.size())]
        })
        .collect();
    printer.line(table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows));
    Ok(ExitCode::SUCCESS)
}

fn familiar(image: &StoredImage) -> Option<String> {
    let name = image.row.name.as_ref()?;
    let reference = name.parse::<kiln_oci::Reference>();
    Some(reference.map_or_else(|_| name.clone(), |reference| reference.familiar()))
}

fn name_parts(image: &StoredImage) -> (String, String) {
    let none = || "<none>".to_owned();
    let Some(name) = familiar(image) else { return (none(), none()) };
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name, none()),
    }
}

fn is_named(image: &StoredImage, wanted: &str) -> bool {
    let (repository, tag) = name_parts(image);
    wanted == repository || wanted == format!("{repository}:{tag}")
}
