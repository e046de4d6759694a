//! The environment of a container: from the image, from files and from arguments.

#![expect(
    clippy::disallowed_methods,
    reason = "the user names the files, and the command line reads the environment"
)]

use std::path::Path;

use anyhow::{Context, Result, bail};
use kiln_oci::ContainerConfig;

use crate::commands::run::RunArguments;

/// docker's `PATH` for images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Combines the image's environment with files and arguments. Later sources override earlier ones.
pub(super) fn resolve(
    config: &ContainerConfig,
    arguments: &RunArguments,
    hostname: &str,
) -> Result<Vec<String>> {
    let mut environment = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if arguments.tty {
        environment.push("TERM=xterm".to_owned());
    }
    for variable in &config.env {
        set(&mut environment, variable);
    }
    for path in &arguments.env_files {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read the environment file {}", path.display()))?;
        read_file(&mut environment, &text, path)?;
    }
    for text in &arguments.env {
        if text.is_empty() || text.starts_with('=') {
            bail!("invalid environment variable {text:?}");
        }
        set_or_inherit(&mut environment, text);
        if !text.contains('=') && std::env::var_os(text).is_none() {
            unset(&mut environment, text);
        }
    }
    Ok(environment)
}

/// Sets the variables of a file, one per line. Values are literal: quotes have no meaning.
fn read_file(environment: &mut Vec<String>, text: &str, path: &Path) -> Result<()> {
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
                set_or_inherit(environment, line);
                continue;
            }
        };
        bail!("environment file {}, line {}: {problem}", path.display(), number + 1);
    }
    Ok(())
}

/// Removes a variable of the image or of a file.
fn unset(environment: &mut Vec<String>, name: &str) {
    environment.retain(|entry| entry.split('=').next() != Some(name));
}

/// Sets `NAME=value`. `NAME` alone takes its value from kiln's environment if it is set there.
fn set_or_inherit(environment: &mut Vec<String>, text: &str) {
    if text.contains('=') {
        set(environment, text);
    } else if let Ok(value) = std::env::var(text) {
        set(environment, &format!("{text}={value}"));
    }
}

/// Sets a variable. Replaces an earlier variable of the same name.
fn set(environment: &mut Vec<String>, variable: &str) {
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    let wanted = name(variable);
    match environment.iter_mut().find(|earlier| name(earlier) == wanted) {
        Some(earlier) => variable.clone_into(earlier),
        None => environment.push(variable.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_line_by_line() {
        let read = |text: &str| {
            let mut environment = vec!["A=0".to_owned()];
            read_file(&mut environment, text, Path::new("f")).map(|()| environment)
        };
        let text = "\u{feff}# a comment\n\n  A=1\r\nB= \"x\" # y\nNOT_SET_HERE\nC=\n";
        assert_eq!(read(text).unwrap(), ["A=1", "B= \"x\" # y", "C="]);
        let error = read("A=1\nB C=1\n").unwrap_err().to_string();
        assert_eq!(error, "environment file f, line 2: a variable's name with a blank");
        assert!(read("=x").is_err());
    }
}
