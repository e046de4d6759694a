//! Confirmation before data is removed.

use std::io::BufRead as _;

use anyhow::{Context, Result};

use crate::rendering::printer::Printer;

/// Prints a warning and reads the user's answer from standard input. Returns `true` for yes.
///
/// # Errors
/// Fails if standard input can't be read.
pub(crate) fn confirm(warning: &str, printer: &Printer) -> Result<bool> {
    printer.line(warning);
    printer.raw("Are you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
