//! The IDs of layers.

use std::fmt;
use std::str::FromStr;

/// The ID of a layer in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(String);

/// The error of an invalid layer ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid layer ID {0:?}")]
pub struct ParseLayerIdError(String);

impl LayerId {
    /// Returns the ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_index(text: String) -> Self {
        Self(text)
    }

    /// Returns an ID that no layer has.
    pub(crate) fn fresh() -> Self {
        Self(crate::name::fresh())
    }
}

impl FromStr for LayerId {
    type Err = ParseLayerIdError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if text.is_empty() || text.len() > 64 || !text.bytes().all(valid) {
            return Err(ParseLayerIdError(text.chars().take(100).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
