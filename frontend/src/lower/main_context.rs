//! The build context and its ignore file.
//!
//! The graph refers to a remote context in the same way as BuildKit's. BuildKit's frontend doesn't
//! read an ignore file there, but this frontend does. An instruction that would read excluded files
//! reads a filtered copy of the context. All other instructions read the context itself, so that
//! their digests are BuildKit's.

use kiln_llb::op::{CopyAction, FileActionKind, SourceOp};
use kiln_llb::{Edge, OpMetadata};

use crate::error::Error;
use crate::ignore;
use crate::resolve::{ContextFiles, ResolveError};

use super::git;
use super::graph::{Action, Graph, Output, PathSet, Plan};
use super::metadata;
use super::named_context::{exclude, http_source, name_session};
use super::{Lowering, Options};

/// The name of the file if the context is a single file.
const FILENAME: &str = "context";

/// The build context, local or remote.
#[derive(Clone, Debug)]
pub(super) struct MainContext {
    /// The output with the context's files.
    output: Output,
    /// The set of used paths.
    pub paths: PathSet,
    /// The patterns of the ignore file; empty if it can't be read.
    pub patterns: Vec<String>,
    /// The error of an ignore file that can't be read. It counts if the context is used.
    unreadable: Option<Error>,
    /// `true` if the output contains files that the patterns exclude.
    is_whole: bool,
    /// The output without the excluded files, once an instruction needs it.
    filtered: Option<Output>,
}

impl MainContext {
    /// Reads the context's ignore file and adds the context to the graph.
    ///
    /// # Errors
    /// Fails if a remote context is malformed.
    pub(super) fn new(
        options: &Options,
        files: &dyn ContextFiles,
        graph: &mut Graph,
    ) -> Result<Self, Error> {
        let paths = graph.new_path_set();
        if let Some(edge) = &options.context {
            let output = graph.add(Plan::Given(edge.clone()), None, OpMetadata::default());
            return Ok(Self::new_whole(output, paths, Ok(Vec::new())));
        }
        if let Some(url) = options.named_contexts.get("context") {
            let output = add_remote(url, options, graph)?;
            let patterns =
                if options.strict_buildkit { Ok(Vec::new()) } else { ignore_patterns(files) };
            return Ok(Self::new_whole(output, paths, patterns));
        }
        let (patterns, unreadable) = parts(ignore_patterns(files));
        let attrs =
            [("local.sharedkeyhint", &options.context_name), ("local.unique", &options.session)];
        let mut source = SourceOp {
            identifier: format!("local://{}", options.context_name),
            attrs: attrs.map(|(key, value)| (key.to_owned(), value.clone())).into(),
        };
        name_session(&mut source, &options.context_name, options);
        exclude(&mut source, &patterns);
        let name = metadata::named("[internal] load build context");
        let output = graph.add(Plan::Local(source, paths), None, name);
        Ok(Self { output, paths, patterns, unreadable, is_whole: false, filtered: None })
    }

    /// Returns the context of an output that contains the files that the patterns exclude.
    fn new_whole(output: Output, paths: PathSet, patterns: Result<Vec<String>, Error>) -> Self {
        let (patterns, unreadable) = parts(patterns);
        Self { output, paths, patterns, unreadable, is_whole: true, filtered: None }
    }

    /// Returns the output with the context's files.
    ///
    /// # Errors
    /// Fails if the ignore file can't be read.
    pub(super) fn output(&self) -> Result<Output, Error> {
        self.unreadable.clone().map_or(Ok(self.output), Err)
    }
}

fn parts(patterns: Result<Vec<String>, Error>) -> (Vec<String>, Option<Error>) {
    match patterns {
        Ok(patterns) => (patterns, None),
        Err(error) => (Vec::new(), Some(error)),
    }
}

impl Lowering<'_> {
    /// Returns the files of the context that a copy, or another action with the same sources,
    /// reads.
    ///
    /// # Errors
    /// Fails if its sources can't be determined.
    pub(super) fn context_for(&mut self, copy: &CopyAction) -> Result<Output, Error> {
        let context = &mut self.main_context;
        let output = context.output()?;
        if !context.is_whole || context.patterns.is_empty() {
            return Ok(output);
        }
        let reads = self.context.reads_ignored(&context.patterns, copy);
        if !reads.map_err(|error| Error::new(error.to_string()).because(error))? {
            return Ok(output);
        }
        Ok(self.filtered(output))
    }

    /// Returns the files of the context for a scanner: those that instructions name, as a client sends
    /// no others. All stages must be dispatched.
    ///
    /// # Errors
    /// Fails if the ignore file can't be read.
    pub(super) fn context_to_scan(&mut self) -> Result<Output, Error> {
        let context = &self.main_context;
        let (output, paths) = (context.output()?, context.paths);
        if context.is_whole {
            let is_filtered = !context.patterns.is_empty();
            return Ok(if is_filtered { self.filtered(output) } else { output });
        }
        let used = self.graph.used_paths(paths);
        if used.is_empty() {
            return Ok(output);
        }
        let name = metadata::named("[internal] select the scanned files of the build context");
        let copy = CopyAction { include_patterns: used, ..whole_copy() };
        let action = Action { from: Some(output), kind: FileActionKind::Copy(copy) };
        Ok(self.graph.add(Plan::File(None, vec![action]), None, name))
    }

    /// Returns the files of the context without those that its ignore file excludes.
    fn filtered(&mut self, output: Output) -> Output {
        let MainContext { patterns, filtered, .. } = &mut self.main_context;
        let graph = &mut self.graph;
        *filtered.get_or_insert_with(|| without_ignored(graph, output, patterns))
    }
}

/// Returns the copy of all files.
fn whole_copy() -> CopyAction {
    CopyAction {
        src: "/".to_owned(),
        dest: "/".to_owned(),
        mode: -1,
        dir_copy_contents: true,
        create_dest_path: true,
        timestamp: -1,
        ..CopyAction::default()
    }
}

/// Adds a copy of files without those that ignore patterns exclude.
pub(super) fn without_ignored(graph: &mut Graph, files: Output, patterns: &[String]) -> Output {
    let copy = CopyAction { exclude_patterns: patterns.to_vec(), ..whole_copy() };
    let action = Action { from: Some(files), kind: FileActionKind::Copy(copy) };
    let name = metadata::named("[internal] leave out what .dockerignore excludes");
    graph.add(Plan::File(None, vec![action]), None, name)
}

/// Returns `true` if a text names a remote context: a repository, or a file behind a URL.
pub fn is_remote_context(text: &str) -> bool {
    // Invalid options of a repository are reported when it is used.
    !matches!(git::parse(text), Ok(None))
        || text.starts_with("http://")
        || text.starts_with("https://")
}

/// Returns the address of the Git repository that a context is from, without the options.
pub fn repository(text: &str) -> Option<String> {
    Some(git::parse(text).ok()??.remote)
}

/// Returns the files of the URL that replaces the build context, as they are in the graph of a
/// Dockerfile. Returns `None` if the build context is not replaced.
///
/// # Errors
/// Fails if the URL is malformed.
pub fn remote_context(options: &Options) -> Result<Option<Edge>, Error> {
    let Some(url) = options.named_contexts.get("context") else { return Ok(None) };
    let mut graph = Graph::default();
    let output = add_remote(url, options, &mut graph)?;
    graph.finish(output).map(Some)
}

/// Adds a context that is given as a URL.
fn add_remote(url: &str, options: &Options, graph: &mut Graph) -> Result<Output, Error> {
    let (source, name) = remote(url, options)?;
    let output = graph.add(Plan::Source(source), None, metadata::named(&name));
    if !options.archive_context {
        return Ok(output);
    }
    let unpack = CopyAction {
        src: format!("/{FILENAME}"),
        dest: "/".to_owned(),
        mode: -1,
        attempt_unpack_docker_compatibility: true,
        timestamp: -1,
        ..CopyAction::default()
    };
    let action = Action { from: Some(output), kind: FileActionKind::Copy(unpack) };
    Ok(graph.add(Plan::File(None, vec![action]), None, OpMetadata::default()))
}

/// Returns the source and the step name of a context that is given as a URL.
pub(super) fn remote(url: &str, options: &Options) -> Result<(SourceOp, String), Error> {
    let given = |key: &str| options.build_args.get(key).map(String::as_str).unwrap_or_default();
    if let Some(mut git) = git::parse(url).map_err(Error::new)? {
        let keep = kiln_oci::text::parse_bool(given("BUILDKIT_CONTEXT_KEEP_GIT_DIR"));
        if git.mtime.is_empty() && !given("SOURCE_DATE_EPOCH").is_empty() {
            "commit".clone_into(&mut git.mtime);
        }
        let shown = crate::text::without_credentials(url);
        let name = format!("[internal] load git source {shown}");
        return Ok((git.source(keep == Some(true)), name));
    }
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok((http_source(url, FILENAME), "[internal] load remote build context".to_owned()));
    }
    Err(Error::new(format!("unsupported build context {url}")))
}

/// Reads the patterns of the context's ignore file.
fn ignore_patterns(files: &dyn ContextFiles) -> Result<Vec<String>, Error> {
    let failed = |error: ResolveError| {
        Error::new(format!("failed to read dockerignore patterns: {error}")).because(error)
    };
    let text = files.read(".dockerignore").map_err(failed)?;
    let patterns = text.map(|text| ignore::parse(&text)).unwrap_or_default();
    if !patterns.is_empty() {
        // Malformed patterns are reported here rather than at the first copy.
        files.is_ignored(&patterns, "Dockerfile").map_err(failed)?;
    }
    Ok(patterns)
}
