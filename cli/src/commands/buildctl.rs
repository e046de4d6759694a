//! `buildctl`: the commands of BuildKit's client that drivers and administrators use.
//!
//! The output is that of BuildKit's own client, which programs read.

mod connection;
mod dial;
mod documents;
mod usage;
mod workers;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use futures_util::StreamExt as _;
use kiln_server::{PruneRule, buildkit_version};

use crate::arguments::buildctl::{
    BuildctlArguments, BuildctlCommand, DebugCommand, FormatArguments, ListArguments,
    PruneArguments,
};
use crate::rendering::format::{Columns, Document};
use crate::rendering::printer::Printer;
use documents::{ToDocument, list};

/// The bytes of a megabyte.
const MEGABYTE: f64 = 1e6;

/// The columns of BuildKit's tables: tabs at multiples of eight.
const TABLE: Columns = Columns { narrowest: 1, padding: 1, tab: Some(8) };

/// Runs a command of `buildctl`.
///
/// # Errors
/// Fails if the server can't be reached, and if it refuses the command.
pub(crate) async fn run(arguments: &BuildctlArguments, printer: &Printer) -> Result<ExitCode> {
    match &arguments.command {
        BuildctlCommand::DialStdio => dial::run(arguments).await?,
        BuildctlCommand::Du(list) => disk_usage(arguments, list, printer).await?,
        BuildctlCommand::Prune(prune) => self::prune(arguments, prune, printer).await?,
        BuildctlCommand::Debug(debug) => match &debug.command {
            DebugCommand::Info(format) => info(arguments, format, printer).await?,
            DebugCommand::Workers(list) => self::workers(arguments, list, printer).await?,
            DebugCommand::Other(words) => return Err(refusal("debug ", words)),
        },
        BuildctlCommand::Other(words) => return Err(refusal("", words)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the version of the program that has this name in `BuildKit`.
pub(crate) fn version(name: &str, printer: &Printer) -> ExitCode {
    let version = buildkit_version();
    let (package, number, revision) = (version.package, version.version, version.revision);
    printer.line(format_args!("{name} {package} {number} {revision}"));
    ExitCode::SUCCESS
}

fn refusal(group: &str, words: &[OsString]) -> anyhow::Error {
    let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    anyhow::anyhow!(
        "kiln's buildctl has no command `{group}{name}`: it has `debug info`, `debug workers`, \
         `dial-stdio`, `du` and `prune`; for others, use BuildKit's own buildctl or docker buildx"
    )
}

/// Prints the server's version.
async fn info(
    arguments: &BuildctlArguments,
    format: &FormatArguments,
    printer: &Printer,
) -> Result<()> {
    let version = connection::open(arguments).await?.version().await?;
    if let Some(format) = format.get() {
        let document = documents::Info { buildkit_version: version.into() };
        return print(&document.to_document()?, format, printer);
    }
    let mut text = workers::version_line(&version);
    if !version.dockerfile_version.is_empty() {
        // Writing to a string can't fail.
        let _ = writeln!(text, "Dockerfile:\t{}", version.dockerfile_version);
    }
    printer.raw(&Columns { narrowest: 0, padding: 1, tab: None }.align(&text));
    Ok(())
}

/// Prints the workers.
async fn workers(
    arguments: &BuildctlArguments,
    options: &ListArguments,
    printer: &Printer,
) -> Result<()> {
    let found = connection::open(arguments).await?.workers(options.filter.clone()).await?;
    if let Some(format) = options.format.get() {
        let found = found.into_iter().map(documents::Worker::from);
        return print(&list(found.collect())?, format, printer);
    }
    let text = if options.verbose { workers::details(&found) } else { workers::table(&found) };
    printer.raw(&TABLE.align(&text));
    Ok(())
}

/// Prints the parts of the cache.
async fn disk_usage(
    arguments: &BuildctlArguments,
    options: &ListArguments,
    printer: &Printer,
) -> Result<()> {
    let found = connection::open(arguments).await?.disk_usage(options.filter.clone()).await?;
    if let Some(format) = options.format.get() {
        let found = found.into_iter().map(documents::CacheRecord::from);
        return print(&list(found.collect())?, format, printer);
    }
    let mut text = if options.verbose {
        found.iter().map(|record| TABLE.align(&usage::details(record))).collect()
    } else {
        let rows: String = found.iter().map(usage::row).collect();
        TABLE.align(&format!("{}{rows}", usage::HEADING))
    };
    if options.filter.is_empty() {
        text.push_str(&TABLE.align(&usage::summary(&found)));
    }
    printer.raw(&text);
    Ok(())
}

/// Removes parts of the cache, and prints each when it is gone.
async fn prune(
    arguments: &BuildctlArguments,
    options: &PruneArguments,
    printer: &Printer,
) -> Result<()> {
    let bytes = |megabytes: f64| (megabytes * MEGABYTE) as i64;
    if [options.keep_storage, options.keep_storage_min, options.free_storage]
        .iter()
        .any(|size| *size < 0.0)
    {
        bail!("a size of the cache is negative");
    }
    let rule = PruneRule {
        all: options.all,
        filter: options.list.filter.clone(),
        keep_duration: options.keep_duration,
        reserved_space: bytes(options.keep_storage_min),
        max_used_space: bytes(options.keep_storage),
        min_free_space: bytes(options.free_storage),
    };
    let client = connection::open(arguments).await?;
    let mut removed = std::pin::pin!(client.prune(rule).await?);
    let (mut total, mut is_first) = (0, true);
    while let Some(record) = removed.next().await {
        let record = record?;
        total += record.size;
        if let Some(format) = options.list.format.get() {
            let document = documents::CacheRecord::from(record).to_document()?;
            print(&document, format, printer)?;
        } else if options.list.verbose {
            printer.raw(&TABLE.align(&usage::details(&record)));
        } else {
            if std::mem::take(&mut is_first) {
                printer.raw(&TABLE.align(&format!("{}{}", usage::HEADING, usage::row(&record))));
                continue;
            }
            printer.raw(&TABLE.align(&usage::row(&record)));
        }
    }
    if options.list.format.get().is_none() {
        printer.raw(&TABLE.align(&usage::total(total)));
    }
    Ok(())
}

/// Prints a document: as JSON on one line for `json`, else through a template.
fn print(document: &Document, format: &str, printer: &Printer) -> Result<()> {
    let template = if format == "json" { "{{json .}}" } else { format };
    printer.raw(&document.execute(template)?);
    Ok(())
}
