//! The secrets of a build.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// The maximum size of a secret in bytes, equal to BuildKit's.
const LIMIT: u64 = 500 * 1024;

/// The secrets of a build: files of this machine, or what a client sends.
pub trait SecretSources: fmt::Debug + Send + Sync {
    /// Returns the value of a secret, or `None` if there is no secret of this ID. May block.
    ///
    /// # Errors
    /// Fails if the value can't be had, or if it is larger than 500 KiB.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>>;
}

/// The source of a secret's value.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The path of a file, which is read when a step needs the secret.
    File(PathBuf),
    /// The value in memory.
    Value(Vec<u8>),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

impl SecretSources for BTreeMap<String, SecretSource> {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        match self.get(id) {
            Some(SecretSource::Value(value)) => Ok(Some(value.clone())),
            Some(SecretSource::File(path)) => read(id, path).map(Some),
            None => Ok(None),
        }
    }
}

/// The secrets that steps and remote sources ask for.
#[derive(Clone, Debug)]
pub(crate) struct Secrets(Arc<dyn SecretSources>);

impl Secrets {
    pub(crate) fn new(secrets: Arc<dyn SecretSources>) -> Self {
        Self(secrets)
    }

    /// Returns a secret's value. Returns `None` if the secret doesn't exist and is optional.
    pub(crate) fn get(&self, id: &str, optional: bool) -> Result<Option<Vec<u8>>> {
        match self.0.secret(id)? {
            None if !optional => Err(Error::Invalid(format!("secret {id}: not found"))),
            found => Ok(found),
        }
    }
}

fn read(id: &str, path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::kernel("read secret", id)(source);
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LIMIT {
        return Err(Error::Invalid(format!("secret {id}: {size} bytes, more than {LIMIT}")));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_secrets_matter_unless_optional() {
        let value = SecretSource::Value(b"x".to_vec());
        let secrets = Secrets::new(Arc::new(BTreeMap::from([("a".to_owned(), value)])));
        assert_eq!(secrets.get("a", false).unwrap().as_deref(), Some(&b"x"[..]));
        assert_eq!(secrets.get("b", true).unwrap(), None);
        assert_eq!(secrets.get("b", false).unwrap_err().to_string(), "secret b: not found");
        assert!(!format!("{secrets:?}").contains('x'));
    }

    #[test]
    fn huge_secrets_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        std::fs::File::create(&path).unwrap().set_len(LIMIT + 1).unwrap();
        let secrets = BTreeMap::from([("s".to_owned(), SecretSource::File(path))]);
        assert!(Secrets::new(Arc::new(secrets)).get("s", false).is_err());
    }
}
