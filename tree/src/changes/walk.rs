//! The walk through an upper directory.
//!
//! Each directory is a task, as in [`mod@crate::walk`]. Tasks open directories by path without
//! following links, so that neither deep nor wide trees exhaust the descriptors. The caller's own
//! thread walks small directories.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::Scope;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::Mark;
use super::below::LowerDirectory;
use super::compare::{Located, is_unchanged};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::FileKind;
use crate::pack::overlay;
use crate::walk::{list_names_of, open_without_links};
use crate::{names, path_limit};

/// The number of entries of a directory that one task compares.
const CHUNK: usize = 512;

/// The number of entries from which other threads join the walk.
const SMALL: usize = 512;

/// The type of a deletion's mark.
const WHITEOUT: FileKind = FileKind::CharDevice { major: 0, minor: 0 };

/// A path and its mark.
type Note = (Vec<u8>, Mark);

/// Compares an upper directory with the chain below it. Returns the marks in any order.
pub(super) fn compare(upper: &Dir, chain: &[PathBuf]) -> Result<Vec<Note>> {
    let walk = Walk { upper, chain, notes: Mutex::default(), failure: OnceLock::new() };
    let layers = (0..chain.len()).collect();
    let root = Place { path: Vec::new(), relation: Relation::Merged, layers };
    let rest = walk.begin(root);
    if !rest.is_empty() {
        rayon::scope(|scope| rest.into_iter().for_each(|place| walk.list(scope, place)));
    }
    match walk.failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(walk.notes.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// The relation of a directory in the upper directory to the tree below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// The directory adds entries to one below.
    Merged,
    /// The directory hides the one below.
    Replaced,
    /// The tree below has no directory of that path.
    Added,
}

/// A directory to compare.
struct Place {
    path: Vec<u8>,
    relation: Relation,
    /// The numbers of the layers below that have a part of the directory, uppermost first.
    layers: Vec<usize>,
}

/// A directory that is open and listed.
struct Listed {
    place: Place,
    upper: OwnedFd,
    below: LowerDirectory,
    names: Vec<Vec<u8>>,
}

struct Walk<'a> {
    upper: &'a Dir,
    /// The trees of the layers below, uppermost first.
    chain: &'a [PathBuf],
    notes: Mutex<Vec<Note>>,
    failure: OnceLock<Error>,
}

impl Walk<'_> {
    /// Compares directories in this thread until it has seen many entries. Returns the remaining
    /// directories.
    fn begin(&self, first: Place) -> Vec<Place> {
        let (mut waiting, mut seen) = (vec![first], 0);
        while seen < SMALL
            && let Some(place) = waiting.pop()
        {
            let Some(listed) = self.open(place) else { continue };
            for names in listed.names.chunks(CHUNK) {
                self.look(&listed, names, &mut |place| waiting.push(place));
            }
            seen += listed.names.len() + 1;
        }
        waiting
    }

    /// Compares a directory, and spawns tasks for its subdirectories.
    fn list<'scope>(&'scope self, scope: &Scope<'scope>, place: Place) {
        let Some(listed) = self.open(place).map(Arc::new) else { return };
        for start in (0..listed.names.len()).step_by(CHUNK) {
            let listed = listed.clone();
            scope.spawn(move |scope| {
                let end = listed.names.len().min(start + CHUNK);
                let mut found = |place| scope.spawn(move |scope| self.list(scope, place));
                self.look(&listed, &listed.names[start..end], &mut found);
            });
        }
    }

    /// Opens and lists a directory. Returns `None` if the walk has failed.
    fn open(&self, place: Place) -> Option<Listed> {
        if self.failure.get().is_some() {
            return None;
        }
        self.try_open(place).map_err(|error| drop(self.failure.set(error))).ok()
    }

    fn try_open(&self, place: Place) -> Result<Listed> {
        let failed = |errno| Error::io("read", names::path(&place.path), errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let upper = open_without_links(self.upper.as_fd(), &place.path, flags).map_err(failed)?;
        let below = LowerDirectory::open(self.chain, &place.path, &place.layers)?;
        // In an added directory, only subdirectories and possible deletions matter. All other
        // entries are part of the layer anyway.
        let kinds = [FileType::Directory, FileType::CharacterDevice, FileType::Unknown];
        let is_wanted = |kind| place.relation != Relation::Added || kinds.contains(&kind);
        let mut names = list_names_of(upper.as_fd(), is_wanted).map_err(failed)?;
        if place.relation == Relation::Replaced {
            let mut all = below.names().map_err(failed)?;
            all.extend(names);
            names = all.into_iter().collect();
        }
        Ok(Listed { place, upper, below, names })
    }

    /// Compares some entries of a directory, and calls `found` for each subdirectory.
    fn look(&self, listed: &Listed, names: &[Vec<u8>], found: &mut dyn FnMut(Place)) {
        let mut notes = Vec::new();
        for name in names {
            if let Err(error) = path_limit::check_name(&listed.place.path, name, 0) {
                return drop(self.failure.set(error));
            }
            let path = names::join(&listed.place.path, name);
            match compare_one(listed, name) {
                Ok(compared) if compared.is_file_mark => {
                    let path = overlay::hidden(&path, FileKind::File);
                    notes.extend(compared.mark.map(|mark| (path, mark)));
                }
                Ok(compared) => {
                    if compared.mark == Some(Mark::Deleted)
                        && let Err(error) = path_limit::check(&path, overlay::added(WHITEOUT))
                    {
                        return drop(self.failure.set(error));
                    }
                    if let Some((relation, layers)) = compared.directory {
                        found(Place { path: path.clone(), relation, layers });
                    }
                    notes.extend(compared.mark.map(|mark| (path, mark)));
                }
                Err(errno) => {
                    let error = Error::io("compare", names::path(&path), errno);
                    return drop(self.failure.set(error));
                }
            }
        }
        if !notes.is_empty() {
            self.notes.lock().unwrap_or_else(PoisonError::into_inner).append(&mut notes);
        }
    }
}

/// The result of a comparison.
#[derive(Default)]
struct Compared {
    mark: Option<Mark>,
    /// The relation of a directory to the tree below, and the layers that have it.
    directory: Option<(Relation, Vec<usize>)>,
    /// `true` if the entry is a file that marks the deletion of another name.
    is_file_mark: bool,
}

impl Compared {
    fn marked(mark: Mark) -> Self {
        Self { mark: Some(mark), ..Self::default() }
    }
}

/// Compares the entries called `name` in a directory and in the tree below.
fn compare_one(listed: &Listed, name: &[u8]) -> std::result::Result<Compared, Errno> {
    let relation = listed.place.relation;
    let below = listed.below.look(name)?;
    let Some(upper) = Located::look(listed.upper.as_fd(), name)? else {
        let is_gone = relation == Relation::Replaced && below.is_some();
        return Ok(if is_gone { Compared::marked(Mark::Deleted) } else { Compared::default() });
    };
    if let Some(hidden) = upper.hides() {
        let is_of_nothing = listed.below.look(hidden)?.is_none();
        let mark = is_of_nothing.then_some(Mark::Unchanged);
        return Ok(Compared { mark, is_file_mark: true, ..Compared::default() });
    }
    if upper.is_whiteout() {
        let is_of_nothing = below.is_none();
        return Ok(if is_of_nothing {
            Compared::marked(Mark::Unchanged)
        } else {
            Compared::default()
        });
    }
    if upper.metadata.is_dir() {
        return compare_directory(&upper, below.as_ref(), listed);
    }
    let Some(below) = below else { return Ok(Compared::default()) };
    Ok(match is_unchanged(&below, &upper)? {
        true if relation == Relation::Replaced && upper.metadata.links > 1 => {
            Compared::marked(Mark::Linked)
        }
        true => Compared::marked(Mark::Unchanged),
        false => Compared::default(),
    })
}

fn compare_directory(
    upper: &Located<'_>,
    below: Option<&Located<'_>>,
    listed: &Listed,
) -> std::result::Result<Compared, Errno> {
    let is_opaque = upper.is_opaque()?;
    let is_merged = below.is_some_and(|below| below.metadata.is_dir());
    let is_same = match below {
        Some(below) => is_unchanged(below, upper)?,
        None => false,
    };
    let mark = match (is_opaque, is_same) {
        (true, true) => Some(Mark::Refilled),
        (true, false) => Some(Mark::Replaced),
        (false, true) => Some(Mark::Unchanged),
        (false, false) => None,
    };
    let directory = match listed.place.relation {
        _ if !is_merged => (Relation::Added, Vec::new()),
        Relation::Merged if !is_opaque => (Relation::Merged, listed.below.layers_of(upper.name)?),
        _ => (Relation::Replaced, listed.below.layers_of(upper.name)?),
    };
    Ok(Compared { mark, directory: Some(directory), ..Compared::default() })
}
