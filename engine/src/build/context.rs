//! A build's input: its main context and the Dockerfile.
//!
//! Standard input holds either a Dockerfile without a context or a context as an archive. The
//! archive is unpacked into the store's temporary area and is a directory from then on.
//!
//! A remote context is fetched before the Dockerfile can be read. The graph still names its
//! address. The worker has fetched it already, and doesn't download it again.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kiln_event::{EventSender, Reporter};
use kiln_frontend::Options;
use kiln_llb::Edge;
use kiln_llb::op::OpKind;
use kiln_oci::error::chain;
use kiln_store::Store;
use kiln_tree::{Dir, Owner, UnpackOptions, decompress, is_archive_start, unpack};

use super::files::Dockerfile;
use super::policy;
use super::session::Failure;
use super::spec::{BuildSpec, CONTEXT_NAME};
use super::spec::{ContextPlace, DockerfilePlace};
use super::step::Step;
use super::tools::{Reporting, Tools};

/// The number of bytes of standard input that are inspected to recognize an archive.
const START: u64 = 1024;

/// The most entries of an archive on standard input.
const MAX_ENTRIES: u64 = 4_000_000;

/// The name in messages of a context that isn't a local directory.
const PLACE: &str = "the build context";

/// The input of a build.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) dockerfile: Dockerfile,
    /// The files of the main context.
    pub(super) root: Dir,
    /// The directory's path; `None` for a remote context.
    pub(super) directory: Option<PathBuf>,
    /// `true` if the context is a remote archive.
    pub(super) is_archive: bool,
}

impl Input {
    /// Opens a local context; returns `None` for a remote one.
    pub(super) fn local(request: &BuildSpec, store: &Store) -> Result<Option<Self>> {
        match &request.context {
            ContextPlace::Directory(directory) => {
                let dockerfile = Dockerfile::read(&request.dockerfile, directory)?;
                Self::of_directory(dockerfile, directory.clone()).map(Some)
            }
            ContextPlace::Stream(stream) => {
                let limit = request.input_limit;
                Self::of_stream(stream.clone(), store, &request.dockerfile, limit).map(Some)
            }
            ContextPlace::Remote(_) => Ok(None),
        }
    }

    fn of_directory(dockerfile: Dockerfile, directory: PathBuf) -> Result<Self> {
        let root = Dir::open(&directory)?;
        Ok(Self { dockerfile, root, directory: Some(directory), is_archive: false })
    }

    /// Fetches a remote context and reads the Dockerfile in it. If the fetched file isn't an
    /// archive, it is the Dockerfile.
    pub(super) async fn fetch(
        request: &BuildSpec,
        options: Options,
        tools: &Tools,
        reporting: Reporting<'_>,
    ) -> Result<Self> {
        tools.check_privileges()?;
        let Reporting { events, cancel } = reporting;
        let step = Step::begin(events, "[internal] load remote build context".to_owned());
        let fetched = Self::fetch_files(options, tools, &step.reporter(cancel)).await;
        let (root, place) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                step.fail(&chain(error.as_ref()));
                return Err(error.context("load the remote build context"));
            }
        };
        step.complete();
        let is_archive = matches!(place, Place::Archive);
        let dockerfile = match (&request.dockerfile, place) {
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
        reporter: &Reporter,
    ) -> Result<(Dir, Place)> {
        let source = remote(&options)?;
        let Some(OpKind::Source(op)) = &source.node().op().kind else {
            bail!("the build context is no source");
        };
        let op = policy::checked(&tools.policies, op)?;
        let files = tools.worker.fetch(&op, reporter).await?;
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
        // The build's graph contains the same op and takes its result from the cache. Showing it
        // twice would be noise.
        let events = EventSender::silent();
        let definition = [remote(&options)?.marshal()];
        let reporting = Reporting { events: &events, cancel: &reporter.cancel };
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

/// The kind of a remote context.
enum Place {
    Repository,
    Archive,
    File,
}

/// Returns the edge of the remote context that the options name.
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
    // Read past the archive's end, so that the writing program doesn't fail with a broken pipe.
    std::io::copy(&mut plain, &mut std::io::sink()).context(read)?;
    Ok(())
}
