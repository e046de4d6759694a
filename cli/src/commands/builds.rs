//! `kiln builds`: the history of builds.

mod explain;
mod inspect;
mod logs;
mod ls;
mod rm;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use kiln_store::BuildRow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::printer::Printer;
use crate::settings::Settings;

/// Look into the history of builds
///
/// The last 100 builds of the last 30 days are kept, with everything that their steps have printed;
/// fewer where the logs take more than a gibibyte. A build is named by its ID, by how that begins,
/// by `latest`, or by `^N`, the one before the latest by N.
#[derive(Debug, Args)]
pub(crate) struct BuildsArguments {
    #[command(subcommand)]
    command: BuildsCommand,
}

#[derive(Debug, Subcommand)]
enum BuildsCommand {
    /// List builds, the latest first
    Ls(ls::LsArguments),
    /// Show what is known of a build
    Inspect(inspect::InspectArguments),
    /// Say why the steps of a build ran, or what is different between two builds
    Explain(explain::ExplainArguments),
    /// Print what the steps of a build have printed
    Logs(logs::LogsArguments),
    /// Forget builds
    Rm(rm::RmArguments),
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[value(alias = "table")]
    Pretty,
    /// For programs
    Json,
}

/// Runs a command of `kiln builds`.
pub(crate) fn run(
    arguments: &BuildsArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let store = settings.store()?;
    let builds = store.builds();
    match &arguments.command {
        BuildsCommand::Explain(arguments) => explain::run(arguments, &store, printer),
        BuildsCommand::Ls(arguments) => ls::run(arguments, &builds, printer),
        BuildsCommand::Inspect(arguments) => inspect::run(arguments, &builds, printer),
        BuildsCommand::Logs(arguments) => logs::run(arguments, &builds, printer),
        BuildsCommand::Rm(arguments) => rm::run(arguments, &builds, printer),
    }
}

/// Returns the duration of a build, until now if it is still running; `None` if it was killed.
fn duration(row: &BuildRow) -> Option<Duration> {
    let end = match row.ended_at {
        Some(end) => end,
        None if row.status == kiln_store::BuildStatus::Running => {
            OffsetDateTime::now_utc().unix_timestamp_nanos() as i64
        }
        None => return None,
    };
    Some(Duration::from_nanos(u64::try_from(end - row.started_at).unwrap_or_default()))
}

/// Returns a time in RFC 3339 for programs.
pub(super) fn timestamp(nanoseconds: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into()).ok()?;
    time.format(&Rfc3339).ok()
}
