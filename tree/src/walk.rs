//! Parallel walks over trees.
//!
//! A walk returns a list of all entries that a [`View`] shows below a path: depth first, parents
//! before their children, and the names in a directory sorted bytewise. The list doesn't depend on
//! the number of threads.
//!
//! The calling thread walks small trees alone, since waking other threads takes longer. Beyond a
//! few hundred entries, directories are tasks of a rayon scope instead of recursive calls, and
//! lists are joined with an explicit stack. So a tree may be deeper than a thread's stack. A task
//! opens its directory by its path from the root, and the kernel refuses links on the way. Waiting
//! directories hold no descriptors, so neither deep nor wide trees exhaust them.
//!
//! Entries that a view excludes are left out. An excluded directory is listed if an entry below it
//! is not excluded. It is not read if no pattern could include an entry below it again.
//!
//! Trees may change during a walk. An entry that disappears between the listing of its directory
//! and the read of its metadata is left out. An entry that becomes a link is not followed.

mod beneath;
mod found;
mod path;
mod rows;
pub(crate) mod xattrs;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::Scope;
use rustix::fs::{FileType, OFlags, RawDir, readlinkat};
use rustix::io::Errno;

use crate::attributes::Xattr;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::pack::overlay;
use crate::pattern::{ParentMatches, PatternMatcher};
use crate::view::View;
use crate::{names, path_limit, records};

pub(crate) use beneath::open as open_without_links;
pub(crate) use beneath::{Opener, split};
use found::Part;
pub(crate) use found::{Cursor, Found, Pointed, Position};
use path::Directory;
pub use path::EntryPath;
use rows::Rows;
pub(crate) use rows::Seen;

/// The number of entries of a directory in one task.
const CHUNK: usize = 512;

/// The number of entries from which other threads join the walk.
const SMALL: usize = 512;

/// The mode of a build context's root. BuildKit doesn't transfer the root itself.
const CONTEXT_ROOT_MODE: u32 = 0o755;

/// An entry found by a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path from the view's root.
    pub path: EntryPath,
    /// The metadata, with the owner according to the view.
    pub metadata: Metadata,
    /// The target of a symbolic link; empty for other types.
    pub target: Vec<u8>,
    /// The extended attributes, sorted by name, if the view shows them. Those of overlayfs are
    /// included.
    pub xattrs: Vec<Xattr>,
}

impl Entry {
    /// Returns the last component of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.path.name()
    }

    /// Returns the path for error messages.
    pub(crate) fn shown(&self) -> PathBuf {
        names::path(&self.path.to_vec()).to_path_buf()
    }

    /// Returns the value of the extended attribute `name`, if the entry has it.
    pub fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.xattrs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }
}

/// Returns the visible entries at `path` and below. The entry at `path` is the first. The list is
/// empty if no entry is visible. `path` is a real path inside the view's directory: a link on the
/// way is not followed, and hides its target.
///
/// # Errors
/// Fails if a directory or an entry's attributes can't be read.
pub fn entries(view: View<'_>, path: &Path) -> Result<Vec<Entry>> {
    find(view, path).map(Found::into_entries)
}

/// Returns the entries of [`entries`] in a compact form.
///
/// # Errors
/// See [`entries`].
pub(crate) fn find(view: View<'_>, path: &Path) -> Result<Found> {
    let walk = Walk::new(view);
    let start = names::rooted(names::bytes(path));
    let start = names::bytes(&start).strip_prefix(b"/").unwrap_or_default();
    let (below, part) = walk.start(start)?;
    let Some(part) = part else { return Ok(Found::default()) };
    walk.keep(part);
    let rest = walk.begin(below);
    if !rest.is_empty() {
        rayon::scope(|scope| rest.into_iter().for_each(|place| walk.list(scope, place)));
    }
    match walk.failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(Found::of(walk.parts.into_inner().unwrap_or_else(PoisonError::into_inner))),
    }
}

/// Returns the visible entry at `path`, a real path inside the view's directory.
///
/// # Errors
/// Fails if the entry's attributes can't be read.
pub(crate) fn entry(view: View<'_>, path: &Path) -> Result<Option<Entry>> {
    let walk = Walk::new(view);
    let start = names::rooted(names::bytes(path));
    let start = names::bytes(&start).strip_prefix(b"/").unwrap_or_default();
    let found = walk.start(start)?.1.map(|part| Found::of(vec![part]));
    Ok(found.map(|found| found.entry(Position { part: 0, row: 0 })))
}

/// Returns `true` if the view's patterns exclude `path`, even if they include entries below it.
pub(crate) fn is_excluded(view: View<'_>, path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let Some(excludes) = view.excludes else { return false };
    let parent = matches_above(excludes, path);
    !path.is_empty() && excludes.matches_below(path, &parent).0
}

/// Returns the names in the directory at `path`, including excluded ones, sorted bytewise. `path`
/// is a real path without a leading slash. The list is empty if no such directory is visible.
pub(crate) fn names(view: View<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    if is_excluded(view, path) && view.excludes.is_some_and(|some| !some.may_except_below(path)) {
        return Ok(Vec::new());
    }
    match beneath::open(view.dir.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => list_names(fd.as_fd()),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
    .map_err(|errno| Error::io("read", names::path(path), errno))
}

/// Returns the patterns that match the parent of `path`, as a walk from the root finds them.
fn matches_above(excludes: &PatternMatcher, path: &[u8]) -> ParentMatches {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.fold(ParentMatches::default(), |parent, (end, _)| {
        excludes.matches_below(&path[..end], &parent).1
    })
}

/// A directory to list.
struct Place {
    /// The number of the directory.
    directory: usize,
    /// The number of the directory that contains it.
    parent: usize,
    path: Option<Arc<Directory>>,
    /// The patterns of the view that match the directory.
    matches: ParentMatches,
    hidden: bool,
}

/// A directory with its names.
struct Listed {
    place: Place,
    /// The whole path of the directory.
    path: Vec<u8>,
    fd: OwnedFd,
    names: Vec<Vec<u8>>,
}

/// A directory whose entries are being examined.
struct OpenDirectory<'a> {
    dir: BorrowedFd<'a>,
    /// The whole path of the directory.
    path: &'a [u8],
    /// The number of the directory.
    number: usize,
}

/// An entry's metadata, link target and extended attributes.
type Inspected = (Metadata, Vec<u8>, Vec<Xattr>);

/// A range of a directory's entries under construction.
struct Collected {
    part: Part,
    /// The directories among the entries.
    places: Vec<Place>,
}

impl Collected {
    /// Returns an empty range with room for `count` entries of the directory with number 0.
    fn new(chunk: usize, path: Option<Arc<Directory>>, count: usize) -> Self {
        let rows = Rows::with_capacity(count);
        let part = Part { directory: 0, parent: 0, chunk, path, rows, below: Vec::new() };
        Self { part, places: Vec::new() }
    }
}

struct Walk<'a> {
    view: View<'a>,
    root: BorrowedFd<'a>,
    /// The number of directories found so far.
    directories: AtomicUsize,
    parts: Mutex<Vec<Part>>,
    failure: OnceLock<Error>,
}

impl<'a> Walk<'a> {
    fn new(view: View<'a>) -> Self {
        Self {
            view,
            root: view.dir.as_fd(),
            directories: AtomicUsize::new(1),
            parts: Mutex::new(Vec::new()),
            failure: OnceLock::new(),
        }
    }

    /// Examines the entry at which the walk starts. Returns its place if it is a directory, and the
    /// part with the entry if it may be visible.
    fn start(&self, path: &[u8]) -> Result<(Option<Place>, Option<Part>)> {
        if path.is_empty() {
            return self.start_at_root();
        }
        let (parent, name) = beneath::split(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match beneath::open(self.root, parent, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok((None, None)),
            Err(errno) => return Err(Error::io("open", names::path(parent), errno)),
        };
        let matches = self.view.excludes.map(|excludes| matches_above(excludes, path));
        let matches = matches.unwrap_or_default();
        let directory = EntryPath::from(parent.to_vec()).to_directory();
        let here = OpenDirectory { dir: fd.as_fd(), path: parent, number: 0 };
        let mut collected = Collected::new(0, directory, 1);
        self.look_at(&here, name, &matches, &mut collected)?;
        let Collected { part, places } = collected;
        Ok((places.into_iter().next(), (part.rows.len() > 0).then_some(part)))
    }

    fn start_at_root(&self) -> Result<(Option<Place>, Option<Part>)> {
        let failed = |errno| Error::io("stat", Path::new("/"), errno);
        let mut metadata = Metadata::of_fd(self.root).map_err(failed)?;
        if let Some(owner) = self.view.owner {
            metadata.owner = owner;
            metadata.mode = CONTEXT_ROOT_MODE;
        }
        let xattrs = if self.view.xattrs { xattrs::read(self.root, b".") } else { Ok(Vec::new()) };
        let mut xattrs =
            xattrs.map_err(|errno| Error::io("read attributes of", Path::new("/"), errno))?;
        records::resolve(&mut metadata, &mut xattrs, self.view.owner.is_none());
        let directory = self.number();
        let mut part = Collected::new(0, None, 1).part;
        let xattrs = xattrs.as_slice();
        part.rows.push(&Seen { name: b"", metadata, target: b"", xattrs, is_hidden: false });
        part.below.push(directory);
        let matches = ParentMatches::default();
        let place = Place { directory, parent: 0, path: None, matches, hidden: false };
        Ok((Some(place), Some(part)))
    }

    fn number(&self) -> usize {
        self.directories.fetch_add(1, Ordering::Relaxed)
    }

    fn keep(&self, part: Part) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(part);
    }

    /// Lists directories in this thread until it has seen many entries. Returns the remaining
    /// directories.
    fn begin(&self, first: Option<Place>) -> Vec<Place> {
        let mut waiting: Vec<Place> = first.into_iter().collect();
        let mut seen = 0;
        while seen < SMALL
            && let Some(place) = waiting.pop()
        {
            match self.read(place) {
                Ok(Some(listed)) => {
                    for chunk in 0..listed.names.len().div_ceil(CHUNK).max(1) {
                        self.look(&listed, chunk, &mut |below| waiting.push(below));
                    }
                    seen += listed.names.len() + 1;
                }
                Ok(None) => {}
                Err(error) => drop(self.failure.set(error)),
            }
        }
        waiting
    }

    /// Lists a directory and examines its entries.
    fn list<'scope>(&'scope self, scope: &Scope<'scope>, place: Place) {
        match self.read(place) {
            Ok(Some(listed)) => {
                let listed = Arc::new(listed);
                for chunk in 1..listed.names.len().div_ceil(CHUNK) {
                    let listed = listed.clone();
                    scope.spawn(move |scope| self.look_in(scope, &listed, chunk));
                }
                self.look_in(scope, &listed, 0);
            }
            Ok(None) => {}
            Err(error) => drop(self.failure.set(error)),
        }
    }

    fn read(&self, place: Place) -> Result<Option<Listed>> {
        if self.failure.get().is_some() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let path = place.path.as_ref().map(|path| path.to_vec()).unwrap_or_default();
        let fd = match beneath::open(self.root, &path, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            // Hidden directories may be unreadable.
            Err(Errno::ACCESS) if place.hidden => return Ok(None),
            Err(errno) => return Err(Error::io("open", names::path(&path), errno)),
        };
        let names =
            list_names(fd.as_fd()).map_err(|errno| Error::io("read", names::path(&path), errno))?;
        Ok(Some(Listed { place, path, fd, names }))
    }

    /// Examines a range of a directory's entries, and spawns tasks for the directories among them.
    fn look_in<'scope>(&'scope self, scope: &Scope<'scope>, listed: &Listed, chunk: usize) {
        self.look(listed, chunk, &mut |below| scope.spawn(move |scope| self.list(scope, below)));
    }

    /// Examines a range of a directory's entries, and calls `found` for the directories among them.
    fn look(&self, listed: &Listed, chunk: usize, found: &mut dyn FnMut(Place)) {
        let start = chunk * CHUNK;
        let end = listed.names.len().min(start + CHUNK);
        let Listed { place, path, fd, .. } = listed;
        let here = OpenDirectory { dir: fd.as_fd(), path, number: place.directory };
        let mut collected = Collected::new(chunk, place.path.clone(), end - start);
        (collected.part.directory, collected.part.parent) = (place.directory, place.parent);
        for name in &listed.names[start..end] {
            if let Err(error) = self.look_at(&here, name, &place.matches, &mut collected) {
                return drop(self.failure.set(error));
            }
        }
        let Collected { mut part, places } = collected;
        part.rows.shrink();
        self.keep(part);
        places.into_iter().for_each(found);
    }

    /// Examines an entry, and adds it to `collected` if it may be shown.
    fn look_at(
        &self,
        here: &OpenDirectory<'_>,
        name: &[u8],
        matches: &ParentMatches,
        collected: &mut Collected,
    ) -> Result<()> {
        let mut matches_here = ParentMatches::default();
        let mut hidden = false;
        if let Some(excludes) = self.view.excludes {
            let path = names::join(here.path, name);
            (hidden, matches_here) = excludes.matches_below(&path, matches);
            if hidden && !excludes.may_except_below(&path) {
                return Ok(());
            }
        }
        let (metadata, target, xattrs) = match self.inspect(here.dir, name) {
            Ok(inspected) => inspected,
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(()),
            Err(errno) => {
                return Err(Error::io("stat", names::path(&names::join(here.path, name)), errno));
            }
        };
        if self.view.bounded {
            path_limit::check_name(here.path, name, overlay::added(metadata.kind))?;
        }
        let Collected { part, places } = collected;
        if metadata.is_dir() {
            let directory = self.number();
            let path = EntryPath::below(part.path.as_ref(), name).to_directory();
            let (parent, matches) = (here.number, matches_here);
            places.push(Place { directory, parent, path, matches, hidden });
            part.below.push(directory);
        } else if hidden {
            return Ok(());
        }
        let (target, xattrs) = (target.as_slice(), xattrs.as_slice());
        part.rows.push(&Seen { name, metadata, target, xattrs, is_hidden: hidden });
        Ok(())
    }

    fn inspect(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<Inspected, Errno> {
        let mut metadata = Metadata::of_entry(dir, name)?;
        if let Some(owner) = self.view.owner {
            metadata.owner = owner;
        }
        let target = if metadata.is_symlink() {
            readlinkat(dir, name, Vec::with_capacity(metadata.size as usize + 1))?.into_bytes()
        } else {
            Vec::new()
        };
        let mut xattrs = if self.view.xattrs { xattrs::read(dir, name)? } else { Vec::new() };
        records::resolve(&mut metadata, &mut xattrs, self.view.owner.is_none());
        if self.view.owner.is_none() {
            records::resolve_entry(dir, name, &mut metadata)?;
        }
        Ok((metadata, target, xattrs))
    }
}

/// Returns the names in a directory that was opened for listing, sorted bytewise.
pub(crate) fn list_names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    list_names_of(dir, |_| true)
}

/// Returns the names of the entries of certain types in a directory that was opened for listing,
/// sorted bytewise. On file systems that don't list types, the type is [`FileType::Unknown`].
pub(crate) fn list_names_of(
    dir: BorrowedFd<'_>,
    is_wanted: impl Fn(FileType) -> bool,
) -> Result<Vec<Vec<u8>>, Errno> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut listing = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && is_wanted(entry.file_type()) {
            found.push(name.to_vec());
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests;
