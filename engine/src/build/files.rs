//! The Dockerfile, and the files of the context that the frontend reads.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail};
use kiln_frontend::{ContextFiles, ResolveError};
use kiln_llb::op::CopyAction;
use kiln_oci::error::chain;
use kiln_tree::{Dir, PatternMatcher, Selecting, View, selects_alike};
use kiln_worker::selection_of_copy;

use super::spec::DockerfilePlace;

/// The most bytes of a Dockerfile or an ignore file.
pub const TEXT_LIMIT: u64 = 8 << 20;

/// A Dockerfile with its name and its own ignore file, if it has one.
#[derive(Debug, Default)]
pub struct Dockerfile {
    /// The name in messages.
    pub name: String,
    /// The Dockerfile's contents.
    pub text: Vec<u8>,
    /// The contents of `NAME.dockerignore` beside it.
    pub ignore: Option<Vec<u8>>,
}

impl Dockerfile {
    /// Reads the Dockerfile at a place.
    pub(super) fn read(place: &DockerfilePlace, context: &Path) -> Result<Self> {
        match place {
            DockerfilePlace::Text { text, .. } => Self::of_stream(text.as_slice()),
            DockerfilePlace::Remote(url) => bail!("the Dockerfile {url} was not fetched"),
            // A name in the context isn't trusted: a symbolic link there must not lead out of it.
            DockerfilePlace::Context => {
                let place = format!("the directory {}", context.display());
                Self::read_in(&Dir::open(context)?, Path::new("Dockerfile"), &place)
            }
            DockerfilePlace::Path(path) => {
                let real = Self::find(path, context)?;
                let directory = real.parent().unwrap_or(Path::new("/"));
                let Some(name) = real.file_name() else { bail!("{} is no file", path.display()) };
                let place = format!("the directory {}", directory.display());
                Self::read_in(&Dir::open(directory)?, Path::new(name), &place)
            }
        }
    }

    /// Reads a Dockerfile from a stream. It has no name and no ignore file.
    pub(super) fn of_stream(stream: impl Read) -> Result<Self> {
        let text = read_limited(stream, "standard input")?;
        Ok(Self { name: "Dockerfile".to_owned(), text, ignore: None })
    }

    /// Resolves the path of `--file`: relative to the working directory, or to the context.
    pub(super) fn find(path: &Path, context: &Path) -> Result<PathBuf> {
        let canonical = |path: &Path| {
            std::fs::canonicalize(path)
                .or_else(|error| std::fs::canonicalize(context.join(path)).map_err(|_| error))
        };
        canonical(path)
            .or_else(|error| lower_case(path).map_or(Err(error), |path| canonical(&path)))
            .map_err(|error| {
                let about = || format!("failed to read dockerfile: open {}", path.display());
                if error.kind() != std::io::ErrorKind::NotFound {
                    return Error::new(error).context(about());
                }
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                let parent = absolute.parent().unwrap_or(Path::new("/"));
                let place = format!("the directory {}", parent.display());
                match std::fs::read_dir(parent) {
                    Ok(names) => {
                        let names = names.flatten().map(|entry| entry.file_name());
                        let names = names.map(|name| name.to_string_lossy().into_owned());
                        missing(path, &place, names.collect())
                    }
                    Err(_) => anyhow!("{}: {place} is not there", about()),
                }
            })
    }

    /// Reads a Dockerfile inside `root`. Messages call the directory `place`.
    pub(super) fn read_in(root: &Dir, name: &Path, place: &str) -> Result<Self> {
        let mut shown = name.display().to_string();
        let mut found = read_file(root, name)?;
        if let (None, Some(other)) = (&found, lower_case(name)) {
            found = read_file(root, &other)?;
            if found.is_some() {
                shown = other.display().to_string();
            }
        }
        let Some(text) = found else {
            let parent = name.parent().unwrap_or(Path::new(""));
            let directory = if parent.as_os_str().is_empty() {
                root.try_clone()
            } else {
                root.open_dir(parent)
            };
            let names = directory.and_then(|directory| directory.names()).unwrap_or_default();
            let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
            let place = if parent.as_os_str().is_empty() {
                place.to_owned()
            } else {
                format!("{} in {place}", parent.display())
            };
            return Err(missing(name, &place, names.into_iter().map(text).collect()));
        };
        let ignore = read_file(root, Path::new(&format!("{}.dockerignore", name.display())))?;
        Ok(Self { name: shown, text, ignore })
    }
}

/// Returns the lower-case name that BuildKit accepts in place of `Dockerfile`.
fn lower_case(path: &Path) -> Option<PathBuf> {
    (path.file_name()? == "Dockerfile").then(|| path.with_file_name("dockerfile"))
}

/// The most names of a directory that the message for a missing Dockerfile lists.
const TOLD: usize = 8;

/// Returns the error for a missing Dockerfile. It lists the directory's entries, similar names
/// first.
fn missing(path: &Path, place: &str, mut names: Vec<String>) -> Error {
    let is_near = |name: &String| {
        let name = name.to_lowercase();
        ["dockerfile", "containerfile"].iter().any(|known| name.contains(known))
    };
    names.sort();
    names.sort_by_key(|name| !is_near(name));
    let left = names.len().saturating_sub(TOLD);
    let mut there = names[..names.len().min(TOLD)].join(", ");
    if there.is_empty() {
        "nothing".clone_into(&mut there);
    }
    if left > 0 {
        there = format!("{there} and {left} more");
    }
    let near = names.first().filter(|name| is_near(name));
    let advice = near.map(|name| {
        let near = path.with_file_name(name);
        format!("; -f {} names it", near.to_string_lossy())
    });
    anyhow!(
        "failed to read dockerfile: open {}: no such file or directory: {place} holds {there}{}",
        path.display(),
        advice.unwrap_or_default()
    )
}

/// Files of the main context and of the named contexts, for the frontend.
#[derive(Debug)]
pub(super) struct Files {
    root: Dir,
    /// The Dockerfile's own ignore file, which replaces the context's.
    ignore: Option<Vec<u8>>,
    /// `true` if ignore files have no effect.
    ignores_nothing: bool,
    named: BTreeMap<String, Self>,
}

impl Files {
    /// Takes the main context and opens the named ones.
    pub(super) fn open(
        context: Dir,
        dockerfile: &Dockerfile,
        named: &BTreeMap<String, PathBuf>,
    ) -> Result<Self> {
        let open = |(name, root): (&String, &PathBuf)| -> Result<_> {
            Ok((name.clone(), Self::of(Dir::open(root)?)))
        };
        let named = named.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { ignore: dockerfile.ignore.clone(), named, ..Self::of(context) })
    }

    /// Takes a directory without named contexts.
    pub(super) fn of(root: Dir) -> Self {
        Self { root, ignore: None, ignores_nothing: false, named: BTreeMap::new() }
    }

    /// Disables the ignore file.
    pub(super) fn without_ignore_file(self) -> Self {
        Self { ignores_nothing: true, ..self }
    }

    /// Returns a view of the files without those that the patterns exclude.
    fn view<'a>(&'a self, excludes: Option<&'a PatternMatcher>) -> View<'a> {
        View { excludes, xattrs: false, ..View::of_layer(&self.root) }
    }
}

/// Returns an error with its causes for the frontend.
pub(super) fn resolve_error(error: Error) -> ResolveError {
    let message = chain(error.as_ref());
    // The boxed error remains of its type, so that its hint can be found.
    ResolveError::new(message).because(error.reallocate_into_boxed_dyn_error_without_backtrace())
}

fn told(error: kiln_tree::Error) -> ResolveError {
    ResolveError::new(error.to_string()).because(error)
}

impl ContextFiles for Files {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        if path == ".dockerignore" {
            if self.ignores_nothing {
                return Ok(None);
            }
            if let Some(text) = &self.ignore {
                return Ok(Some(text.clone()));
            }
        }
        read_file(&self.root, Path::new(path)).map_err(resolve_error)
    }

    fn is_ignored(&self, patterns: &[String], path: &str) -> Result<bool, ResolveError> {
        let matcher = PatternMatcher::new(patterns).map_err(told)?;
        Ok(matcher.matches(path.as_bytes()))
    }

    fn reads_ignored(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        let matcher = PatternMatcher::new(patterns).map_err(told)?;
        let selection = &selection_of_copy(copy);
        let [all, some] = [None, Some(&matcher)]
            .map(|excludes| Selecting { view: self.view(excludes), selection });
        selects_alike(all, some).map(|alike| !alike).map_err(told)
    }

    fn excludes_named(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        let matcher = PatternMatcher::new(patterns).map_err(told)?;
        let view = self.view(Some(&matcher));
        let [all, some] = [false, true].map(|exclude_matches| {
            selection_of_copy(&CopyAction { exclude_matches, ..copy.clone() })
        });
        let [all, some] = [&all, &some].map(|selection| Selecting { view, selection });
        selects_alike(all, some).map(|alike| !alike).map_err(told)
    }

    fn named(&self, name: &str) -> Option<&dyn ContextFiles> {
        self.named.get(name).map(|files| files as &dyn ContextFiles)
    }
}

/// Reads a file inside `root`; returns `None` if it doesn't exist.
fn read_file(root: &Dir, path: &Path) -> Result<Option<Vec<u8>>> {
    match root.open_file(path) {
        Ok(file) => read_limited(file, &path.display().to_string()).map(Some),
        Err(kiln_tree::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads a Dockerfile from standard input.
///
/// # Errors
/// Fails if the stream can't be read or is longer than [`TEXT_LIMIT`].
pub fn read_text(stream: impl Read) -> Result<Vec<u8>> {
    read_limited(stream, "standard input")
}

fn read_limited(source: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(TEXT_LIMIT + 1).read_to_end(&mut text).with_context(|| format!("read {name}"))?;
    if text.len() as u64 > TEXT_LIMIT {
        bail!("{name} is larger than {} MiB", TEXT_LIMIT >> 20);
    }
    Ok(text)
}
