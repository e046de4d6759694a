//! Build contexts, which are read in place.
//!
//! Nothing is transferred or copied: a [`LocalContext`] consists of the directory and the patterns
//! of excluded files. `local.followpaths` lists the files that the steps need, so that a client
//! doesn't send others. It has no effect here, because no file needs to be sent. Only two cases
//! need a copy: `local.includepattern`, which hides files that steps could otherwise see, and a
//! mount in `RUN`, which must show neither excluded files nor the host's owners.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use kiln_event::Reporter;
use kiln_images::Snapshots;
use kiln_llb::op::SourceOp;
use kiln_sandbox::mount_without_devices;
use kiln_store::PendingTree;
use kiln_tree::{CopyOptions, Dir, Owner, PatternMatcher, View};

use crate::error::{Error, Result};
use crate::file::missing;

const INCLUDE: &str = "local.includepattern";
const EXCLUDE: &str = "local.excludepatterns";
const METADATA_ONLY: &str = "local.metadatatransfer";

/// A build context: a directory without its excluded files. All files appear as owned by root and
/// without extended attributes.
pub struct LocalContext {
    name: String,
    dir: Dir,
    excludes: Option<PatternMatcher>,
    /// The copies for mounts, by the copied path.
    copies: Mutex<BTreeMap<PathBuf, PendingTree>>,
}

/// The files of local sources: directories of this machine, or what a client sends.
pub trait LocalSources: fmt::Debug + Send + Sync {
    /// Returns `true` if there is a local source of this name.
    fn has(&self, name: &str) -> bool;

    /// Returns the directory with the files of a local source. It must have at least the files that
    /// the source's attributes select, and must not change while the build runs. A transfer is
    /// reported to `reporter`.
    ///
    /// # Errors
    /// Fails if there is no source of this name, or if its files can't be had.
    fn directory<'a>(
        &'a self,
        name: &'a str,
        source: &'a SourceOp,
        reporter: &'a Reporter,
    ) -> BoxFuture<'a, Result<PathBuf>>;
}

/// Local sources that are directories of this machine, by their names. They are read in place.
#[derive(Clone, Debug, Default)]
pub struct Directories(pub BTreeMap<String, PathBuf>);

impl LocalSources for Directories {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn directory<'a>(
        &'a self,
        name: &'a str,
        _: &'a SourceOp,
        _: &'a Reporter,
    ) -> BoxFuture<'a, Result<PathBuf>> {
        let found = self.0.get(name).cloned().ok_or_else(|| unknown_context(name));
        Box::pin(std::future::ready(found))
    }
}

/// Returns the error for a local source that isn't there.
pub(crate) fn unknown_context(name: &str) -> Error {
    Error::Invalid(format!("no directory is known as context {name}"))
}

/// The attributes of a local source.
#[derive(Debug)]
pub(crate) struct LocalAttributes {
    pub(crate) include: Vec<String>,
    exclude: Vec<String>,
}

impl LocalAttributes {
    pub(crate) fn parse(source: &SourceOp) -> Result<Self> {
        if source.attrs.get(METADATA_ONLY).is_some_and(|value| value != "false") {
            return Err(Error::Unsupported(format!("{METADATA_ONLY} of {}", source.identifier)));
        }
        Ok(Self {
            include: patterns(&source.attrs, INCLUDE)?,
            exclude: patterns(&source.attrs, EXCLUDE)?,
        })
    }
}

/// Reads a list of patterns among the attributes of a source. An absent attribute is an empty list.
///
/// # Errors
/// Fails if the attribute is no JSON list of strings.
pub fn patterns(attributes: &BTreeMap<String, String>, name: &str) -> Result<Vec<String>> {
    let Some(text) = attributes.get(name) else { return Ok(Vec::new()) };
    // BuildKit's clients write an absent list as `null`.
    serde_json::from_str::<Option<Vec<String>>>(text)
        .map(Option::unwrap_or_default)
        .map_err(|error| Error::Invalid(format!("invalid {name} {text:?}: {error}")))
}

impl LocalContext {
    /// Opens the directory of a context.
    pub(crate) fn open(name: &str, path: &Path, attributes: &LocalAttributes) -> Result<Self> {
        let excludes = match attributes.exclude.as_slice() {
            [] => None,
            patterns => Some(PatternMatcher::new(patterns)?),
        };
        let dir = open(path)?;
        Ok(Self { name: name.to_owned(), dir, excludes, copies: Mutex::default() })
    }

    /// Returns the directory of the context, with the files that its patterns exclude.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns the view of the context that steps have.
    pub fn view(&self) -> View<'_> {
        View {
            dir: &self.dir,
            excludes: self.excludes.as_ref(),
            owner: Some(Owner::default()),
            xattrs: false,
            bounded: true,
        }
    }
}

/// Opens a directory. If possible, it is in a mount of its own in which no device can be opened.
fn open(path: &Path) -> Result<Dir> {
    let dir = Dir::open(path)?;
    let Ok((inside, mount)) = mount_without_devices(&dir) else { return Ok(dir) };
    Ok(Dir::from_fd(inside).keeping(Arc::new(mount)).without_devices())
}

impl LocalContext {
    /// Returns the directory of a copy of the context that has at least the files at `selector`.
    /// The copy is created once and lives as long as the context.
    pub(crate) fn copied(&self, snapshots: &Snapshots, selector: &str) -> Result<PathBuf> {
        let path = Path::new("/").join(selector);
        // A path through links needs the targets of the links, too.
        let part = match self.dir.real_path(&path)? {
            real if real == path => path,
            _ => PathBuf::from("/"),
        };
        if let Some(copy) = self.lock().get(&part) {
            return Ok(copy.fs().to_owned());
        }
        let copy = self.copy(snapshots, &part, &[])?;
        Ok(self.lock().entry(part).or_insert(copy).fs().to_owned())
    }

    /// Copies the part of the context at `path` that `include` selects. An empty `include` selects
    /// everything.
    pub(crate) fn copy(
        &self,
        snapshots: &Snapshots,
        path: &Path,
        include: &[String],
    ) -> Result<PendingTree> {
        let pending = snapshots.begin(None)?;
        let path = path.to_string_lossy().into_owned();
        let options = CopyOptions {
            source: path.clone(),
            dest: path,
            dir_copy_contents: true,
            create_dest_path: true,
            include: include.to_vec(),
            ..CopyOptions::default()
        };
        let view = self.view();
        kiln_tree::copy(view, &pending.open()?, &options)
            .map_err(|error| missing(error, &[view]))?;
        Ok(pending)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, PendingTree>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LocalContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalContext").field("name", &self.name).finish_non_exhaustive()
    }
}
