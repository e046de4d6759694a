//! Sources that the frontend asks about: their times for `SOURCE_DATE_EPOCH`, and the files of
//! named contexts.
//!
//! kiln fetches such a source like any step does and takes the time from its files: the files of a
//! repository have the commit's time; a downloaded file has the time that the server reports, or
//! 1970 without one.

use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result};
use kiln_event::{EventSender, Reporter};
use kiln_frontend::{ContextFiles, ResolveError};
use kiln_llb::op::{CopyAction, SourceOp};
use kiln_tree::{Dir, TarReader, decompress, is_archive_start};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::files::{Files, resolve_error};
use super::policy;
use super::step::Step;
use super::tools::Tools;
use crate::redact;

/// The number of bytes of a file that are inspected to recognize an archive.
const START: u64 = 1024;

/// Files of contexts, together with the times of remote sources.
pub(super) struct TimedFiles<'a> {
    /// The files of the main and named contexts.
    pub(super) files: &'a Files,
    /// The tools that fetch sources.
    pub(super) tools: &'a Tools,
    /// The sender of progress events.
    pub(super) events: &'a EventSender,
    /// The token that stops the fetching.
    pub(super) cancel: &'a CancellationToken,
    /// A handle to the Tokio runtime.
    pub(super) runtime: Handle,
}

impl ContextFiles for TimedFiles<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        self.files.read(path)
    }

    fn is_ignored(&self, patterns: &[String], path: &str) -> Result<bool, ResolveError> {
        self.files.is_ignored(patterns, path)
    }

    fn named(&self, name: &str) -> Option<&dyn ContextFiles> {
        self.files.named(name)
    }

    fn reads_ignored(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        self.files.reads_ignored(patterns, copy)
    }

    fn excludes_named(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        self.files.excludes_named(patterns, copy)
    }

    fn elsewhere(&self, source: &SourceOp) -> Result<Option<Box<dyn ContextFiles>>, ResolveError> {
        let shown = redact::urls(&source.identifier).into_owned();
        let step = Step::begin(self.events, format!("[internal] load .dockerignore of {shown}"));
        let root = self.runtime.block_on(self.fetch(source, &step));
        let files = root.map(|root| Some(Box::new(Files::of(root)) as Box<dyn ContextFiles>));
        step.end(files.map_err(resolve_error))
    }

    fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, ResolveError> {
        let name = format!("[internal] load the time of {}", source.identifier);
        let step = Step::begin(self.events, name);
        let time =
            self.runtime.block_on(time_of(self.tools, source.clone(), &step.reporter(self.cancel)));
        step.end(time.map_err(resolve_error))
    }
}

impl TimedFiles<'_> {
    /// Fetches a source and opens its files.
    async fn fetch(&self, source: &SourceOp, step: &Step<'_>) -> Result<Dir> {
        fetch(self.tools, source, &step.reporter(self.cancel)).await
    }
}

async fn fetch(tools: &Tools, source: &SourceOp, reporter: &Reporter) -> Result<Dir> {
    tools.check_privileges()?;
    let source = policy::checked(&tools.policies, source)?;
    let files = tools.worker.fetch(&source, reporter).await?;
    tools.open(&files).await
}

/// Returns the time of a remote source in seconds since 1970, if it has one.
pub(super) async fn time_of(
    tools: &Tools,
    mut source: SourceOp,
    reporter: &Reporter,
) -> Result<Option<i64>> {
    let is_repository = source.identifier.starts_with("git://");
    if is_repository {
        source.attrs.insert("git.mtime".to_owned(), "commit".to_owned());
    }
    let root = fetch(tools, &source, reporter).await?;
    let time = newest(&root)?;
    if is_repository || time != Some(0) {
        return Ok(time);
    }
    if let Some(name) = source.attrs.get("http.filename") {
        let mut start = Vec::new();
        root.open_file(Path::new(name))?.take(START).read_to_end(&mut start)?;
        if is_archive_start(&start) {
            let file = root.open_file(Path::new(name))?;
            return tokio::task::block_in_place(|| newest_of_archive(file));
        }
    }
    Ok(None)
}

/// Returns the latest modification time of an archive's regular files.
fn newest_of_archive(archive: impl Read + Send) -> Result<Option<i64>> {
    let (mut plain, _) = decompress(archive).context("read the archive")?;
    let mut reader = TarReader::new(&mut plain);
    let mut newest = None;
    while let Some(entry) = reader.next_entry().context("read the archive")? {
        if entry.kind.is_file() {
            newest = newest.max(Some(entry.mtime.seconds));
        }
    }
    Ok(newest)
}

/// Returns the latest modification time of a directory's files.
fn newest(root: &Dir) -> Result<Option<i64>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut newest = None;
    for name in root.names()? {
        let name = Path::new(std::ffi::OsStr::from_bytes(&name));
        let metadata = root.metadata(name, false)?;
        newest = newest.max(metadata.map(|metadata| metadata.mtime.seconds));
    }
    Ok(newest)
}
