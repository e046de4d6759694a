//! `kiln builds ls`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::records::BuildRecord;
use kiln_store::{BuildRow, BuildStatus, Builds};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::arguments::builds::{Format, LsArguments};
use crate::rendering::printer::{Printer, human_age, human_duration, table};
use crate::rendering::progress::clean_text;
use crate::rendering::times::{duration, timestamp};

/// The most characters of a name that the table shows.
const NAME: usize = 40;

pub(crate) fn run(arguments: &LsArguments, builds: &Builds, printer: &Printer) -> Result<ExitCode> {
    let wanted = statuses(&arguments.filters)?;
    let mut rows = builds.list()?;
    rows.retain(|row| wanted.is_empty() || wanted.contains(&row.status));
    if arguments.quiet {
        for row in &rows {
            printer.line(&row.id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.format == Format::Json {
        for row in &rows {
            printer.line(object(row)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let cells = rows.iter().map(|row| {
        let (cached, total) = BuildRecord::of(row)?.counts();
        let age = human_age(now - row.started_at / 1_000_000_000);
        Ok(vec![
            row.id.clone(),
            name(row, arguments.no_trunc),
            row.status.as_str().to_owned(),
            format!("{cached}/{total}"),
            format!("{age} ago"),
            duration(row).map(human_duration).unwrap_or_default(),
        ])
    });
    let cells = cells.collect::<Result<Vec<_>>>()?;
    printer.line(table(&["ID", "NAME", "STATUS", "CACHED", "CREATED", "DURATION"], &cells));
    Ok(ExitCode::SUCCESS)
}

fn statuses(filters: &[String]) -> Result<Vec<BuildStatus>> {
    let status = |text: &String| {
        let Some(("status", name)) = text.split_once('=') else {
            bail!("invalid filter {text:?}: expected status=NAME");
        };
        BuildStatus::of(name).with_context(|| format!("invalid filter {text:?}: no such status"))
    };
    filters.iter().map(status).collect()
}

fn name(row: &BuildRow, is_whole: bool) -> String {
    let name = clean_text(row.reference.as_deref().unwrap_or_default());
    if is_whole || name.chars().count() <= NAME {
        return name;
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

/// Returns the summary of a build.
fn object(row: &BuildRow) -> Result<Value> {
    let (cached, total) = BuildRecord::of(row)?.counts();
    Ok(json!({
        "id": row.id,
        "name": row.reference,
        "status": row.status.as_str(),
        "cached_steps": cached,
        "total_steps": total,
        "created_at": timestamp(row.started_at),
        "completed_at": row.ended_at.and_then(timestamp),
        "duration_ms": duration(row).map(|duration| duration.as_millis() as u64),
    }))
}
