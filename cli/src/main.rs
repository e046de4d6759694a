//! The kiln command.
//!
//! The command line ([`arguments`]) and the environment determine the [`settings`]. [`dispatch`]
//! starts a command of [`commands`], which calls the library and prints by [`rendering`]. Only this
//! crate uses the environment, the home directory and the terminal.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod arguments;
mod commands;
mod dispatch;
mod failure;
mod flush;
mod removal;
mod rendering;
mod rootless;
mod settings;
mod terminal;

use std::env::ArgsOs;
use std::process::ExitCode;

use kiln_registry::Warnings;

use crate::arguments::Arguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;

/// An allocator for many threads. musl's allocator has a single lock for all of them.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kiln::init();
    if let Some(code) = rootless::map_if_asked(words()) {
        return code;
    }
    kiln_sandbox::use_contained_name_services();
    let printer = Printer::new();
    let code = command(&printer);
    flush::settle();
    printer.finish(code)
}

/// Returns the words of the command line, the program's name first.
#[expect(clippy::disallowed_methods, reason = "the command line reads the arguments")]
fn words() -> ArgsOs {
    std::env::args_os()
}

/// Parses the command line and runs its command.
fn command(printer: &Printer) -> ExitCode {
    let arguments = match Arguments::read(words()) {
        Ok(arguments) => arguments,
        Err(misread) => return failure::misread(&misread, printer),
    };
    for warning in &arguments.warnings {
        printer.note(format_args!("WARNING: {warning}"));
    }
    if let Some(log) = settings::log::chosen(arguments.global.debug) {
        rendering::log::begin(&log.filter, log.has_colours, printer);
    }
    tracing::debug!(version = env!("CARGO_PKG_VERSION"), "kiln begins");
    let mut settings = match Settings::resolve(&arguments.global, warnings(printer)) {
        Ok(settings) => settings,
        Err(error) => return failure::refuse(&arguments.command, printer, &error),
    };
    // Before this point, the process must have a single thread.
    if arguments.command.needs_ids() {
        match rootless::choose(settings.isolation, printer) {
            Ok(rung) => settings.rung = Some(rung),
            Err(error) => return failure::refuse(&arguments.command, printer, &error),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failure::refuse(&arguments.command, printer, &error.into()),
    };
    let code = runtime.block_on(dispatch::run(arguments.command, &settings, printer));
    // Blocking threads whose work has become useless must not delay the exit.
    runtime.shutdown_background();
    code
}

/// Returns the receiver of warnings about configuration files.
fn warnings(printer: &Printer) -> Warnings {
    let printer = printer.clone();
    Warnings::to(move |warning| printer.warn(&warning))
}
