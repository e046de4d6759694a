//! Credentials in files and in the helpers that these name.

use std::path::{Path, PathBuf};

use super::config_file::ConfigFile;
use super::{Credential, CredentialError, Credentials, key_of};
use crate::warnings::Warnings;

/// A list of credential files in order of precedence. The first one with credentials for a registry
/// is used. New credentials go into the first one.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    paths: Vec<PathBuf>,
    warnings: Warnings,
}

/// The storage that new credentials went to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialPlace {
    /// The credential helper that the first file names.
    Helper,
    /// This file, readable by everyone with access to it.
    File(PathBuf),
}

impl CredentialFiles {
    /// Creates an accessor of files, which may be missing.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, warnings: Warnings::default() }
    }

    /// Sets the receiver of warnings about unreadable files, which are skipped.
    #[must_use]
    pub fn warning(self, warnings: Warnings) -> Self {
        Self { warnings, ..self }
    }

    fn first(&self) -> Result<ConfigFile, CredentialError> {
        let none = || CredentialError("there is no place for credentials: set $HOME".to_owned());
        ConfigFile::read(self.paths.first().map(PathBuf::as_path).ok_or_else(none)?)
    }

    /// Stores credentials for a registry: with the helper that the first file names, else in that
    /// file.
    ///
    /// # Errors
    /// Fails if the helper fails or the file can't be written.
    pub fn put(
        &self,
        registry: &str,
        username: &str,
        credential: &Credential,
    ) -> Result<CredentialPlace, CredentialError> {
        let mut file = self.first()?;
        let kept = if let Some(helper) = file.helper(registry)? {
            helper.store(key_of(registry), username, credential)?;
            file.put(registry, None);
            CredentialPlace::Helper
        } else {
            file.put(registry, Some((username, credential)));
            CredentialPlace::File(file.path().to_owned())
        };
        file.write()?;
        Ok(kept)
    }

    /// Removes a registry's credentials from all files and helpers. Returns `true` if there were
    /// any.
    ///
    /// # Errors
    /// Fails if a helper fails or a file can't be written.
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

    /// Returns the user name of a registry's stored password, as the default of a prompt.
    pub fn username(&self, registry: &str) -> Option<String> {
        match self.get(registry, "").ok()?? {
            Credential::Password { username, .. } => Some(username),
            _ => None,
        }
    }

    /// Returns the path of the file that new credentials go to.
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
