//! `kiln version`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kiln_oci::Platform;
use serde_json::{Value, json};

use kiln::json::Json;

use crate::format::Document;
use crate::printer::Printer;

/// Show kiln's version
#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// The format of the output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// kiln's version, from its manifest.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs `kiln version`.
pub(crate) fn run(arguments: &VersionArguments, printer: &Printer) -> Result<ExitCode> {
    match arguments.format.as_deref().filter(|format| !format.is_empty()) {
        None => {
            let platform = Platform::host();
            printer.line(format_args!("Version:  {VERSION}"));
            printer.line(format_args!("OS/Arch:  {}/{}", platform.os, platform.architecture));
            printer.line(format_args!("Kernel:   {}", kernel()));
        }
        Some(format) => show(&document(), format, printer)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a document: on one line for `json`, else through a template.
pub(super) fn show(document: &Value, format: &str, printer: &Printer) -> Result<()> {
    let json = Json::of(document)?;
    if format == "json" {
        printer.line(json.compact());
    } else {
        printer.raw(&Document::renamed(json.clone(), json).execute(format)?);
    }
    Ok(())
}

/// Returns docker's version document. kiln is both its client and its server.
fn document() -> Value {
    let platform = Platform::host();
    let both = json!({
        "Platform": {"Name": "kiln"},
        "Version": VERSION,
        "Os": platform.os,
        "Arch": platform.architecture,
        "KernelVersion": kernel(),
    });
    json!({"Client": both, "Server": both})
}

/// Returns the version of the running kernel.
pub(super) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
