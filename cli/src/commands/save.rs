//! `kiln save`, `kiln image save`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::Monitor;
use kiln::build::OutputStream;
use kiln_exporter::Destination;

use crate::arguments::progress::ProgressMode;
use crate::arguments::save::SaveArguments;
use crate::rendering::printer::Printer;
use crate::rendering::progress::{self, Work};
use crate::settings::Settings;
use crate::settings::parse_platform;

/// Runs `kiln save`.
pub(crate) async fn run(
    arguments: SaveArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let dest = match arguments.output {
        Some(path) => Destination::Path(path),
        None if std::io::stdout().is_terminal() => {
            bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        }
        None => Destination::Stdout,
    };
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let engine = settings.engine()?;
    let mode =
        if std::io::stderr().is_terminal() { ProgressMode::Tty } else { ProgressMode::Plain };
    let (monitor, receiver) = Monitor::channel();
    let shown = progress::run(mode, Work::Prepare, receiver).context("show progress")?;
    let stream = OutputStream::new(printer.stdout());
    let saved = engine.save(&arguments.images, platform.as_ref(), dest, stream, monitor).await;
    shown.await?;
    saved?;
    Ok(ExitCode::SUCCESS)
}
