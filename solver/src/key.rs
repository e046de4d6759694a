//! The hashes that identify results.
//!
//! Every hash covers the name of its kind first. A length precedes each field of variable length,
//! so different keys never hash the same bytes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use kiln_event::Key;
use kiln_oci::{Digest, DigestHasher};

/// The reasons why a key isn't looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NoLookup {
    /// `true` if the key depends on something that exists in this build only.
    pub(crate) ephemeral: bool,
    /// `true` if the key depends on a result that is made again although it may be cached.
    pub(crate) fresh: bool,
}

impl NoLookup {
    /// Returns `true` if the key can be looked up.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Returns the taint of a key that depends on both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { ephemeral: self.ephemeral || other.ephemeral, fresh: self.fresh || other.fresh }
    }
}

/// The part of a key that represents one input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyPart {
    /// The canonical key of the input's vertex, and the number of the output.
    Output(Key, u32),
    /// The digest of the selected content of the input.
    Content(Digest),
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(key, output) => write!(f, "key:{key}:{output}"),
            Self::Content(digest) => write!(f, "content:{digest}"),
        }
    }
}

/// Returns the hash of `kind`, the op's `salt` and the `parts` of its inputs.
pub(crate) fn key_of(kind: &str, salt: &[u8], parts: &[KeyPart]) -> Key {
    let mut hasher = DigestHasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(kind.as_bytes());
    field(salt);
    field(&(parts.len() as u64).to_le_bytes());
    for part in parts {
        match part {
            KeyPart::Output(key, output) => {
                field(b"output");
                field(key.0.as_bytes());
                field(&output.to_le_bytes());
            }
            KeyPart::Content(digest) => {
                field(b"content");
                field(digest.as_bytes());
            }
        }
    }
    Key(hasher.finish())
}

/// Returns bytes that differ in every build.
pub(crate) fn nonce() -> Vec<u8> {
    static BUILDS: AtomicU64 = AtomicU64::new(0);
    let build = BUILDS.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{build}-{}", std::process::id(), now.as_nanos()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_where_anything_differs() {
        let digest = Digest::of(b"x");
        let key = Key(digest);
        let keys = [
            key_of("definition", b"a", &[]),
            key_of("content", b"a", &[]),
            key_of("definition", b"b", &[]),
            key_of("definition", b"a", &[KeyPart::Output(key, 0)]),
            key_of("definition", b"a", &[KeyPart::Output(key, 1)]),
            key_of("definition", b"a", &[KeyPart::Content(digest)]),
            key_of("definition", b"a", &[KeyPart::Content(digest); 2]),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_ne!(nonce(), nonce());
    }
}
