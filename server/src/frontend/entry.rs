//! The Dockerfile and the build context of a call: directories of the client, a repository, a file
//! behind a URL, or graphs.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use bollard_buildkit_proto::pb;
use kiln_frontend::Options;
use kiln_llb::op::{CopyAction, FileAction, FileActionKind, FileOp, MkDirAction, OpKind, SourceOp};
use kiln_llb::{Edge, Node, OpMetadata};
use kiln_tree::{Dir, is_archive_start};
use serde_json::json;
use tonic::Status;

use super::Call;
use super::options::{CONTEXT, Requested, context_address};
use crate::errors::of_error;
use crate::jobs::Job;

/// The name of a Dockerfile that the client doesn't name.
const DOCKERFILE: &str = "Dockerfile";
/// The most bytes of a Dockerfile or an ignore file.
const LARGEST: u64 = 8 << 20;
/// The number of bytes of a file that are inspected to recognize an archive.
const START: u64 = 1024;

/// The Dockerfile and the build context of a call.
#[derive(Debug)]
pub(super) struct Entry {
    /// The Dockerfile's name.
    pub(super) filename: String,
    /// The Dockerfile's contents.
    pub(super) text: Vec<u8>,
    /// The contents of the Dockerfile's own ignore file.
    pub(super) ignore: Option<Vec<u8>>,
    /// The context, unless it is a directory of the client.
    pub(super) context: Option<Edge>,
    /// `true` if the context is an archive behind a URL.
    pub(super) is_archive: bool,
    /// The graph that the Dockerfile comes from.
    pub(super) definition: pb::Definition,
    /// The digest of the step that the Dockerfile comes from.
    pub(super) vertex: String,
    /// The names of the client's directories that are read in any case.
    pub(super) locals: Vec<String>,
    /// The remote sources that are read in any case.
    pub(super) sources: Vec<SourceOp>,
}

/// The files of the Dockerfile and the context before anything is read.
struct Places {
    filename: String,
    context: Option<Edge>,
    dockerfile: Option<Edge>,
    is_archive: bool,
    sources: Vec<SourceOp>,
}

impl Entry {
    /// Finds the context and reads the Dockerfile.
    ///
    /// # Errors
    /// Fails if there is no Dockerfile, or if a file can't be had.
    pub(super) async fn find(
        job: &Job,
        call: Call<'_>,
        requested: &Requested,
    ) -> Result<Self, Status> {
        let local = call.option("dockerfilekey");
        let mut places = places(job, call, requested).await?;
        if let (Some(context), Some(directory)) = (&places.context, call.option("contextsubdir")) {
            places.context = Some(below(context, directory));
        }
        let Places { filename, context, dockerfile, is_archive, sources } = places;
        let dockerfile = dockerfile.filter(|_| local.is_none());
        let name = local.unwrap_or("dockerfile");
        let locals = [(CONTEXT, context.is_none()), (name, dockerfile.is_none())];
        let locals = locals.into_iter().filter(|(_, is_local)| *is_local);
        let locals = locals.map(|(name, _)| name.to_owned()).collect();
        let from_client = || {
            let mut paths = vec![filename.clone(), format!("{filename}.dockerignore")];
            paths.extend(lower_case(&filename));
            let source = local_source(name, name, &paths, &requested.options);
            source_edge(source, &format!("[internal] load build definition from {filename}"))
        };
        let edge = dockerfile.unwrap_or_else(from_client);
        let definition = edge.marshal().to_pb();
        let root = files(job, definition.clone()).await?;
        let read = tokio::task::block_in_place(|| read(&root, &filename))?;
        let vertex = edge.node().digest().to_string();
        let (text, ignore) = read;
        Ok(Self {
            filename,
            text,
            ignore,
            context,
            is_archive,
            definition,
            vertex,
            locals,
            sources,
        })
    }

    /// Returns a Dockerfile that comes from no source, without a context.
    pub(super) fn of_text(text: String) -> Self {
        Self {
            filename: DOCKERFILE.to_owned(),
            text: text.into_bytes(),
            ignore: None,
            context: Some(empty()),
            is_archive: false,
            definition: pb::Definition::default(),
            vertex: String::new(),
            locals: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Returns the Dockerfile as errors refer to it.
    pub(super) fn source_info(&self) -> pb::SourceInfo {
        pb::SourceInfo {
            filename: self.filename.clone(),
            data: self.text.clone(),
            language: "Dockerfile".to_owned(),
            definition: Some(self.definition.clone()),
        }
    }
}

/// Finds the files of a context that is no directory of the client.
async fn places(job: &Job, call: Call<'_>, requested: &Requested) -> Result<Places, Status> {
    let filename = call.option("filename").unwrap_or(DOCKERFILE).to_owned();
    let mut places = Places {
        filename,
        context: None,
        dockerfile: None,
        is_archive: false,
        sources: Vec::new(),
    };
    if context_address(call).is_some() {
        let edge = remote(&requested.options)?;
        if let Some(OpKind::Source(op)) = &edge.node().op().kind {
            places.sources.push(op.clone());
        }
        if !is_repository(&edge) {
            let root = files(job, edge.marshal().to_pb()).await?;
            let start = tokio::task::block_in_place(|| start(&root))?;
            places.is_archive = is_archive_start(&start);
            if !places.is_archive {
                CONTEXT.clone_into(&mut places.filename);
            }
        }
        let edge = if places.is_archive {
            remote(&Options { archive_context: true, ..requested.options.clone() })?
        } else {
            edge
        };
        places.dockerfile = Some(edge.clone());
        places.context = Some(edge);
        return Ok(places);
    }
    let input = |name: &str| {
        let input = requested.options.inputs.get(name)?;
        Some(input.edge.clone().unwrap_or_else(empty))
    };
    places.context = input(CONTEXT);
    places.dockerfile = input("dockerfile");
    Ok(places)
}

fn remote(options: &Options) -> Result<Edge, Status> {
    let edge = kiln_frontend::remote_context(options);
    let edge = edge.map_err(|error| Status::unknown(error.message))?;
    edge.ok_or_else(|| Status::internal("the context has no address"))
}

fn is_repository(edge: &Edge) -> bool {
    matches!(&edge.node().op().kind, Some(OpKind::Source(op)) if op.identifier.starts_with("git://"))
}

/// Reads the begin of the file that is the context.
fn start(root: &Dir) -> Result<Vec<u8>, Status> {
    let failed =
        |problem: String| Status::unknown(format!("failed to read downloaded context: {problem}"));
    let file = root.open_file(Path::new(CONTEXT)).map_err(|error| failed(error.to_string()))?;
    let mut start = Vec::new();
    file.take(START).read_to_end(&mut start).map_err(|error| failed(error.to_string()))?;
    Ok(start)
}

/// Reads the Dockerfile and its own ignore file.
fn read(root: &Dir, filename: &str) -> Result<(Vec<u8>, Option<Vec<u8>>), Status> {
    let failed = |problem: &str| Status::unknown(format!("failed to read dockerfile: {problem}"));
    let text = |name: &str| read_text(root, name).map_err(|error| failed(error.message()));
    let mut found = text(filename)?;
    if let (None, Some(other)) = (&found, lower_case(filename)) {
        found = text(&other)?;
    }
    let missing = || failed(&format!("open {filename}: no such file or directory"));
    let found = found.ok_or_else(missing)?;
    // An own ignore file that can't be read is none.
    let ignore = text(&format!("{filename}.dockerignore")).ok().flatten();
    Ok((found, ignore))
}

/// Reads a small file; returns `None` if it doesn't exist.
pub(super) fn read_text(root: &Dir, name: &str) -> Result<Option<Vec<u8>>, Status> {
    let file = match root.open_file(Path::new(name)) {
        Ok(file) => file,
        Err(kiln_tree::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(of_error(&error)),
    };
    let mut text = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut text);
    read.map_err(|error| Status::unknown(format!("read {name}: {error}")))?;
    if text.len() as u64 > LARGEST {
        return Err(Status::unknown(format!("{name} is larger than {LARGEST} bytes")));
    }
    Ok(Some(text))
}

/// Returns the lower-case name that is accepted in place of `Dockerfile`.
fn lower_case(filename: &str) -> Option<String> {
    let directory = filename.strip_suffix(DOCKERFILE)?;
    let is_name = directory.is_empty() || directory.ends_with('/');
    is_name.then(|| format!("{directory}dockerfile"))
}

/// Opens the files that a graph makes.
pub(super) async fn files(job: &Job, definition: pb::Definition) -> Result<Dir, Status> {
    let slot = job.add(definition)?;
    let reference = slot.ok_or_else(|| Status::internal("the graph has no files"))?;
    job.files(&reference).await
}

/// Returns the op for some files of a directory of the client.
pub(super) fn local_source(
    name: &str,
    hint: &str,
    paths: &[String],
    options: &Options,
) -> SourceOp {
    let mut attrs = BTreeMap::from([
        ("local.differ".to_owned(), "none".to_owned()),
        ("local.followpaths".to_owned(), json!(paths).to_string()),
        ("local.sharedkeyhint".to_owned(), hint.to_owned()),
    ]);
    if let Some(session) = options.local_sessions.get(name) {
        attrs.insert("local.session".to_owned(), session.clone());
    }
    SourceOp { identifier: format!("local://{name}"), attrs }
}

/// Returns the output of a source, as a step of this title.
pub(super) fn source_edge(source: SourceOp, title: &str) -> Edge {
    let description = BTreeMap::from([("llb.customname".to_owned(), title.to_owned())]);
    let metadata = OpMetadata { description, ..OpMetadata::default() };
    Node::new(OpKind::Source(source), Vec::new(), None, metadata).output(0)
}

/// Returns the files of a directory in other files.
fn below(files: &Edge, directory: &str) -> Edge {
    let copy = CopyAction {
        src: format!("/{}", directory.trim_start_matches('/')),
        dest: "/".to_owned(),
        mode: -1,
        dir_copy_contents: true,
        timestamp: -1,
        ..CopyAction::default()
    };
    let action = FileAction {
        input: None,
        secondary_input: Some(0),
        output: Some(0),
        kind: FileActionKind::Copy(copy),
    };
    let op = OpKind::File(FileOp { actions: vec![action] });
    Node::new(op, vec![files.clone()], None, OpMetadata::default()).output(0)
}

/// Returns a file system without files.
fn empty() -> Edge {
    let mkdir = MkDirAction {
        path: "/".to_owned(),
        mode: 0o755,
        make_parents: true,
        timestamp: -1,
        ..MkDirAction::default()
    };
    let action = FileAction {
        input: None,
        secondary_input: None,
        output: Some(0),
        kind: FileActionKind::MkDir(mkdir),
    };
    let op = OpKind::File(FileOp { actions: vec![action] });
    Node::new(op, Vec::new(), None, OpMetadata::default()).output(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerfiles_may_be_in_lower_case() {
        assert_eq!(lower_case("Dockerfile").as_deref(), Some("dockerfile"));
        assert_eq!(lower_case("a/Dockerfile").as_deref(), Some("a/dockerfile"));
        assert_eq!(lower_case("MyDockerfile"), None);
        assert_eq!(lower_case("Dockerfile.dev"), None);
    }

    #[test]
    fn a_directory_of_a_context_is_a_copy() {
        let context = source_edge(SourceOp::default(), "x");
        let definition = below(&context, "sub").marshal();
        assert!(kiln_llb::Graph::load(&definition).is_ok());
        assert!(kiln_llb::Graph::load(&empty().marshal()).is_ok());
    }
}
