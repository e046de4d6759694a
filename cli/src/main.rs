//! The kiln command.
//!
//! The command line ([`arguments`]) and the environment determine the [`settings`]. A command of
//! [`commands`] then does the work. Only this crate uses the environment, the home directory and
//! the terminal.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod archive_limits;
mod arguments;
mod build;
mod commands;
mod config;
mod confirm;
mod container;
mod deferred;
mod diff;
mod docker;
mod engines;
mod format;
mod hints;
mod image;
mod limits;
mod log;
mod once;
mod printer;
mod progress;
mod registries;
mod resources;
mod rootless;
mod runtime;
mod settings;
mod signals;
mod until;

use std::process::ExitCode;

use crate::arguments::{Arguments, Command};
use crate::printer::Printer;
use crate::settings::Settings;

/// An allocator for many threads. musl's allocator has a single lock for all of them.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kiln::init();
    if let Some(code) = rootless::map_if_asked() {
        return code;
    }
    kiln_sandbox::use_contained_name_services();
    let printer = Printer::new();
    let code = command(&printer);
    commands::sync::settle();
    printer.finish(code)
}

/// Parses the command line and runs its command.
#[expect(clippy::disallowed_methods, reason = "the command line reads the arguments")]
fn command(printer: &Printer) -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(misread) => return misread.report(printer),
    };
    for warning in &arguments.warnings {
        printer.note(format_args!("WARNING: {warning}"));
    }
    settings::init_tracing(arguments.global.debug, printer);
    tracing::debug!(version = env!("CARGO_PKG_VERSION"), "kiln begins");
    let settings = match Settings::resolve(&arguments.global, printer) {
        Ok(settings) => settings,
        Err(error) => return arguments.command.refuse(printer, &error),
    };
    // Before this point, the process must have a single thread.
    if arguments.command.likes_ids() {
        // Without these privileges, the command prints that it lacks the information.
        let _ = rootless::enter(printer);
    }
    if arguments.command.needs_ids()
        && let Err(error) = rootless::enter(printer)
    {
        return arguments.command.refuse(printer, &error);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return arguments.command.refuse(printer, &error.into()),
    };
    let code = runtime.block_on(run(arguments.command, &settings, printer));
    // Blocking threads whose work has become useless must not delay the exit.
    runtime.shutdown_background();
    code
}

#[expect(clippy::too_many_lines, reason = "an arm for each command")]
async fn run(command: Command, settings: &Settings, printer: &Printer) -> ExitCode {
    let result = match command {
        Command::Build(arguments) => {
            Box::pin(commands::build::run(arguments.into_inner(), settings, printer)).await
        }
        Command::Builds(arguments) => commands::builds::run(&arguments, settings, printer),
        Command::Run(arguments) => {
            return commands::run::run(arguments.into_inner(), settings, printer).await;
        }
        Command::Image(arguments) => {
            commands::image::run(arguments.into_inner(), settings, printer).await
        }
        Command::History(arguments) => commands::history::run(&arguments, settings, printer),
        Command::Save(arguments) => {
            commands::save::run(arguments.into_inner(), settings, printer).await
        }
        Command::Load(arguments) => {
            commands::load::run(arguments.into_inner(), settings, printer).await
        }
        Command::Import(arguments) => {
            commands::import::run(arguments.into_inner(), settings, printer).await
        }
        Command::Diff(arguments) => {
            commands::diff::run(arguments.into_inner(), settings, printer).await
        }
        Command::Manifest(arguments) => {
            commands::manifest::run(arguments.into_inner(), settings, printer).await
        }
        Command::Imagetools(arguments) => {
            commands::imagetools::run(arguments.into_inner(), settings, printer).await
        }
        Command::Tag(arguments) => commands::tag::run(&arguments, settings, printer),
        Command::Images(arguments) => commands::images::run(&arguments, settings, printer),
        Command::Rmi(arguments) => commands::rmi::run(&arguments, settings, printer),
        Command::Inspect(arguments) => commands::inspect::run(&arguments, settings, printer),
        Command::Pull(arguments) => {
            commands::pull::run(arguments.into_inner(), settings, printer).await
        }
        Command::Push(arguments) => {
            commands::push::run(arguments.into_inner(), settings, printer).await
        }
        Command::Login(arguments) => {
            commands::login::run(arguments.into_inner(), settings, printer).await
        }
        Command::Logout(arguments) => {
            commands::logout::run(arguments.into_inner(), settings, printer).await
        }
        Command::Debug(arguments) => commands::debug::run(&arguments, printer),
        Command::Man(arguments) => commands::man::run(&arguments),
        Command::Prune(arguments) => commands::prune::run(&arguments, settings, printer),
        Command::Builder(arguments) => {
            commands::builder::run(arguments.into_inner(), settings, printer).await
        }
        Command::System(arguments) => commands::system::run(&arguments, settings, printer),
        Command::Info(arguments) => commands::info::run(&arguments, settings, printer),
        Command::Version(arguments) => commands::version::run(&arguments, printer),
        Command::Completion(arguments) => return commands::completion::run(&arguments, printer),
        Command::Container(arguments) => {
            return Box::pin(commands::container::run(arguments.into_inner(), settings, printer))
                .await;
        }
        Command::Buildx(arguments) => {
            commands::buildx::run(arguments.into_inner(), settings, printer).await
        }
        Command::Sync => commands::sync::run(settings),
        Command::Other(words) => Err(commands::other::refuse(&[], &words)),
    };
    result.unwrap_or_else(|error| commands::report(printer, &error))
}
