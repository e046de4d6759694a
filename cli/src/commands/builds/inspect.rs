//! `kiln builds inspect`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use kiln::records::{self, BuildRecord, StepRecord};
use kiln_store::{BuildRow, Builds};
use serde_json::{Value, json};

use crate::arguments::builds::{Format, InspectArguments};
use crate::rendering::printer::{Printer, human_duration, human_size};
use crate::rendering::progress::clean_text;
use crate::rendering::times::{duration, timestamp};

pub(crate) fn run(
    arguments: &InspectArguments,
    builds: &Builds,
    printer: &Printer,
) -> Result<ExitCode> {
    let row = records::find(builds, &arguments.build)?;
    let record = BuildRecord::of(&row)?;
    if arguments.format == Format::Json {
        printer.line(serde_json::to_string_pretty(&object(&row, &record)?)?);
    } else {
        printer.text(clean_text(&text(&row, &record)).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the record of a build with all its steps.
fn object(row: &BuildRow, record: &BuildRecord) -> Result<Value> {
    let (cached, total) = record.counts();
    let mut all = serde_json::to_value(record)?;
    let more = json!({
        "id": row.id,
        "name": row.reference,
        "status": row.status.as_str(),
        "created_at": timestamp(row.started_at),
        "completed_at": row.ended_at.and_then(timestamp),
        "duration_ms": duration(row).map(|duration| duration.as_millis() as u64),
        "cached_steps": cached,
        "total_steps": total,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    Ok(all)
}

fn text(row: &BuildRow, record: &BuildRecord) -> String {
    let (cached, total) = record.counts();
    let arguments = record.build_args.iter().map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => format!("{name} (value not kept)"),
    });
    let lines = [
        ("ID", row.id.clone()),
        ("Name", row.reference.clone().unwrap_or_default()),
        ("Status", row.status.as_str().to_owned()),
        ("Error", record.error.clone().unwrap_or_default()),
        ("Created", timestamp(row.started_at).unwrap_or_default()),
        ("Duration", duration(row).map(human_duration).unwrap_or_default()),
        ("Steps", format!("{total}, {cached} cached")),
        ("Context", record.context.clone()),
        ("Dockerfile", record.dockerfile.clone().unwrap_or_default()),
        ("Target", record.target.clone().unwrap_or_default()),
        ("Command", record.command.clone()),
        ("Build args", arguments.collect::<Vec<_>>().join(", ")),
        ("Secrets", record.secrets.join(", ")),
        ("SSH", record.ssh.join(", ")),
        ("Tags", record.tags.join(", ")),
        ("Image", record.image_id.clone().unwrap_or_default()),
    ];
    let mut text = String::new();
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{:12} {}", format!("{name}:"), value.replace('\n', " "));
    }
    for warning in &record.warnings {
        let _ = writeln!(text, "{:12} {}", "Warning:", warning.replace('\n', " "));
    }
    let mut steps: Vec<&StepRecord> = record.steps.iter().filter(|step| step.number > 0).collect();
    steps.sort_by_key(|step| step.number);
    if !steps.is_empty() {
        text.push('\n');
    }
    for step in steps {
        text.push_str(&step_line(step));
    }
    text
}

fn step_line(step: &StepRecord) -> String {
    let time = step.duration_ms.map(|millis| human_duration(Duration::from_millis(millis)));
    let printed = match step.log_bytes {
        0 => String::new(),
        bytes => format!(" ({} printed)", human_size(bytes)),
    };
    let error = step.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!(
        "#{:<4} {:8} {:>7}  {}{printed}{}\n",
        step.number,
        step.status.word(),
        time.unwrap_or_default(),
        step.name.replace('\n', " "),
        error.replace('\n', " ")
    )
}
