//! The versions of kiln and of the kernel, and documents about them.

use anyhow::Result;
use kiln::json::Json;
use serde_json::Value;

use super::format::Document;
use super::printer::Printer;

/// kiln's version, from its manifest.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints a document: on one line for `json`, else through a template.
pub(crate) fn show(document: &Value, format: &str, printer: &Printer) -> Result<()> {
    let json = Json::of(document)?;
    if format == "json" {
        printer.line(json.compact());
    } else {
        printer.raw(&Document::renamed(json.clone(), json).execute(format)?);
    }
    Ok(())
}

/// Returns the version of the running kernel.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
