//! The secrets of a build.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::worker::SecretSource;

/// The maximum size of a secret in bytes, equal to BuildKit's.
const LIMIT: u64 = 500 * 1024;

/// The sources of secrets by ID.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(BTreeMap<String, SecretSource>);

impl Secrets {
    pub(crate) fn new(secrets: BTreeMap<String, SecretSource>) -> Self {
        Self(secrets)
    }

    /// Returns a secret's value. Returns `None` if the secret doesn't exist and is optional.
    pub(crate) fn get(&self, id: &str, optional: bool) -> Result<Option<Vec<u8>>> {
        match self.0.get(id) {
            Some(SecretSource::Value(value)) => Ok(Some(value.clone())),
            Some(SecretSource::File(path)) => read(id, path).map(Some),
            None if optional => Ok(None),
            None => Err(Error::Invalid(format!("secret {id}: not found"))),
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
        let secrets = Secrets::new(BTreeMap::from([("a".to_owned(), value)]));
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
        assert!(Secrets::new(secrets).get("s", false).is_err());
    }
}
