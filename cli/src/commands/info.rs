//! `kiln info`, `kiln system info`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kiln_oci::Platform;
use serde_json::{Value, json};

use super::version::{VERSION, kernel, show};
use crate::image::named::named;
use crate::printer::{Printer, human_size};
use crate::settings::Settings;

/// Show what kiln works with on this machine
#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// How it looks: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows what there is, under docker's names.
pub(crate) fn run(
    arguments: &InfoArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let document = document(settings)?;
    if let Some(format) = arguments.format.as_deref().filter(|format| !format.is_empty()) {
        show(&document, format, printer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |name: &str| match &document[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for (title, value) in [
        ("Version", text("ServerVersion")),
        ("Store", text("DockerRootDir")),
        ("Images", text("Images")),
        ("Rootless", (!rustix::process::geteuid().is_root()).to_string()),
        ("Operating System", text("OperatingSystem")),
        ("Kernel Version", text("KernelVersion")),
        ("Architecture", text("Architecture")),
        ("CPUs", text("NCPU")),
        ("Total Memory", human_size(document["MemTotal"].as_u64().unwrap_or_default())),
        ("Name", text("Name")),
    ] {
        printer.line(format_args!("{title}: {value}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn document(settings: &Settings) -> Result<Value> {
    let store = settings.store()?;
    let images = named(&store, &mut |_| ())?.len();
    let system = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    Ok(json!({
        "Architecture": system.machine().to_string_lossy(),
        "DockerRootDir": settings.root,
        "Driver": "overlay",
        "Images": images,
        "KernelVersion": kernel(),
        "MemTotal": memory.totalram as u64 * u64::from(memory.mem_unit),
        "NCPU": settings.threads,
        "Name": system.nodename().to_string_lossy(),
        "OSType": Platform::host().os,
        "OperatingSystem": operating_system(),
        "ServerVersion": VERSION,
    }))
}

/// Returns what the distribution calls itself.
fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux", |name| name.trim_matches('"')).to_owned()
}
