//! `kiln history`, `kiln image history`.

use std::process::ExitCode;

use anyhow::Result;
use kiln::image::named::nanoseconds;
use kiln::image::{self, StoredImage, Wanted};
use kiln_oci::{Digest, History};
use kiln_store::Store;
use time::OffsetDateTime;

use crate::arguments::history::HistoryArguments;
use crate::rendering::format::{Field, Listing};
use crate::rendering::printer::{Printer, human_age, human_size};
use crate::rendering::progress::clean_text;
use crate::settings::Settings;
use crate::settings::parse_platform;

/// The most characters of an instruction that the table shows.
const INSTRUCTION: usize = 45;

const LISTING: Listing<'_> = Listing {
    fields: &[
        Field::new("Comment", "COMMENT"),
        Field::new("CreatedAt", "CREATED AT"),
        Field::new("CreatedBy", "CREATED BY"),
        Field::new("CreatedSince", "CREATED"),
        Field::new("ID", "IMAGE"),
        Field::new("Size", "SIZE"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
};

/// The columns of a table for programs.
const EXACT: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

/// Runs `kiln history`.
pub(crate) fn run(
    arguments: &HistoryArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let wanted = platform.as_ref().map_or(Wanted::Any, Wanted::Platform);
    let found = match image::find(&store, &arguments.image, wanted) {
        Err(error) if ["ls", "inspect", "logs", "rm"].contains(&arguments.image.as_str()) => {
            return Err(error.context(format!(
                "`kiln history` shows how an image was made; for builds use `kiln builds {}`",
                arguments.image
            )));
        }
        found => found?,
    };
    let now = OffsetDateTime::now_utc();
    let mut rows = Vec::new();
    for image in found.iter().take(1) {
        for (place, (entry, size)) in entries(&store, image)?.iter().rev().enumerate() {
            let id = (place == 0).then_some(&image.id);
            rows.push(row(arguments, id, entry, *size, now));
        }
    }
    let table = if arguments.human { LISTING.table } else { EXACT };
    let format = match arguments.format.as_deref() {
        None if arguments.quiet => "{{.ID}}",
        format => format.unwrap_or("table"),
    };
    printer.raw(&Listing { table, ..LISTING }.render(format, &rows)?);
    Ok(ExitCode::SUCCESS)
}

/// Returns the steps, oldest first, each with the compressed size of its layer.
fn entries(store: &Store, image: &StoredImage) -> Result<Vec<(History, u64)>> {
    let manifest = image::manifest(store, &image.digest)?;
    let mut sizes = manifest.layers.iter().map(|layer| layer.size);
    let mut entry = |entry: &History| {
        let size = if entry.empty_layer { None } else { sizes.next() };
        (entry.clone(), size.unwrap_or_default())
    };
    Ok(image.config.history.iter().map(&mut entry).collect())
}

fn row(
    arguments: &HistoryArguments,
    id: Option<&Digest>,
    entry: &History,
    size: u64,
    now: OffsetDateTime,
) -> Vec<String> {
    let seconds = entry.created.as_deref().map_or(0, nanoseconds).div_euclid(1_000_000_000) as i64;
    let created_at = rfc3339(seconds);
    let since = match seconds {
        _ if !arguments.human => created_at.clone(),
        0 => "N/A".to_owned(),
        seconds => format!("{} ago", human_age(now.unix_timestamp() - seconds)),
    };
    let by = clean_text(&entry.created_by.replace('\t', " "));
    vec![
        clean_text(&entry.comment),
        created_at,
        if arguments.no_trunc { by } else { shorten(&by) },
        since,
        match id {
            Some(id) if arguments.no_trunc => id.to_string(),
            Some(id) => id.short(),
            None => "<missing>".to_owned(),
        },
        if arguments.human { human_size(size) } else { size.to_string() },
    ]
}

fn rfc3339(seconds: i64) -> String {
    let format = &time::format_description::well_known::Rfc3339;
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(format).ok()).unwrap_or_default()
}

/// Shortens an instruction to the width of the table's column.
fn shorten(text: &str) -> String {
    if crate::rendering::progress::columns(text) <= INSTRUCTION {
        return text.to_owned();
    }
    format!("{}…", crate::rendering::progress::fit(text, INSTRUCTION - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_instructions_are_cut() {
        assert_eq!(shorten("RUN true"), "RUN true");
        let exact = "x".repeat(INSTRUCTION);
        assert_eq!(shorten(&exact), exact);
        assert_eq!(shorten(&format!("{exact}x")), format!("{}…", "x".repeat(INSTRUCTION - 1)));
        let wide = "字".repeat(30);
        assert_eq!(shorten(&wide), format!("{}…", "字".repeat(22)));
    }
}
