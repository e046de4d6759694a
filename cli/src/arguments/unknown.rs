//! Errors for commands that kiln doesn't have.

use std::ffi::OsString;

use anyhow::{Error, anyhow};
use clap::CommandFactory;
use kiln_frontend::suggest::{Case, suggest};

use super::{Arguments, docker};

/// Returns the error for an unknown command. It explains what replaces one of docker's commands,
/// and suggests a similar name otherwise. `group` holds the names before the command's.
pub(crate) fn refuse(group: &[&str], words: &[OsString]) -> Error {
    let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    if let Some(refusal) = docker::refused_command(&[group, &[&*name]].concat()) {
        return anyhow!(refusal);
    }
    let mut command = Arguments::command();
    command.build();
    let found = group.iter().try_fold(&command, |command, name| command.find_subcommand(name));
    let shown = found.into_iter().flat_map(clap::Command::get_subcommands);
    let names = shown
        .filter(|known| !known.is_hide_set())
        .flat_map(clap::Command::get_name_and_visible_aliases);
    let whole = [group, &[&*name]].concat().join(" ");
    let message = suggest(format!("there is no command `{whole}`"), &name, names, Case::Sensitive);
    anyhow!("{message}; `kiln {} lists all", [group, &["--help`"]].concat().join(" "))
}
