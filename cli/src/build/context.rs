//! What a build reads: its main context, and the Dockerfile in it or beside it.
//!
//! A context on standard input is an archive, which is unpacked into the store's temporary area and
//! is a directory from then on, or a Dockerfile without a context.
//!
//! A context elsewhere is fetched before the Dockerfile can be read. The graph still names where it
//! is, and the worker, which has it already, brings in nothing twice.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kiln_frontend::Options;
use kiln_llb::Edge;
use kiln_llb::op::OpKind;
use kiln_solver::{EventSender, StepContext};
use kiln_store::Store;
use kiln_tree::{Dir, Owner, UnpackOptions, decompress, is_archive_start, unpack};

use super::files::Dockerfile;
use super::images::Step;
use super::places::{ContextPlace, DockerfilePlace};
use super::request::{BuildRequest, CONTEXT_NAME};
use super::session::Failure;
use super::tools::{Reporting, Tools, check_privileges};

/// How much of standard input tells whether it is an archive.
const START: u64 = 1024;

/// Most entries of an archive on standard input.
const MAX_ENTRIES: u64 = 4_000_000;

/// What a context is called that is no directory of this machine.
const PLACE: &str = "the build context";

/// What a build reads.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) dockerfile: Dockerfile,
    /// The files of the main context.
    pub(super) root: Dir,
    /// Where they are, unless the context is elsewhere.
    pub(super) directory: Option<PathBuf>,
    /// Whether the context is an archive elsewhere.
    pub(super) is_archive: bool,
}

impl Input {
    /// Reads what is here already; `None` for a context that is elsewhere.
    pub(super) fn local(request: &BuildRequest, store: &Store) -> Result<Option<Self>> {
        match &request.context {
            ContextPlace::Directory(directory) => {
                let dockerfile = Dockerfile::read(&request.dockerfile, directory)?;
                Self::of_directory(dockerfile, directory.clone()).map(Some)
            }
            ContextPlace::StandardInput => {
                let limit = request.input_limit;
                Self::of_stream(std::io::stdin(), store, &request.dockerfile, limit).map(Some)
            }
            ContextPlace::Remote(_) => Ok(None),
        }
    }

    fn of_directory(dockerfile: Dockerfile, directory: PathBuf) -> Result<Self> {
        let root = Dir::open(&directory)?;
        Ok(Self { dockerfile, root, directory: Some(directory), is_archive: false })
    }

    /// Fetches a context that is elsewhere, and reads the Dockerfile in it. A file that is no
    /// archive is the Dockerfile itself.
    pub(super) async fn fetch(
        request: &BuildRequest,
        options: Options,
        tools: &Tools,
        reporting: Reporting<'_>,
    ) -> Result<Self> {
        check_privileges()?;
        let Reporting { events, cancel } = reporting;
        let step = Step::begin(events, "[internal] load remote build context".to_owned());
        let context = StepContext {
            vertex: step.id(),
            events: events.clone(),
            cancel: cancel.clone(),
            is_last: false,
            kept: Vec::new(),
        };
        let fetched = Self::fetch_files(options, tools, &context).await;
        let (root, place) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                step.fail(&format!("{error:#}"));
                return Err(error.context("load the remote build context"));
            }
        };
        step.complete();
        let is_archive = matches!(place, Place::Archive);
        let dockerfile = match (&request.dockerfile, place) {
            (DockerfilePlace::StandardInput, _) => {
                tokio::task::block_in_place(|| Dockerfile::of_stream(std::io::stdin()))?
            }
            (DockerfilePlace::Text { text, .. }, _) => Dockerfile::of_stream(text.as_slice())?,
            (_, Place::File) => Dockerfile::read_in(&root, Path::new(CONTEXT_NAME), PLACE)?,
            (DockerfilePlace::Path(path), _) => Dockerfile::read_in(&root, path, PLACE)?,
            (DockerfilePlace::Context | DockerfilePlace::Remote(_), _) => {
                Dockerfile::read_in(&root, Path::new("Dockerfile"), PLACE)?
            }
        };
        Ok(Self { dockerfile, root, directory: None, is_archive })
    }

    async fn fetch_files(
        mut options: Options,
        tools: &Tools,
        context: &StepContext,
    ) -> Result<(Dir, Place)> {
        let source = remote(&options)?;
        let Some(OpKind::Source(op)) = &source.node().op().kind else {
            bail!("the build context is no source");
        };
        let files = tools.worker.fetch(op, context).await?;
        let root = tools.open(&files).await?;
        if op.identifier.starts_with("git://") {
            return Ok((root, Place::Repository));
        }
        let mut start = Vec::new();
        let file = root.open_file(Path::new(CONTEXT_NAME))?;
        file.take(START).read_to_end(&mut start).context("read the remote build context")?;
        if !is_archive_start(&start) {
            return Ok((root, Place::File));
        }
        options.archive_context = true;
        // The build's graph has the same op, and finds its result in the cache; nobody needs to see
        // it twice.
        let (events, _) = EventSender::channel();
        let definition = [remote(&options)?.marshal()];
        let reporting = Reporting { events: &events, cancel: &context.cancel };
        let solved = tools.solve(&definition, reporting).await;
        let solved = solved.map_err(|failure| match failure {
            Failure::Solve(error) => error.into(),
            Failure::Other(error) => error,
            Failure::Dockerfile(_) => anyhow!("the build context needs no Dockerfile"),
        })?;
        let output = solved.outputs.first().context("the build context has no files")?;
        Ok((tools.open(output).await?, Place::Archive))
    }

    fn of_stream(
        mut stream: impl Read + Send,
        store: &Store,
        place: &DockerfilePlace,
        limit: Option<u64>,
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
                DockerfilePlace::Path(path) => Dockerfile::read_in(&root, path, PLACE)?,
                DockerfilePlace::Text { text, .. } => Dockerfile::of_stream(text.as_slice())?,
                _ => Dockerfile::read_in(&root, Path::new("Dockerfile"), PLACE)?,
            };
            return Self::of_directory(dockerfile, directory);
        }
        if *place != DockerfilePlace::Context {
            bail!("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles");
        }
        Self::of_directory(Dockerfile::of_stream(whole)?, directory)
    }
}

/// What a context elsewhere is.
enum Place {
    Repository,
    Archive,
    File,
}

/// Returns the files of the context that the options name.
fn remote(options: &Options) -> Result<Edge> {
    kiln_frontend::remote_context(options)?.context("the build context is not elsewhere")
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
