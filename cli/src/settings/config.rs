//! `config.toml`: settings for every command.
//!
//! kiln reads two files: `$XDG_CONFIG_HOME/kiln/config.toml` (`~/.config/kiln/config.toml`) and
//! `/etc/kiln/config.toml`. A setting of the first file overrides the second. Command line and
//! environment override both.

#![expect(
    clippy::disallowed_methods,
    reason = "the configuration is the user's, and the command line reads the environment"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::limits;
use crate::arguments::IsolationChoice;

/// The settings of the configuration files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The most bytes that the store may occupy on the disk.
    pub(crate) max_storage: Option<u64>,
    /// The way to isolate programs.
    pub(crate) isolation: Option<IsolationChoice>,
}

/// The contents of one file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    max_storage: Option<Size>,
    isolation: Option<String>,
}

/// A size with a unit, or a number of bytes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Text(String),
    Bytes(u64),
}

impl Config {
    /// Reads the user's file and the machine's.
    ///
    /// # Errors
    /// Fails if a file can't be read or parsed.
    pub(crate) fn of_environment() -> Result<Self> {
        Self::read(&places(|name| std::env::var_os(name).filter(|value| !value.is_empty())))
    }

    fn read(places: &[PathBuf]) -> Result<Self> {
        let (mut max_storage, mut isolation) = (None, None);
        for path in places {
            let about = || format!("read the configuration {}", path.display());
            let Some(document) = document(path).with_context(about)? else { continue };
            if max_storage.is_none() {
                let size = document.max_storage.map(|size| size.limit());
                max_storage = size.transpose().with_context(about)?;
            }
            if isolation.is_none() {
                let name = document.isolation.map(|name| choice(&name));
                isolation = name.transpose().with_context(about)?;
            }
        }
        Ok(Self { max_storage: max_storage.flatten(), isolation })
    }
}

impl Size {
    fn limit(&self) -> Result<Option<u64>> {
        match self {
            Self::Text(text) => limits::size_limit(text).context("invalid max-storage"),
            Self::Bytes(bytes) => Ok(Some(*bytes).filter(|bytes| *bytes > 0)),
        }
    }
}

fn choice(name: &str) -> Result<IsolationChoice> {
    if !IsolationChoice::NAMES.contains(&name) {
        bail!("invalid isolation {name:?}: {}", IsolationChoice::NAMES.join(", "));
    }
    Ok(IsolationChoice::named(name))
}

fn document(path: &Path) -> Result<Option<Document>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    tracing::debug!(path = %path.display(), "configuration is read");
    // The error's text includes the line and marks the position in it.
    toml::from_str(&text).map(Some).map_err(|error| anyhow!("{}", error.to_string().trim_end()))
}

fn places(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let directory =
        |name: &str| variable(name).map(PathBuf::from).filter(|directory| directory.is_absolute());
    let own = directory("XDG_CONFIG_HOME")
        .or_else(|| Some(directory("HOME")?.join(".config")))
        .map(|config| config.join("kiln/config.toml"));
    own.into_iter().chain([PathBuf::from("/etc/kiln/config.toml")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_file_comes_first() {
        let found = |variables: &[(&str, &str)]| {
            places(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let system = PathBuf::from("/etc/kiln/config.toml");
        assert_eq!(
            found(&[("HOME", "/h")]),
            ["/h/.config/kiln/config.toml".into(), system.clone()]
        );
        let both = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")];
        assert_eq!(found(&both), ["/x/kiln/config.toml".into(), system.clone()]);
        assert_eq!(found(&[("HOME", "h")]), [system]);
    }

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (own, system) = (dir.path().join("own"), dir.path().join("system"));
        let read = |first: &str, second: &str| {
            std::fs::write(&own, first).unwrap();
            std::fs::write(&system, second).unwrap();
            Config::read(&[own.clone(), system.clone()]).map(|config| config.max_storage)
        };
        assert_eq!(read("", "").unwrap(), None);
        assert_eq!(read("", "max-storage = \"2g\"").unwrap(), Some(2 << 30));
        assert_eq!(read("max-storage = 4096", "max-storage = \"2g\"").unwrap(), Some(4096));
        assert_eq!(read("max-storage = \"0\"", "max-storage = \"2g\"").unwrap(), None);
        for text in [
            "max-storage = \"much\"",
            "max-storage = -1",
            "max_storage = 1",
            "x",
            "max-storage = [",
        ] {
            let error = format!("{:#}", read(text, "").unwrap_err());
            assert!(error.contains(own.to_str().unwrap()), "{error}");
        }
        std::fs::write(&own, "isolation = \"none\"").unwrap();
        std::fs::write(&system, "isolation = \"root\"\nmax-storage = 1").unwrap();
        let config = Config::read(&[own.clone(), system.clone()]).unwrap();
        assert_eq!(config.isolation, Some(IsolationChoice::named("none")));
        assert_eq!(config.max_storage, Some(1));
        std::fs::write(&own, "isolation = \"jail\"").unwrap();
        assert!(Config::read(&[own, system]).is_err());
        let missing = [dir.path().join("none")];
        assert_eq!(Config::read(&missing).unwrap(), Config::default());
    }
}
