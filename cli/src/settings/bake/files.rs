//! The files of a bake definition.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::io::{self, Read};

use anyhow::{Result, anyhow, bail};
use kiln_bake::File;
use kiln_oci::error::words_of;

use crate::settings::text_variable;

/// The files that are read if the user names none. Later ones win.
const DEFAULTS: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// The bytes that a file may have.
const LIMIT: u64 = 64 << 20;

/// Reads the files that the user or the environment names, or those that are there.
pub(super) fn read(named: &[String]) -> Result<Vec<File>> {
    let named = if named.is_empty() { of_environment()? } else { named.to_vec() };
    let mut files = Vec::new();
    if named.is_empty() {
        for name in DEFAULTS {
            match content(name) {
                Ok(content) => files.push(File { name: name.to_owned(), content }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => bail!(failure(name, &error)),
            }
        }
    }
    for name in named {
        let name = name.strip_prefix("cwd://").unwrap_or(&name).to_owned();
        let content = if name == "-" { standard_input() } else { content(&name) };
        let content = content.map_err(|error| anyhow!(failure(&name, &error)))?;
        files.push(File { name, content });
    }
    files.retain(|file| !file.content.is_empty());
    if files.is_empty() {
        bail!("couldn't find a bake definition");
    }
    Ok(files)
}

/// Returns the files that the environment names.
fn of_environment() -> Result<Vec<String>> {
    let Some(list) = text_variable("BUILDX_BAKE_FILE") else { return Ok(Vec::new()) };
    let separator = text_variable("BUILDX_BAKE_PATH_SEPARATOR");
    let separator = separator.filter(|text| !text.is_empty()).unwrap_or_else(|| ":".to_owned());
    let mut names = Vec::new();
    for name in list.split(&separator).map(str::trim).filter(|name| !name.is_empty()) {
        if name != "-" {
            let path = name.strip_prefix("cwd://").unwrap_or(name);
            std::fs::metadata(path)
                .map_err(|error| anyhow!("stat {name}: {}", words_of(&error).to_lowercase()))?;
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn failure(name: &str, error: &io::Error) -> String {
    let words = words_of(error).to_lowercase();
    let verb = if error.kind() == io::ErrorKind::IsADirectory { "read" } else { "open" };
    format!("{verb} {name}: {words}")
}

fn content(name: &str) -> io::Result<Vec<u8>> {
    limited(std::fs::File::open(name)?)
}

fn standard_input() -> io::Result<Vec<u8>> {
    limited(io::stdin().lock())
}

fn limited(source: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    source.take(LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    Ok(content)
}
