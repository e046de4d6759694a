//! What a build reads: its main context, and the Dockerfile in it or beside it.
//!
//! A context on standard input is an archive, which is unpacked into the store's temporary area and
//! is a directory from then on, or a Dockerfile without a context.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_store::Store;
use kiln_tree::{Dir, Owner, UnpackOptions, decompress, is_archive_start, unpack};

use super::files::Dockerfile;
use super::request::{BuildRequest, ContextPlace, DockerfilePlace};

/// How much of standard input tells whether it is an archive.
const START: u64 = 1024;

/// Most entries of an archive on standard input.
const MAX_ENTRIES: u64 = 4_000_000;

/// What a build reads.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) dockerfile: Dockerfile,
    /// The directory of the main context.
    pub(super) directory: PathBuf,
}

impl Input {
    /// Reads what is here already.
    pub(super) fn local(request: &BuildRequest, store: &Store) -> Result<Self> {
        match &request.context {
            ContextPlace::Directory(directory) => Ok(Self {
                dockerfile: Dockerfile::read(&request.dockerfile, directory)?,
                directory: directory.clone(),
            }),
            ContextPlace::StandardInput => {
                let limit = request.input_limit;
                Self::of_stream(std::io::stdin(), store, (&request.dockerfile, limit))
            }
        }
    }

    fn of_stream(
        mut stream: impl Read + Send,
        store: &Store,
        (place, limit): (&DockerfilePlace, Option<u64>),
    ) -> Result<Self> {
        let mut start = Vec::new();
        let read = (&mut stream).take(START).read_to_end(&mut start);
        read.context("read standard input")?;
        let directory = store.temp_dir()?;
        let is_archive = is_archive_start(&start);
        let whole = Cursor::new(start).chain(stream);
        if is_archive {
            unpack_context(whole, &directory, limit)?;
            let root = Dir::open(&directory)?;
            let dockerfile = match place {
                DockerfilePlace::Path(path) => Dockerfile::read_in(&root, path)?,
                _ => Dockerfile::read_in(&root, Path::new("Dockerfile"))?,
            };
            return Ok(Self { dockerfile, directory });
        }
        if *place != DockerfilePlace::Context {
            bail!("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles");
        }
        Ok(Self { dockerfile: Dockerfile::of_stream(whole)?, directory })
    }
}

/// Unpacks a context into an empty directory.
fn unpack_context(
    archive: impl Read + Send,
    directory: &Path,
    max_bytes: Option<u64>,
) -> Result<()> {
    let max_entries = max_bytes.map(|_| MAX_ENTRIES);
    let owner = Some(Owner::default());
    let options = UnpackOptions { whiteouts: false, owner, max_bytes, max_entries };
    let read = "read the context on standard input";
    let (mut plain, _) = decompress(archive).context(read)?;
    let hint = || format!("{read} (--input-limit sets how large it may be)");
    unpack(&mut plain, &Dir::open(directory)?, options).with_context(hint)?;
    // Who writes must not be cut off: what follows the archive's end is read, too.
    std::io::copy(&mut plain, &mut std::io::sink()).context(read)?;
    Ok(())
}
