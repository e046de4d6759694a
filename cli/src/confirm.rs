//! Questions before something is lost.

use std::io::BufRead as _;

use anyhow::{Context, Result};

use crate::printer::Printer;

/// Tells what is about to happen, and asks on standard input whether that is wanted.
///
/// # Errors
/// Fails where standard input can't be read.
pub(crate) fn confirm(warning: &str, printer: &Printer) -> Result<bool> {
    printer.line(warning);
    printer.raw("Are you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
