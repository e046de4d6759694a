//! The texts of `buildctl debug workers` and `buildctl debug info`. Tabs separate cells.

use std::fmt::Write as _;

use kiln_oci::Platform;
use kiln_server::{Device, PruneRule, ServerVersion, WorkerDescription};

use super::documents::go_duration;
use super::usage::exact_size;

/// Returns a table of workers.
pub(super) fn table(workers: &[WorkerDescription]) -> String {
    let rows = workers.iter().map(|worker| {
        let platforms = platforms(&worker.platforms);
        format!("{}\t{platforms}\n", worker.id)
    });
    std::iter::once("ID\tPLATFORMS\n".to_owned()).chain(rows).collect()
}

/// Returns everything about the workers.
pub(super) fn details(workers: &[WorkerDescription]) -> String {
    let mut text = String::new();
    for worker in workers {
        // Writing to a string can't fail.
        let _ = writeln!(text, "ID:\t{}", worker.id);
        let _ = writeln!(text, "Platforms:\t{}", platforms(&worker.platforms));
        text.push_str(&version_line(&worker.version));
        if !worker.version.dockerfile_version.is_empty() {
            let _ = writeln!(text, "Dockerfile:\t{}", worker.version.dockerfile_version);
        }
        text.push_str("Labels:\n");
        for (name, value) in &worker.labels {
            let _ = writeln!(text, "\t{name}:\t{value}");
        }
        if !worker.devices.is_empty() {
            text.push_str("Devices:\n");
            worker.devices.iter().for_each(|device| add_device(&mut text, device));
            text.push('\n');
        }
        for (number, rule) in worker.gc.iter().enumerate() {
            let _ = writeln!(text, "GC Policy rule#{number}:");
            add_rule(&mut text, rule);
        }
        text.push('\n');
    }
    text
}

/// Returns the line of a version.
pub(super) fn version_line(version: &ServerVersion) -> String {
    format!("BuildKit:\t{} {} {}\n", version.package, version.version, version.revision)
}

fn add_device(text: &mut String, device: &Device) {
    let _ = writeln!(text, "\tName:\t{}", device.name);
    if device.on_demand {
        text.push_str("\tOnDemand:\ttrue\n");
    } else {
        let _ = writeln!(text, "\tAutoAllow:\t{}", device.auto_allow);
    }
    for (name, value) in &device.annotations {
        let _ = writeln!(text, "\tAnnotations:\t{name}:\t{value}");
    }
}

fn add_rule(text: &mut String, rule: &PruneRule) {
    let _ = writeln!(text, "\tAll:\t{}", rule.all);
    if !rule.filter.is_empty() {
        let _ = writeln!(text, "\tFilters:\t{}", rule.filter.join(" "));
    }
    if !rule.keep_duration.is_zero() {
        let _ = writeln!(text, "\tKeep duration:\t{}", go_duration(rule.keep_duration));
    }
    for (name, bytes) in [
        ("Reserved space", rule.reserved_space),
        ("Minimum free space", rule.min_free_space),
        ("Maximum used space", rule.max_used_space),
    ] {
        if bytes > 0 {
            let _ = writeln!(text, "\t{name}:\t{}", exact_size(bytes));
        }
    }
}

fn platforms(platforms: &[Platform]) -> String {
    let names: Vec<String> =
        platforms.iter().map(|platform| platform.normal().to_string()).collect();
    names.join(",")
}
