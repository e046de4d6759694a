//! Sources that can be read once.
//!
//! A file may be named that is a pipe, as a shell's `<(…)` is, or a terminal. Whoever reads it first
//! has it all, and the next one nothing. So it is read once, early, and kept in memory for all who
//! name it. Files are read where they are needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What was read of sources that can be read once, by the device and the inode.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    read: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Sources {
    /// Returns what a source holds that can be read once; `None` for a file, a directory, and where
    /// nothing is there.
    ///
    /// # Errors
    /// Fails where it can't be read, and where it holds more than `limit` bytes.
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
