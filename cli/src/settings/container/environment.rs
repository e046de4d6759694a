//! The changes to a container's environment: from files and from arguments.

#![expect(
    clippy::disallowed_methods,
    reason = "the user names the files, and the command line reads the environment"
)]

use std::path::Path;

use anyhow::{Context, Result, bail};
use kiln::container::EnvChange;

use crate::arguments::run::RunArguments;

/// Returns the changes to the image's environment, in order.
pub(super) fn resolve(arguments: &RunArguments) -> Result<Vec<EnvChange>> {
    let mut changes = Vec::new();
    for path in &arguments.env_files {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read the environment file {}", path.display()))?;
        read_file(&mut changes, &text, path)?;
    }
    for text in &arguments.env {
        if text.is_empty() || text.starts_with('=') {
            bail!("invalid environment variable {text:?}");
        }
        set_or_inherit(&mut changes, text);
        if !text.contains('=') && std::env::var_os(text).is_none() {
            changes.push(EnvChange::Unset(text.clone()));
        }
    }
    Ok(changes)
}

/// Sets the variables of a file, one per line. Values are literal: quotes have no meaning.
fn read_file(changes: &mut Vec<EnvChange>, text: &str, path: &Path) -> Result<()> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        let problem = match name {
            "" => "no variable's name",
            name if name.contains(char::is_whitespace) => "a variable's name with a blank",
            _ => {
                set_or_inherit(changes, line);
                continue;
            }
        };
        bail!("environment file {}, line {}: {problem}", path.display(), number + 1);
    }
    Ok(())
}

/// Sets `NAME=value`. `NAME` alone takes its value from kiln's environment if it is set there.
fn set_or_inherit(changes: &mut Vec<EnvChange>, text: &str) {
    if text.contains('=') {
        changes.push(EnvChange::Set(text.to_owned()));
    } else if let Ok(value) = std::env::var(text) {
        changes.push(EnvChange::Set(format!("{text}={value}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_line_by_line() {
        let read = |text: &str| {
            let mut changes = Vec::new();
            read_file(&mut changes, text, Path::new("f")).map(|()| changes)
        };
        let text = "\u{feff}# a comment\n\n  A=1\r\nB= \"x\" # y\nNOT_SET_HERE\nC=\n";
        let set = ["A=1", "B= \"x\" # y", "C="].map(|text| EnvChange::Set(text.to_owned()));
        assert_eq!(read(text).unwrap(), set);
        let error = read("A=1\nB C=1\n").unwrap_err().to_string();
        assert_eq!(error, "environment file f, line 2: a variable's name with a blank");
        assert!(read("=x").is_err());
    }
}
