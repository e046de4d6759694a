//! `kiln info`, `kiln system info`.

#![expect(clippy::disallowed_methods, reason = "the files are the system's")]

use std::process::ExitCode;

use anyhow::Result;
use kiln::image::named::named;
use kiln_oci::Platform;
use kiln_sandbox as sandbox;
use kiln_store::Store;
use serde_json::{Value, json};

use crate::arguments::info::InfoArguments;
use crate::rendering::about::{VERSION, kernel, show};
use crate::rendering::printer::{Printer, human_size};
use crate::settings::Settings;

/// Runs `kiln info`, with docker's field names.
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
        ("Snapshotter", text("Driver")),
        ("Isolation", text("Isolation")),
        ("Images", text("Images")),
        ("Rootless", kiln_tree::Ids::current().is_namespace().to_string()),
        ("Operating System", text("OperatingSystem")),
        ("Kernel Version", text("KernelVersion")),
        ("Kernel Features", features(&document["KernelFeatures"])),
        ("Architecture", text("Architecture")),
        ("CPUs", text("NCPU")),
        ("Total Memory", human_size(document["MemTotal"].as_u64().unwrap_or_default())),
        ("Name", text("Name")),
    ] {
        printer.line(format_args!("{title}: {value}"));
        if title == "Snapshotter"
            && let Value::String(reason) = &document["DriverReason"]
        {
            printer.line(format_args!(" Reason: {reason}"));
        }
        if title == "Isolation" {
            for obstacle in settings.obstacles() {
                printer.line(format_args!(" {}: {}", obstacle.isolation, obstacle.reason));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn document(settings: &Settings) -> Result<Value> {
    let store = settings.store()?;
    let (driver, reason) = snapshotter(&store)?;
    let images = named(&store, &mut |_| ())?.len();
    let system = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    Ok(json!({
        "Architecture": system.machine().to_string_lossy(),
        "DockerRootDir": settings.root,
        "Driver": driver,
        "DriverReason": reason,
        "Images": images,
        "Isolation": settings.options().isolation.name(),
        "IsolationObstacles": settings.obstacles()
            .iter()
            .map(|found| json!({"Isolation": found.isolation.name(), "Reason": found.reason}))
            .collect::<Vec<_>>(),
        "KernelFeatures": sandbox::features()
            .iter()
            .map(|feature| json!({
                "Name": feature.name,
                "Since": feature.since,
                "Required": feature.is_required,
                "Available": feature.is_there,
            }))
            .collect::<Vec<_>>(),
        "KernelVersion": kernel(),
        "MemTotal": memory.totalram as u64 * u64::from(memory.mem_unit),
        "NCPU": settings.threads,
        "Name": system.nodename().to_string_lossy(),
        "OSType": Platform::host().os,
        "OperatingSystem": operating_system(),
        "ServerVersion": VERSION,
    }))
}

/// Returns the snapshotter's name, and the reason if overlayfs doesn't work.
fn snapshotter(store: &Store) -> Result<(&'static str, Option<String>)> {
    let found = store.snapshotting()?;
    Ok((found.snapshotter.name(), found.reason.clone()))
}

/// Returns the features that the kernel lacks, in readable form.
fn features(document: &Value) -> String {
    let features = document.as_array().map(Vec::as_slice).unwrap_or_default();
    let missing = features.iter().filter(|feature| feature["Available"] == false);
    let missing: Vec<_> =
        missing.map(|f| format!("{} (Linux {})", f["Name"], f["Since"]).replace('"', "")).collect();
    if missing.is_empty() { "all".to_owned() } else { format!("all but {}", missing.join(", ")) }
}

/// Returns the name of the Linux distribution.
fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux", |name| name.trim_matches('"')).to_owned()
}
