//! `kiln logout`.

use std::process::ExitCode;

use anyhow::Result;
use kiln_registry::key_of;
use kiln_registry::registry_of;

use crate::arguments::logout::LogoutArguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;

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
