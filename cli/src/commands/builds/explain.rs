//! `kiln builds explain`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kiln_store::Store;

use super::Format;
use crate::printer::Printer;
use kiln::explain;
use kiln::records::{self, BuildRecord};

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The build; with a second one, the earlier of the two
    #[arg(value_name = "BUILD", default_value = "latest")]
    build: String,
    /// A build to be compared with the first: what is different about each of its steps is said,
    /// whether the step ran or not
    #[arg(value_name = "BUILD")]
    other: Option<String>,
    /// The format of the output
    #[arg(long, value_enum, default_value = "pretty", hide_default_value = true)]
    format: Format,
}

pub(super) fn run(
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
        printer.text(&explanation.text());
    }
    Ok(ExitCode::SUCCESS)
}
