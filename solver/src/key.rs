//! Cache keys.
//!
//! Every hash begins with the name of what it is of, and each part of variable length with its
//! length, so that no two different keys are made of the same bytes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use kiln_oci::{Digest, DigestHasher};
use serde::{Deserialize, Serialize};

/// What a result is stored and found under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Digest);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.short())
    }
}

/// Why a key is not looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taint {
    /// It depends on something of this build alone.
    pub(crate) ephemeral: bool,
    /// It depends on something that is made anew.
    pub(crate) fresh: bool,
}

impl Taint {
    /// Tells whether there is none.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Returns the taint of what depends on both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { ephemeral: self.ephemeral || other.ephemeral, fresh: self.fresh || other.fresh }
    }
}

/// What a key says about one input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyPart {
    /// The canonical key of the vertex that makes it, and which output.
    Output(Key, u32),
    /// The digest of what is selected of it.
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

impl Key {
    /// Returns the key of a vertex whose op is `salt`, made of `parts`.
    pub(crate) fn of(kind: &str, salt: &[u8], parts: &[KeyPart]) -> Self {
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
        Self(hasher.finish())
    }
}

/// Returns bytes that no other build has.
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
            Key::of("definition", b"a", &[]),
            Key::of("content", b"a", &[]),
            Key::of("definition", b"b", &[]),
            Key::of("definition", b"a", &[KeyPart::Output(key, 0)]),
            Key::of("definition", b"a", &[KeyPart::Output(key, 1)]),
            Key::of("definition", b"a", &[KeyPart::Content(digest)]),
            Key::of("definition", b"a", &[KeyPart::Content(digest); 2]),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_ne!(nonce(), nonce());
    }
}
