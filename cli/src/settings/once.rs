//! Sources that can be read only once.
//!
//! The path of a source may be a pipe, such as a shell's `<(…)`, or a terminal. The first reader
//! gets all of its contents, and later ones get nothing. So kiln reads such a source once, early,
//! and keeps it in memory for every option that names it. It reads regular files when they are
//! needed.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The contents of the sources that were read, by device and inode number.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    read: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Sources {
    /// Returns the contents of a source that can be read only once; `None` for a file, for a
    /// directory, and if the path doesn't exist.
    ///
    /// # Errors
    /// Fails if the source can't be read or holds more than `limit` bytes.
    pub(crate) fn read(&mut self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
        if metadata.is_file() || metadata.is_dir() {
            return Ok(None);
        }
        let key = (metadata.dev(), metadata.ino());
        if let Some(known) = self.read.get(&key) {
            return Ok(Some(known.clone()));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
            .with_context(|| format!("read {}", path.display()))?;
        if bytes.len() as u64 > limit {
            bail!("{}: more than {limit} bytes", path.display());
        }
        self.read.insert(key, bytes.clone());
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn pipes_are_read_once_and_given_to_all() {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"x\n").unwrap();
        drop(write);
        let path = format!("/dev/fd/{}", read.as_raw_fd());
        let mut sources = Sources::default();
        for _ in 0..2 {
            assert_eq!(sources.read(Path::new(&path), 2).unwrap().as_deref(), Some(&b"x\n"[..]));
        }
        assert_eq!(sources.read(Path::new("/etc/passwd"), 1).unwrap(), None);
        assert_eq!(sources.read(Path::new("/no/such"), 1).unwrap(), None);
        assert_eq!(sources.read(Path::new("/dev/null"), 1).unwrap(), Some(Vec::new()));
        let error = sources.read(Path::new("/dev/zero"), 9).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero: more than 9 bytes");
    }
}
