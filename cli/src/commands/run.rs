//! `kiln run`: the run of a container, from arguments to exit status.

mod image;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::container::Confinement;
use kiln::container::{Failure, Notice, Preparation};
use kiln_exporter::write_file;
use kiln_sandbox::{Input, Security};

use crate::arguments::run::RunArguments;
use crate::failure::OWN_FAILURE;
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::terminal::{OutputForwarder, Signals, Streams, Terminal, attend, standard_input};
use crate::{flush, settings};
use image::find_image;

/// Runs a container and returns its exit status.
pub(crate) async fn run(
    arguments: RunArguments,
    settings: &Settings,
    printer: &Printer,
) -> ExitCode {
    match container(&arguments, settings, printer).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            printer.error(&error.error);
            ExitCode::from(error.code.unwrap_or(OWN_FAILURE))
        }
    }
}

/// Runs a container until it ends, and returns the command's exit status.
async fn container(
    arguments: &RunArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<u8, Failure> {
    let mut spec = settings::container::spec(arguments, &|warning| {
        printer.note(format_args!("WARNING: {warning}"));
    })?;
    arguments.cidfile.as_deref().map(refuse_existing).transpose()?;
    let streams = Streams::read(&arguments.attach)?;
    // Slow preparations that don't depend on the image run in the background.
    let preparation = Preparation::begin(&settings.options(), &spec)?;
    let terminal = Terminal::open(arguments.tty, arguments.interactive)?;
    spec.process.terminal = terminal.as_ref().map(Terminal::size);
    warn_of_privileges(&spec.confinement, printer);
    let engine = settings.engine()?;
    let containers = engine.containers(arguments.pull.into());
    let image = find_image(&containers, engine.store(), arguments, printer).await?;
    let mut container = engine.container(preparation, &image, &containers, spec).await?;
    container.notices.iter().for_each(|notice| print_notice(notice, printer));

    let input = input(arguments, streams)?;
    container.ready().await?;
    if let Some(path) = &arguments.cidfile {
        write_file(path, container.id().hex().as_bytes()).context("write the container's ID")?;
    }
    let signals = if arguments.sig_proxy { Signals::catch() } else { Signals::none() };
    let passing = OutputForwarder::only(printer, streams);
    let running = container.start(input, passing.sink()).await?;
    let exit = attend(running, signals, terminal, &passing).await?;
    if let Some(out) = container.out_of_memory() {
        let noun = if out.kills == 1 { "process" } else { "processes" };
        printer.note(format_args!("{out}: the kernel has killed {} {noun}", out.kills));
    }
    // A failure to start the flush only makes a later flush slower.
    let _ = flush::start(engine.store());
    Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX))
}

/// Prints a warning if the container is privileged.
fn warn_of_privileges(confinement: &Confinement, printer: &Printer) {
    if confinement.security == Security::Privileged {
        printer.note(
            "WARNING: --privileged gives the container all capabilities, system calls and devices: \
             it can take this machine over",
        );
    }
}

fn print_notice(notice: &Notice, printer: &Printer) {
    match notice {
        Notice::Copied(reason) => {
            printer.note(format_args!("layers are copied, not mounted: {reason}"));
        }
        Notice::Isolation(text) => printer.note(text),
        Notice::Warning(text) => printer.note(format_args!("WARNING: {text}")),
        Notice::Published(endpoint) => printer.note(endpoint),
    }
}

/// Fails if the file for the container's ID exists, since it may hold the ID of another container.
#[expect(clippy::disallowed_methods, reason = "the user names the file")]
fn refuse_existing(path: &Path) -> Result<()> {
    if path.is_file() {
        bail!("the container ID file {} is there already: remove it", path.display());
    }
    Ok(())
}

fn input(arguments: &RunArguments, streams: Streams) -> Result<Input> {
    if !arguments.interactive || !streams.input || arguments.tty {
        return Ok(Input::Null);
    }
    standard_input()
}
