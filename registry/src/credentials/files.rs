//! Credentials in files and in the helpers that they name.

use std::path::{Path, PathBuf};

use super::config_file::ConfigFile;
use super::{Credential, CredentialError, Credentials, key_of};
use crate::warnings::Warnings;

/// Files with credentials, the most important first: the first that has something for a registry
/// counts, and what is to be kept goes into the first.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    paths: Vec<PathBuf>,
    warnings: Warnings,
}

/// Where credentials were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// With a helper.
    Helper,
    /// In this file, for everybody to read who can read it.
    File(PathBuf),
}

impl CredentialFiles {
    /// Returns access to files, which need not be there.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, warnings: Warnings::default() }
    }

    /// Has files that can't be read passed over, with a warning.
    #[must_use]
    pub fn warning(self, warnings: Warnings) -> Self {
        Self { warnings, ..self }
    }

    fn first(&self) -> Result<ConfigFile, CredentialError> {
        let none = || CredentialError("there is no place for credentials: set $HOME".to_owned());
        ConfigFile::read(self.paths.first().map(PathBuf::as_path).ok_or_else(none)?)
    }

    /// Keeps credentials for a registry: with the helper that the first file names, else in it.
    ///
    /// # Errors
    /// Fails where the helper does, or the file can't be written.
    pub fn put(
        &self,
        registry: &str,
        username: &str,
        credential: &Credential,
    ) -> Result<Kept, CredentialError> {
        let mut file = self.first()?;
        let kept = if let Some(helper) = file.helper(registry)? {
            helper.store(key_of(registry), username, credential)?;
            file.put(registry, None);
            Kept::Helper
        } else {
            file.put(registry, Some((username, credential)));
            Kept::File(file.path().to_owned())
        };
        file.write()?;
        Ok(kept)
    }

    /// Forgets what is kept for a registry, and tells whether there was anything.
    ///
    /// # Errors
    /// Fails where a helper does, or a file can't be written.
    pub fn remove(&self, registry: &str) -> Result<bool, CredentialError> {
        let mut found = false;
        for path in &self.paths {
            let mut file = ConfigFile::read(path)?;
            if let Some(helper) = file.helper(registry)? {
                found |= file.mentions(registry);
                helper.erase(key_of(registry))?;
            }
            if file.mentions(registry) {
                found = true;
                file.remove(registry);
                file.write()?;
            }
        }
        Ok(found)
    }

    /// Returns the name under which somebody is logged in to a registry, for the next prompt.
    pub fn username(&self, registry: &str) -> Option<String> {
        match self.get(registry, "").ok()?? {
            Credential::Password { username, .. } => Some(username),
            _ => None,
        }
    }

    /// Returns the file that credentials would be kept in.
    pub fn file(&self) -> Option<&Path> {
        self.paths.first().map(PathBuf::as_path)
    }
}

impl Credentials for CredentialFiles {
    fn get(&self, registry: &str, repository: &str) -> Result<Option<Credential>, CredentialError> {
        for path in &self.paths {
            let file = match ConfigFile::read(path) {
                Ok(file) => file,
                Err(problem) => {
                    self.warnings.warn(format!("{problem}; the file is ignored"));
                    continue;
                }
            };
            if let Some(helper) = file.helper(registry)?
                && let Some(found) = helper.get(key_of(registry))?
            {
                return Ok(Some(found));
            }
            if let Some(found) = file.get(registry, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
