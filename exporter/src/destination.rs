//! Files that appear whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file that is written beside its destination and takes its place when it is complete. What is
/// there and isn't a file (a pipe, a device) is written to as it is.
pub(crate) struct NewFile {
    target: PathBuf,
    /// Where it is written meanwhile; `None` where that is the target itself.
    temporary: Option<PathBuf>,
    file: File,
}

impl NewFile {
    pub(crate) fn create(dest: &Path) -> Result<Self> {
        // A link is written through, as a redirection of the shell would.
        let target = fs::canonicalize(dest).unwrap_or_else(|_| dest.to_owned());
        if let Ok(there) = fs::metadata(&target) {
            let kind = there.file_type();
            if kind.is_dir() {
                let source = io::Error::from(io::ErrorKind::IsADirectory);
                return Err(Error::Io { action: "write", path: target, source });
            }
            if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
                let file = OpenOptions::new().write(true).open(&target);
                let file = file.map_err(Error::io("open", &target))?;
                return Ok(Self { target, temporary: None, file });
            }
        }
        let mut number = 0_u32;
        loop {
            let temporary = beside(&target, number)?;
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self { target, temporary: Some(temporary), file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::io("create", dest)(error)),
            }
        }
    }

    /// Gives the complete file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.target))?;
        match self.temporary.take() {
            Some(temporary) => fs::rename(&temporary, &self.target)
                .inspect_err(|_| drop(fs::remove_file(&temporary)))
                .map_err(Error::io("rename", &self.target)),
            None => Ok(()),
        }
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Returns the path as people know it.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn beside(target: &Path, number: u32) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        Error::Io { action: "create", path: target.to_owned(), source }
    })?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".kiln-{}-{number}", std::process::id()));
    Ok(target.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        fs::write(&path, "old").unwrap();
        let mut new = NewFile::create(&path).unwrap();
        new.file().write_all(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(new);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("out.tar", &link).unwrap();
        let mut new = NewFile::create(&link).unwrap();
        new.file().write_all(b"new").unwrap();
        new.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(NewFile::create(dir.path()).is_err());
        assert!(NewFile::create(&dir.path().join("no/where")).is_err());
        let mut null = NewFile::create(Path::new("/dev/null")).unwrap();
        null.file().write_all(b"x").unwrap();
        null.commit().unwrap();
    }
}
