//! `kiln logout`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use kiln_registry::credentials::key_of;
use kiln_registry::registry_of;

use crate::printer::Printer;
use crate::settings::Settings;

/// Log out from a registry
///
/// Forgets what `kiln login` or `docker login` has kept for it. Without a server, logs out from
/// Docker Hub.
#[derive(Debug, Args)]
pub(crate) struct LogoutArguments {
    /// The registry's host, with its port where it has one
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Runs `kiln logout`.
pub(crate) async fn run(
    arguments: LogoutArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let registry = registry_of(arguments.server.as_deref().unwrap_or_default())?;
    let (files, name) = (settings.registries.credentials(), registry.clone());
    let found = tokio::task::spawn_blocking(move || files.remove(&name)).await??;
    let action = if found { "Removing login credentials for" } else { "Not logged in to" };
    printer.line(format_args!("{action} {}", key_of(&registry)));
    Ok(ExitCode::SUCCESS)
}
