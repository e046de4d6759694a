//! `kiln rmi`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use kiln_store::Store;

use crate::image::{self, Wanted};
use crate::printer::Printer;
use crate::settings::Settings;

/// Remove images: by name, which takes the name away and removes the image when it was the last;
/// or by ID
#[derive(Debug, Args)]
pub(crate) struct RmiArguments {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image that has several names by its ID; don't fail on images that aren't there
    #[arg(short, long)]
    force: bool,
}

/// Removes images; goes on after one that can't be removed, and fails at the end.
pub(crate) fn run(
    arguments: &RmiArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let mut code = ExitCode::SUCCESS;
    for name in &arguments.images {
        match remove(&store, name, arguments.force) {
            Ok(lines) => lines.iter().for_each(|line| printer.line(line)),
            Err(_) if arguments.force && image::find(&store, name, Wanted::Any).is_err() => {}
            Err(error) => {
                printer.error(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    store.collect()?;
    Ok(code)
}

fn remove(store: &Store, text: &str, force: bool) -> Result<Vec<String>> {
    let found = image::find(store, text, Wanted::Any)?;
    let Some(first) = found.first() else { bail!("no such image: {text}") };
    let by_name = first.row.name.as_deref().is_some_and(|name| {
        text.parse::<kiln_oci::Reference>().is_ok_and(|reference| reference.to_string() == name)
    });
    let same = |row: &kiln_store::ImageRow| row.digest == first.row.digest;
    let names = store.images().list()?.iter().filter(|row| same(row)).count();
    if by_name && names > 1 {
        let name = first.row.name.as_deref().unwrap_or_default();
        store.images().remove_name(name)?;
        return Ok(vec![format!("Untagged: {}", familiar(name))]);
    }
    if !by_name && names > 1 && !force {
        bail!("the image {text} has {names} names: remove them one by one, or use --force");
    }
    let removed = store.images().remove(&first.row.digest)?;
    let mut lines: Vec<String> =
        removed.iter().map(|name| format!("Untagged: {}", familiar(name))).collect();
    lines.push(format!("Deleted: {}", first.id));
    Ok(lines)
}

fn familiar(name: &str) -> String {
    name.parse::<kiln_oci::Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
