//! Named contexts: `--build-context`.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln::build::{CONTEXT_NAME, ContextPlace};

use super::places::{context_directory, is_ssh, remote};

/// Named contexts, sorted by kind.
#[derive(Debug, Default)]
pub(super) struct NamedContexts {
    /// Contexts that are directories, by the name of their local source.
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// Directories of OCI layouts, by their name in the graph.
    pub(super) layouts: BTreeMap<String, PathBuf>,
    /// All named contexts, in the form that the frontend expects.
    pub(super) values: BTreeMap<String, String>,
    /// `true` if a context is a repository that git reaches through SSH.
    pub(super) uses_ssh: bool,
}

impl NamedContexts {
    /// Parses each `NAME=VALUE`, and adds the main context if it is remote.
    pub(super) fn new(texts: &[String], main: &ContextPlace) -> Result<Self> {
        let mut named = Self::default();
        for text in texts {
            named.add(text)?;
        }
        if let ContextPlace::Remote(url) = main {
            named.uses_ssh |= is_ssh(url);
            named.values.insert(CONTEXT_NAME.to_owned(), url.clone());
        }
        Ok(named)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let Some((name, value)) = text.split_once('=') else {
            bail!("invalid build context {text:?}: expected NAME=VALUE");
        };
        let name = name.to_owned();
        let meaning = if let Some(layout) = value.strip_prefix("oci-layout://") {
            format!("oci-layout://{}", self.layout(layout)?)
        } else if value.starts_with("docker-image://") || value.starts_with("target:") {
            value.to_owned()
        } else if let Some(url) = remote(value).filter(|_| !Path::new(value).is_dir()) {
            self.uses_ssh |= is_ssh(&url);
            url
        } else {
            let directory = context_directory(Path::new(value))
                .with_context(|| format!("build context {name}"))?;
            self.directories.insert(name.clone(), directory);
            format!("local:{name}")
        };
        self.values.insert(name, meaning);
        Ok(())
    }

    /// Makes the directory of `DIR[:TAG][@DIGEST]` absolute and records it.
    fn layout(&mut self, text: &str) -> Result<String> {
        let digest = text.find("@sha256:").unwrap_or(text.len());
        let tag = match text[..digest].rfind(':') {
            Some(colon) if !text[colon..digest].contains('/') && !Path::new(text).is_dir() => colon,
            _ => digest,
        };
        let (directory, suffix) = text.split_at(tag);
        let directory = std::fs::canonicalize(directory)
            .with_context(|| format!("open the OCI layout {directory:?}"))?;
        let name = directory.to_string_lossy().into_owned();
        self.layouts.insert(name.clone(), directory);
        Ok(name + suffix)
    }
}
