//! The way from a parsed command to the function that runs it, command groups included.

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::Command;
use crate::arguments::builder::{BuilderArguments, BuilderCommand};
use crate::arguments::builds::{BuildsArguments, BuildsCommand};
use crate::arguments::buildx::{BuildxArguments, BuildxCommand};
use crate::arguments::container::{ContainerArguments, ContainerCommand};
use crate::arguments::image::{ImageArguments, ImageCommand};
use crate::arguments::imagetools::{ImagetoolsArguments, ImagetoolsCommand};
use crate::arguments::manifest::{ManifestArguments, ManifestCommand};
use crate::arguments::system::{SystemArguments, SystemCommand};
use crate::arguments::unknown::refuse;
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::{commands, failure};

/// Runs a command and returns its exit code.
#[expect(clippy::too_many_lines, reason = "each command has an arm of its own")]
pub(crate) async fn run(command: Command, settings: &Settings, printer: &Printer) -> ExitCode {
    let result = match command {
        Command::Build(arguments) => {
            Box::pin(commands::build::run(arguments.into_inner(), settings, printer)).await
        }
        Command::Serve(arguments) => {
            Box::pin(commands::serve::run(&arguments, settings, printer)).await
        }
        Command::Buildctl(arguments) => commands::buildctl::run(&arguments, printer).await,
        Command::BuildkitVersion(name) => return commands::buildctl::version(name, printer),
        Command::Bake(arguments) => commands::bake::run(&arguments, printer),
        Command::Builds(arguments) => builds(&arguments, settings, printer),
        Command::Run(arguments) => {
            return Box::pin(commands::run::run(arguments.into_inner(), settings, printer)).await;
        }
        Command::Image(arguments) => image(arguments.into_inner(), settings, printer).await,
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
        Command::Manifest(arguments) => manifest(arguments.into_inner(), settings, printer).await,
        Command::Imagetools(arguments) => {
            imagetools(arguments.into_inner(), settings, printer).await
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
        Command::Builder(arguments) => builder(arguments.into_inner(), settings, printer).await,
        Command::System(arguments) => system(&arguments, settings, printer),
        Command::Info(arguments) => commands::info::run(&arguments, settings, printer),
        Command::Version(arguments) => commands::version::run(&arguments, printer),
        Command::Completion(arguments) => return commands::completion::run(&arguments, printer),
        Command::Container(arguments) => {
            return Box::pin(container(arguments.into_inner(), settings, printer)).await;
        }
        Command::Buildx(arguments) => buildx(arguments.into_inner(), settings, printer).await,
        Command::Sync => commands::sync::run(settings),
        Command::Other(words) => Err(refuse(&[], &words)),
    };
    result.unwrap_or_else(|error| failure::report(printer, &error))
}

/// Runs a command of `kiln image`.
async fn image(
    arguments: ImageArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        ImageCommand::Build(arguments) => {
            Box::pin(commands::build::run(*arguments, settings, printer)).await
        }
        ImageCommand::History(arguments) => commands::history::run(&arguments, settings, printer),
        ImageCommand::Import(arguments) => {
            commands::import::run(arguments, settings, printer).await
        }
        ImageCommand::Inspect(arguments) => commands::inspect::run(&arguments, settings, printer),
        ImageCommand::Load(arguments) => commands::load::run(arguments, settings, printer).await,
        ImageCommand::Ls(arguments) => commands::images::run(&arguments, settings, printer),
        ImageCommand::Prune(arguments) => {
            commands::image::prune::run(&arguments, settings, printer)
        }
        ImageCommand::Pull(arguments) => commands::pull::run(arguments, settings, printer).await,
        ImageCommand::Push(arguments) => commands::push::run(arguments, settings, printer).await,
        ImageCommand::Rm(arguments) => commands::rmi::run(&arguments, settings, printer),
        ImageCommand::Save(arguments) => commands::save::run(arguments, settings, printer).await,
        ImageCommand::Tag(arguments) => commands::tag::run(&arguments, settings, printer),
        ImageCommand::Other(words) => Err(refuse(&["image"], &words)),
    }
}

/// Runs a command of `kiln builds`.
fn builds(arguments: &BuildsArguments, settings: &Settings, printer: &Printer) -> Result<ExitCode> {
    let engine = settings.engine()?;
    let builds = engine.store().builds();
    match &arguments.command {
        BuildsCommand::Explain(arguments) => {
            commands::builds::explain::run(arguments, &engine, printer)
        }
        BuildsCommand::Ls(arguments) => commands::builds::ls::run(arguments, &builds, printer),
        BuildsCommand::Inspect(arguments) => {
            commands::builds::inspect::run(arguments, &builds, printer)
        }
        BuildsCommand::Logs(arguments) => commands::builds::logs::run(arguments, &builds, printer),
        BuildsCommand::Rm(arguments) => commands::builds::rm::run(arguments, &builds, printer),
    }
}

/// Runs a command of `kiln imagetools`.
async fn imagetools(
    arguments: ImagetoolsArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        ImagetoolsCommand::Create(arguments) => {
            commands::imagetools::create::run(arguments, settings, printer).await
        }
        ImagetoolsCommand::Inspect(arguments) => {
            commands::imagetools::inspect::run(arguments, settings, printer).await
        }
    }
}

/// Runs a command of `kiln manifest`.
async fn manifest(
    arguments: ManifestArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        ManifestCommand::Inspect(arguments) => {
            commands::manifest::run(arguments, settings, printer).await
        }
        ManifestCommand::Other(words) => Err(refuse(&["manifest"], &words)),
    }
}

/// Runs a command of `kiln builder`.
async fn builder(
    arguments: BuilderArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        BuilderCommand::Prune(arguments) => commands::prune::run(&arguments, settings, printer),
        BuilderCommand::Build(arguments) => {
            Box::pin(commands::build::run(*arguments, settings, printer)).await
        }
        BuilderCommand::Other(words) => Err(refuse(&["builder"], &words)),
    }
}

/// Runs a command of `kiln buildx`.
async fn buildx(
    arguments: BuildxArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        BuildxCommand::Bake(arguments) => commands::bake::run(&arguments, printer),
        BuildxCommand::Build(arguments) => {
            Box::pin(commands::build::run(*arguments, settings, printer)).await
        }
        BuildxCommand::History(arguments) => builds(&arguments, settings, printer),
        BuildxCommand::Imagetools(arguments) => imagetools(arguments, settings, printer).await,
        BuildxCommand::Prune(arguments) => commands::prune::run(&arguments, settings, printer),
        BuildxCommand::Version(arguments) => commands::version::run(&arguments, printer),
        BuildxCommand::Other(words) => Err(refuse(&["buildx"], &words)),
    }
}

/// Runs a command of `kiln container`.
async fn container(
    arguments: ContainerArguments,
    settings: &Settings,
    printer: &Printer,
) -> ExitCode {
    match arguments.command {
        ContainerCommand::Run(arguments) => {
            Box::pin(commands::run::run(*arguments, settings, printer)).await
        }
        ContainerCommand::Other(words) => failure::report(printer, &refuse(&["container"], &words)),
    }
}

/// Runs a command of `kiln system`.
fn system(arguments: &SystemArguments, settings: &Settings, printer: &Printer) -> Result<ExitCode> {
    match &arguments.command {
        SystemCommand::Check(arguments) => {
            commands::system::check::run(arguments, settings, printer)
        }
        SystemCommand::Df(arguments) => commands::system::df::run(arguments, settings, printer),
        SystemCommand::Prune(arguments) => {
            commands::system::prune::run(arguments, settings, printer)
        }
        SystemCommand::Info(arguments) => commands::info::run(arguments, settings, printer),
        SystemCommand::Other(words) => Err(refuse(&["system"], words)),
    }
}
