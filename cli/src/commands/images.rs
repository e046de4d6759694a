//! `kiln images`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use time::OffsetDateTime;

use crate::image::{self, StoredImage};
use crate::printer::{Printer, human_size, table};
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

/// Returns a time span as docker says it: `3 minutes`, `About an hour`.
fn human_age(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        i64::MIN..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::human_age;

    #[test]
    fn ages_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86400 * 3, "3 days"),
            (86400 * 20, "2 weeks"),
            (86400 * 100, "3 months"),
            (86400 * 800, "2 years"),
        ] {
            assert_eq!(human_age(seconds), text);
        }
    }
}
