//! Directories held open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::Result;

/// A directory held open. Paths given to its methods are resolved inside it: `/`, `..` and
/// symbolic links can't lead out.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

impl Dir {
    /// Opens a directory by a path of the host that is trusted.
    pub fn open(path: &Path) -> Result<Self> {
        let _ = path;
        todo!()
    }

    /// Takes over a descriptor of a directory.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens the directory at `path` inside this one, following links inside.
    pub fn open_dir(&self, path: &Path) -> Result<Self> {
        let _ = path;
        todo!()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
