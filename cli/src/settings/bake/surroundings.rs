//! The machine, as a bake definition sees it.

#![expect(clippy::disallowed_methods, reason = "definitions name variables and files")]

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::time::SystemTime;

use anyhow::{Context, Result};
use kiln_bake::Surroundings;

/// The bytes of a file that a definition may read, such as one that a compose file includes.
const LIMIT: u64 = 64 << 20;

/// This machine.
pub(super) struct Host {
    folder: String,
}

impl Host {
    /// Returns the machine, with the working directory of this process.
    pub(super) fn new() -> Result<Self> {
        let folder = std::env::current_dir().context("find the working directory")?;
        Ok(Self { folder: folder.to_string_lossy().into_owned() })
    }
}

impl Surroundings for Host {
    fn variable(&self, name: &str) -> Option<String> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs().cast_signed())
    }

    fn home(&self) -> String {
        self.variable("HOME").unwrap_or_default()
    }

    fn random(&self, buffer: &mut [u8]) {
        let source = std::fs::File::open("/dev/urandom");
        // The content of the buffer is no secret: an error leaves zeros.
        let _ = source.and_then(|mut source| source.read_exact(buffer));
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(LIMIT).read_to_end(&mut content)?;
        Ok(content)
    }

    fn check(&self, path: &str) -> io::Result<()> {
        std::fs::metadata(path).map(drop)
    }

    fn is_folder(&self, path: &str) -> Option<bool> {
        std::fs::metadata(path).ok().map(|found| found.is_dir())
    }

    fn prints_to_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    fn working_directory(&self) -> String {
        self.folder.clone()
    }
}
