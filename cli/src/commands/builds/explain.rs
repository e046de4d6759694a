//! `kiln builds explain`.

use std::process::ExitCode;

use anyhow::Result;
use kiln::explain;
use kiln::records::{self, BuildRecord};
use kiln_store::Store;

use crate::arguments::builds::{ExplainArguments, Format};
use crate::rendering::explanation;
use crate::rendering::printer::Printer;

pub(crate) fn run(
    arguments: &ExplainArguments,
    store: &Store,
    printer: &Printer,
) -> Result<ExitCode> {
    let builds = store.builds();
    let row = records::find(&builds, &arguments.build)?;
    let record = BuildRecord::of(&row)?;
    let explanation = match &arguments.other {
        None => explain::of_build(store, &row, &record)?,
        Some(other) => {
            let other = records::find(&builds, other)?;
            let other_record = BuildRecord::of(&other)?;
            explain::between(store, &row, &record, &other, &other_record)?
        }
    };
    if arguments.format == Format::Json {
        printer.line(serde_json::to_string_pretty(&explanation)?);
    } else {
        printer.text(&explanation::text(&explanation));
    }
    Ok(ExitCode::SUCCESS)
}
