//! The Dockerfile and the files of the context that the frontend asks for.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_frontend::{ContextFiles, ResolveError};
use kiln_tree::{Dir, PatternMatcher};

use super::places::DockerfilePlace;

/// Most bytes of a Dockerfile or an ignore file.
pub(super) const TEXT_LIMIT: u64 = 8 << 20;

/// A Dockerfile with its name, and its own ignore file where it has one.
#[derive(Debug, Default)]
pub(crate) struct Dockerfile {
    /// Its name, as messages show it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: Vec<u8>,
    /// The text of `NAME.dockerignore` beside it.
    ignore: Option<Vec<u8>>,
}

impl Dockerfile {
    /// Reads the Dockerfile.
    pub(super) fn read(place: &DockerfilePlace, context: &Path) -> Result<Self> {
        match place {
            DockerfilePlace::StandardInput => Self::of_stream(std::io::stdin().lock()),
            DockerfilePlace::Text { text, .. } => Self::of_stream(text.as_slice()),
            DockerfilePlace::Remote(url) => bail!("the Dockerfile {url} was not fetched"),
            // Its name in the context is not trusted: a link there must not lead out.
            DockerfilePlace::Context => {
                Self::read_in(&Dir::open(context)?, Path::new("Dockerfile"))
            }
            DockerfilePlace::Path(path) => {
                let real = Self::find(path, context)?;
                let directory = real.parent().unwrap_or(Path::new("/"));
                let Some(name) = real.file_name() else { bail!("{} is no file", path.display()) };
                Self::read_in(&Dir::open(directory)?, Path::new(name))
            }
        }
    }

    /// Reads a Dockerfile that has no name and nothing beside it.
    pub(super) fn of_stream(stream: impl Read) -> Result<Self> {
        let text = read_limited(stream, "standard input")?;
        Ok(Self { name: "Dockerfile".to_owned(), text, ignore: None })
    }

    /// Finds the file that `--file` names: relative to the working directory, or to the context.
    fn find(path: &Path, context: &Path) -> Result<PathBuf> {
        std::fs::canonicalize(path)
            .or_else(|error| std::fs::canonicalize(context.join(path)).map_err(|_| error))
            .with_context(|| format!("failed to read dockerfile: open {}", path.display()))
    }

    /// Reads a Dockerfile inside `root`.
    pub(super) fn read_in(root: &Dir, name: &Path) -> Result<Self> {
        let shown = name.display();
        let Some(text) = read_file(root, name)? else {
            bail!("failed to read dockerfile: open {shown}: no such file or directory");
        };
        let ignore = read_file(root, Path::new(&format!("{shown}.dockerignore")))?;
        Ok(Self { name: shown.to_string(), text, ignore })
    }
}

/// Answers the frontend's questions about a context, and about named ones.
#[derive(Debug)]
pub(super) struct Files {
    root: Dir,
    /// The Dockerfile's own ignore file, which counts in place of the context's.
    ignore: Option<Vec<u8>>,
    named: BTreeMap<String, Self>,
}

impl Files {
    /// Takes the context, and opens the named ones.
    pub(super) fn open(
        context: Dir,
        dockerfile: &Dockerfile,
        named: &BTreeMap<String, PathBuf>,
    ) -> Result<Self> {
        let open = |(name, root): (&String, &PathBuf)| -> Result<_> {
            let root = Dir::open(root)?;
            Ok((name.clone(), Self { root, ignore: None, named: BTreeMap::new() }))
        };
        let named = named.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { root: context, ignore: dockerfile.ignore.clone(), named })
    }
}

impl ContextFiles for Files {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        if path == ".dockerignore"
            && let Some(text) = &self.ignore
        {
            return Ok(Some(text.clone()));
        }
        read_file(&self.root, Path::new(path)).map_err(|error| ResolveError(format!("{error:#}")))
    }

    fn is_ignored(&self, patterns: &[String], path: &str) -> Result<bool, ResolveError> {
        let matcher = PatternMatcher::new(patterns).map_err(|e| ResolveError(e.to_string()))?;
        Ok(matcher.matches(path.as_bytes()))
    }

    fn named(&self, name: &str) -> Option<&dyn ContextFiles> {
        self.named.get(name).map(|files| files as &dyn ContextFiles)
    }
}

/// Reads a file inside `root`; `None` where there is none.
fn read_file(root: &Dir, path: &Path) -> Result<Option<Vec<u8>>> {
    match root.open_file(path) {
        Ok(file) => read_limited(file, &path.display().to_string()).map(Some),
        Err(kiln_tree::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_limited(source: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(TEXT_LIMIT + 1).read_to_end(&mut text).with_context(|| format!("read {name}"))?;
    if text.len() as u64 > TEXT_LIMIT {
        bail!("{name} is larger than {} MiB", TEXT_LIMIT >> 20);
    }
    Ok(text)
}
