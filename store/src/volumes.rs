//! Volumes of `kiln run`.

use std::path::PathBuf;

use crate::error::Result;

/// The volumes.
#[derive(Clone, Debug)]
pub struct Volumes {}

impl Volumes {
    /// Returns the directory of a named volume, made where there is none, and whether it is new.
    pub fn named(&self, name: &str) -> Result<(PathBuf, bool)> {
        let _ = name;
        todo!()
    }

    /// Makes an anonymous volume and returns its name and directory.
    pub fn anonymous(&self) -> Result<(String, PathBuf)> {
        todo!()
    }

    /// Removes a volume.
    pub fn remove(&self, name: &str) -> Result<()> {
        let _ = name;
        todo!()
    }
}
