//! `kiln system check`.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::arguments::system::CheckArguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;

/// Checks the store. Repaired damage isn't a failure.
pub(crate) fn run(
    arguments: &CheckArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let problems = kiln_store::check_index(&settings.root)?;
    for problem in &problems {
        printer.line(format_args!("index: {problem}"));
    }
    if !problems.is_empty() {
        if !arguments.repair {
            return Ok(ExitCode::FAILURE);
        }
        let kept = kiln_store::replace_index(&settings.root).context("replace the index")?;
        printer.line(format_args!("the index was put aside as {}", kept.display()));
    }
    let store = settings.store()?;
    let found = store.check()?;
    for damage in &found {
        printer.line(damage);
    }
    if found.is_empty() {
        if problems.is_empty() {
            printer.line("The store is in order.");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.repair {
        return Ok(ExitCode::FAILURE);
    }
    store.repair(&found).context("repair the store")?;
    Ok(ExitCode::SUCCESS)
}
