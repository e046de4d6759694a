//! The local sources of a build: its contexts, and the directory of the Dockerfile, which a frontend
//! that is a program of an image reads by itself.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kiln_store::Store;

use super::context::Input;
use super::files::Dockerfile;
use super::spec::{BuildSpec, CONTEXT_NAME, ContextPlace, DockerfilePlace};

/// The name of the local source with the Dockerfile.
pub(super) const DOCKERFILE_NAME: &str = "dockerfile";

/// The local sources of a build.
#[derive(Debug, Default)]
pub(super) struct Locals {
    /// The directories by name.
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// The path of the Dockerfile in its directory or, without a directory for it, in the context.
    pub(super) filename: Option<String>,
}

impl Locals {
    /// Returns the local sources of a request. `input` is `None` for a remote context. The Dockerfile
    /// has a directory only if `with_dockerfile` is `true`.
    pub(super) fn new(
        request: &BuildSpec,
        input: Option<&Input>,
        with_dockerfile: bool,
        store: &Store,
    ) -> Result<Self> {
        let mut locals = Self { directories: request.directories.clone(), filename: None };
        let directory = input.and_then(|input| input.directory.as_ref());
        if let Some(directory) = directory {
            locals.directories.insert(CONTEXT_NAME.to_owned(), directory.clone());
        }
        if !with_dockerfile {
            return Ok(locals);
        }
        if let (ContextPlace::Remote(_), DockerfilePlace::Path(path)) =
            (&request.context, &request.dockerfile)
        {
            locals.filename = Some(path.to_string_lossy().into_owned());
        }
        if let Some((directory, name)) = dockerfile(request, input, store)? {
            locals.directories.insert(DOCKERFILE_NAME.to_owned(), directory);
            locals.filename = Some(name);
        }
        Ok(locals)
    }

    /// Returns `true` if the Dockerfile isn't in the remote context.
    pub(super) fn has_dockerfile(&self) -> bool {
        self.directories.contains_key(DOCKERFILE_NAME)
    }
}

/// Returns the directory and the name of a Dockerfile that isn't in a remote context. A Dockerfile
/// that isn't a file is written to a temporary directory.
fn dockerfile(
    request: &BuildSpec,
    input: Option<&Input>,
    store: &Store,
) -> Result<Option<(PathBuf, String)>> {
    let own = match (&request.dockerfile, input) {
        (DockerfilePlace::Text { text, .. }, None) => Some(Dockerfile::of_stream(text.as_slice())?),
        (_, None) => return Ok(None),
        (DockerfilePlace::Path(path), Some(input)) if input.directory.is_some() => {
            let context = input.directory.as_deref().unwrap_or(Path::new("/"));
            if request.context.is_stream() {
                let path = path.to_string_lossy().into_owned();
                return Ok(Some((context.to_owned(), path)));
            }
            let real = Dockerfile::find(path, context)?;
            let directory = real.parent().unwrap_or(Path::new("/")).to_owned();
            let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Some((directory, name)));
        }
        (DockerfilePlace::Context, Some(Input { directory: Some(directory), dockerfile, .. }))
            if directory.join(&dockerfile.name).is_file() =>
        {
            return Ok(Some((directory.clone(), dockerfile.name.clone())));
        }
        (_, Some(_)) => None,
    };
    let dockerfile = own.as_ref().or(input.map(|input| &input.dockerfile));
    let Some(dockerfile) = dockerfile else { return Ok(None) };
    let directory = store.temp_dir()?;
    let path = directory.join("Dockerfile");
    std::fs::write(&path, &dockerfile.text).with_context(|| format!("write {}", path.display()))?;
    Ok(Some((directory, "Dockerfile".to_owned())))
}
