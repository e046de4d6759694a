//! `kiln tag`, `kiln image tag`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::image::{find_rows, no_such_image};
use kiln_oci::Reference;
use kiln_store::ImageRow;
use time::OffsetDateTime;

use crate::arguments::tag::TagArguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;

/// Adds a name to an image.
pub(crate) fn run(arguments: &TagArguments, settings: &Settings, _: &Printer) -> Result<ExitCode> {
    let target: Reference = arguments.target.parse().with_context(|| {
        format!("error parsing reference: {:?} is not a valid repository/tag", arguments.target)
    })?;
    if target.digest().is_some() {
        bail!("refusing to create a tag with a digest reference");
    }
    let store = settings.store()?;
    let Some(row) = find_rows(&store, &arguments.source)?.into_iter().next() else {
        return Err(no_such_image(&store, &arguments.source));
    };
    let created_at = OffsetDateTime::now_utc().unix_timestamp();
    store.images().put(&ImageRow { name: Some(target.to_string()), created_at, ..row })?;
    Ok(ExitCode::SUCCESS)
}
