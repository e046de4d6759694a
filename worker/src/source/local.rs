//! Build contexts, read where they lie.
//!
//! Nothing is transferred or copied: a [`LocalContext`] is the directory and the patterns that hide
//! part of it. `local.followpaths`, which names what the steps will need, so that a client sends no
//! more, has no influence: everything is here already. Only `local.includepattern`, which hides
//! what the steps could otherwise see, makes a copy, and so does a mount into `RUN`, which must see
//! neither what is excluded nor the host's owners.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_llb::op::SourceOp;
use kiln_sandbox::mount_without_devices;
use kiln_store::PendingTree;
use kiln_tree::{Dir, Owner, PatternMatcher, View};

use crate::error::{Error, Result};
use crate::snapshots::Snapshots;

const INCLUDE: &str = "local.includepattern";
const EXCLUDE: &str = "local.excludepatterns";
const METADATA_ONLY: &str = "local.metadatatransfer";

/// A build context: a directory, seen without what its patterns exclude, owned by root and without
/// extended attributes.
pub struct LocalContext {
    name: String,
    dir: Dir,
    excludes: Option<PatternMatcher>,
    /// Copies that were made for mounts, by what was copied.
    copies: Mutex<BTreeMap<PathBuf, PendingTree>>,
}

/// Attributes of a local source.
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

fn patterns(attributes: &BTreeMap<String, String>, name: &str) -> Result<Vec<String>> {
    let Some(text) = attributes.get(name) else { return Ok(Vec::new()) };
    // BuildKit's clients write an absent list as `null`.
    serde_json::from_str::<Option<Vec<String>>>(text)
        .map(Option::unwrap_or_default)
        .map_err(|error| Error::Invalid(format!("invalid {name} {text:?}: {error}")))
}

impl LocalContext {
    /// Opens a context.
    pub(crate) fn open(name: &str, path: &Path, attributes: &LocalAttributes) -> Result<Self> {
        let excludes = match attributes.exclude.as_slice() {
            [] => None,
            patterns => Some(PatternMatcher::new(patterns)?),
        };
        let dir = open(path)?;
        Ok(Self { name: name.to_owned(), dir, excludes, copies: Mutex::default() })
    }

    /// Returns the context as it is to be seen.
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

/// Opens a directory, where possible in a mount of its own in which no device can be opened.
fn open(path: &Path) -> Result<Dir> {
    let dir = Dir::open(path)?;
    let Ok((inside, mount)) = mount_without_devices(&dir) else { return Ok(dir) };
    Ok(Dir::from_fd(inside).keeping(Arc::new(mount)).without_devices())
}

impl LocalContext {
    /// Returns the directory of a copy of the context that has at least what is at `selector`. It
    /// is made once and lives as long as the context.
    pub(crate) fn copied(&self, snapshots: &Snapshots, selector: &str) -> Result<PathBuf> {
        let path = Path::new("/").join(selector);
        // A path through links needs what they lead to.
        let part = match self.dir.real_path(&path)? {
            real if real == path => path,
            _ => PathBuf::from("/"),
        };
        if let Some(copy) = self.lock().get(&part) {
            return Ok(copy.fs().to_owned());
        }
        let copy = snapshots.copy_of(self, &part, &[])?;
        Ok(self.lock().entry(part).or_insert(copy).fs().to_owned())
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
