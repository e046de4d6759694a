//! Loading into engines whose client program reads an archive from standard input.

use std::io::{self, BufWriter, Read, Write};
use std::process::{Command, Stdio};

use super::Failure;
use super::feed::Metered;
use crate::archive::{self, Files};
use crate::error::Error;
use crate::export::ExportContext;

/// The size of the write buffer in bytes.
const PIECE: usize = 1 << 20;
/// The maximum number of bytes of the program's error output that are kept.
const SAID: u64 = 64 << 10;

/// A program that can't be run, or whose input can't be written.
#[derive(Debug, thiserror::Error)]
#[error("run {program}")]
struct RunError {
    program: String,
    source: io::Error,
}

/// Runs a program with the archive of these files as its standard input.
pub(super) fn load(
    mut command: Command,
    files: &Files,
    name: &str,
    context: &ExportContext<'_>,
) -> Result<(), Failure> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let failed =
        |source: io::Error| Failure::Engine(RunError { program: shown.clone(), source }.into());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let said = child.stderr.take().map(|stream| std::thread::spawn(move || listen(stream)));
    let written = child.stdin.take().map_or(Ok(()), |stdin| {
        let total = archive::size(files, context.store);
        let sink = Metered::new(stdin, total, name, context.progress);
        let mut sink = BufWriter::with_capacity(PIECE, sink);
        archive::write_stream(files, &mut sink, context.store).and_then(|()| sink.flush())
    });
    if context.progress.is_cancelled() {
        // The program must not import a truncated archive.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    if context.progress.is_cancelled() {
        return Err(Error::Cancelled.into());
    }
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    if !status.success() {
        let problem = format!("{shown} has failed, {status}: {}", said.trim());
        return Err(Failure::Engine(problem.into()));
    }
    written.map_err(failed)
}

/// Returns the beginning of a program's error output.
fn listen(mut stream: impl Read) -> String {
    let mut said = Vec::new();
    // Read errors are ignored. The rest is discarded, so that the program doesn't block.
    let _ = stream.by_ref().take(SAID).read_to_end(&mut said);
    let _ = io::copy(&mut stream, &mut io::sink());
    String::from_utf8_lossy(&said).into_owned()
}
