//! `kiln version`.

use std::process::ExitCode;

use anyhow::Result;
use kiln_oci::Platform;
use serde_json::{Value, json};

use crate::arguments::version::VersionArguments;
use crate::rendering::about::{VERSION, kernel, show};
use crate::rendering::printer::Printer;

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
