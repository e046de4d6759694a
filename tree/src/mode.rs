//! Changes of permission bits.

use crate::error::Result;

/// A change of permission bits: octal, or symbolic as `chmod` takes it (`u=rwX,go=rX`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {}

impl ModeChange {
    /// Returns the change that sets these bits.
    pub fn set(mode: u32) -> Self {
        let _ = mode;
        todo!()
    }

    /// Parses octal digits or a symbolic mode.
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        todo!()
    }

    /// Returns `mode` with the change made.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        let _ = (mode, directory);
        todo!()
    }
}
