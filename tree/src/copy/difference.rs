//! Copies that only write what differs from an earlier tree.
//!
//! The layer of the copies is computed in memory, as for a copy that goes [into a
//! tar](super::direct), and compared with the [record](super::record) of a tree that an earlier
//! version of the same copies created. The new layer's tree then consists of two directories: the
//! earlier tree, and above it a small one with the new and changed entries and with whiteouts for
//! the removed ones. Overlayfs mounts both as one layer.
//!
//! An entry of the earlier tree can't be hidden if the tree below the layer has an entry at the same
//! path: the whiteout would hide both. In this case, and if much has changed, the result is `None`,
//! and the copies create a whole tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::CopyOptions;
use super::direct::{Layer, Made};
use super::place::Place;
use super::record::{CopyRecord, Identity, Recorded};
use super::source::{Copier, Finish, Job};
use crate::attributes::Attributes;
use crate::below::Below;
use crate::changes::Changes;
use crate::digest::select::Picked;
use crate::dir::Dir;
use crate::error::Result;
use crate::metadata::{FileKind, Metadata, Timestamp};
use crate::names;
use crate::view::View;
use crate::walk::Entry;

/// A whole tree is created if the number of differences exceeds this number plus the fraction of the
/// entries.
const FEW: usize = 64;
const FRACTION: usize = 8;
/// A whole tree is created if the differences have more bytes than this number plus the fraction of
/// all bytes.
const SMALL: u64 = 1 << 20;
const FRACTION_OF_BYTES: u64 = 4;

/// The differences between the layer of a chain of copies and an earlier tree.
pub struct CopyDifference<'a> {
    dirs: Vec<&'a Dir>,
    /// The paths of entries that only the earlier tree has. No other path is below one of them.
    removed: Vec<PathBuf>,
    /// The new and changed entries, in the order of a walk.
    changed: Vec<Made>,
    /// The directories whose attributes must be set, with their keys.
    directories: BTreeMap<Vec<u8>, Metadata>,
    root_mtime: Option<Timestamp>,
    changes: Changes,
}

impl std::fmt::Debug for CopyDifference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyDifference").field("removed", &self.removed).finish_non_exhaustive()
    }
}

/// Compares the layer that a chain of copies creates on top of the tree `below` with an earlier
/// tree. Returns `None` if the layer needs a whole tree. The sources must be without extended
/// attributes.
///
/// # Errors
/// Fails if a source is missing or can't be read.
pub fn difference_of_copies<'a>(
    copies: &[(View<'a>, CopyOptions)],
    below: &dyn Below,
    earlier: &CopyRecord,
) -> Result<Option<CopyDifference<'a>>> {
    if copies.iter().any(|(source, _)| source.xattrs) {
        return Ok(None);
    }
    let Some(layer) = Layer::of(copies, below)? else { return Ok(None) };
    let dirs: Vec<&Dir> = copies.iter().map(|(source, _)| source.dir).collect();
    let compared = Comparison::of(&layer, earlier);
    if !compared.is_small(&layer, earlier) || !compared.can_be_hidden(&layer, earlier, below)? {
        return Ok(None);
    }
    let unchanged = layer.unchanged(&dirs)?;
    let removed = compared.topmost_removed(earlier);
    let directories = compared.directories(&layer, &removed);
    let root_mtime = layer.root_mtime;
    let made = layer.made.into_values().enumerate();
    let changed = made.filter(|(number, _)| compared.changed.contains(number));
    Ok(Some(CopyDifference {
        dirs,
        removed: removed.iter().map(|path| names::rooted(path)).collect(),
        changed: changed.map(|(_, made)| made).collect(),
        directories,
        root_mtime,
        changes: Changes::of_unchanged(unchanged),
    }))
}

/// A comparison of a layer with a record.
#[derive(Default)]
struct Comparison {
    /// The numbers of the layer's entries that are new or changed.
    changed: BTreeSet<usize>,
    /// The numbers of the record's entries that the layer doesn't have.
    removed: Vec<usize>,
    /// The number of the record's entry for each entry of the layer that has one.
    known: HashMap<usize, usize>,
}

impl Comparison {
    fn of(layer: &Layer<'_>, earlier: &CopyRecord) -> Self {
        let mut compared = Self::default();
        // The first entry is the root, which a layer doesn't have.
        let mut recorded = earlier.entries.iter().enumerate().skip(1).peekable();
        for (number, (key, made)) in layer.made.iter().enumerate() {
            while let Some((gone, _)) = recorded.next_if(|(_, entry)| is_before(entry, key)) {
                compared.removed.push(gone);
            }
            match recorded.next_if(|(_, entry)| has_key(entry, key)) {
                Some((known, entry)) => {
                    compared.known.insert(number, known);
                    if !is_same(made, entry) {
                        compared.changed.insert(number);
                    }
                }
                None => drop(compared.changed.insert(number)),
            }
        }
        compared.removed.extend(recorded.map(|(gone, _)| gone));
        compared.compare_names(layer, earlier);
        compared
    }

    /// Marks all names of a file as changed if they aren't the same as those in the record.
    fn compare_names(&mut self, layer: &Layer<'_>, earlier: &CopyRecord) {
        let mut before: HashMap<u32, Vec<usize>> = HashMap::new();
        for (number, entry) in earlier.entries.iter().enumerate() {
            if let Some(first) = entry.first {
                before.entry(first).or_default().push(number);
            }
        }
        let mut now: HashMap<_, Vec<usize>> = HashMap::new();
        for (number, made) in layer.made.values().enumerate() {
            if let Some(inode) = made.inode {
                now.entry(inode).or_default().push(number);
            }
        }
        let mut changed = Vec::new();
        let mut linked = BTreeSet::new();
        for names in now.into_values().filter(|names| names.len() > 1) {
            linked.extend(names.iter().copied());
            let known: Vec<usize> =
                names.iter().filter_map(|name| self.known.get(name).copied()).collect();
            let first = known.first().and_then(|known| earlier.entries[*known].first);
            let is_same = first.and_then(|first| before.get(&first)) == Some(&known);
            if !is_same || names.iter().any(|name| self.changed.contains(name)) {
                changed.extend(names);
            }
        }
        for (number, known) in self.known.iter().filter(|(number, _)| !linked.contains(number)) {
            let first = earlier.entries[*known].first;
            let names = first.and_then(|first| before.get(&first)).map_or(1, Vec::len);
            changed.extend((names > 1).then_some(*number));
        }
        self.changed.extend(changed);
    }

    /// Returns `true` if the differences are so few that they are worth a directory of their own.
    fn is_small(&self, layer: &Layer<'_>, earlier: &CopyRecord) -> bool {
        let count = self.changed.len() + self.removed.len();
        let (mut all, mut differing) = (0, 0);
        for (number, made) in layer.made.values().enumerate() {
            let bytes = made.origin.as_ref().map_or(0, |_| made.entry.metadata.size);
            all += bytes;
            differing += if self.changed.contains(&number) { bytes } else { 0 };
        }
        count <= FEW + earlier.entries.len() / FRACTION
            && differing <= SMALL + all / FRACTION_OF_BYTES
    }

    /// Returns `true` if the tree below has no entries at the paths that must be hidden.
    fn can_be_hidden(
        &self,
        layer: &Layer<'_>,
        earlier: &CopyRecord,
        below: &dyn Below,
    ) -> Result<bool> {
        for path in self.topmost_removed(earlier) {
            if below.entry(&names::rooted(path))?.is_some() {
                return Ok(false);
            }
        }
        for (number, made) in layer.made.values().enumerate() {
            let known = self.known.get(&number).map(|known| &earlier.entries[*known]);
            if let Some(known) = known
                && known.kind != FileKind::Directory
                && made.entry.metadata.is_dir()
                && below.entry(&names::rooted(&known.path))?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the paths of removed entries that are not below a removed directory.
    fn topmost_removed<'r>(&self, earlier: &'r CopyRecord) -> Vec<&'r [u8]> {
        let mut topmost: Vec<&[u8]> = Vec::new();
        for number in &self.removed {
            let path = &*earlier.entries[*number].path;
            let is_below = topmost.last().is_some_and(|last| {
                path.strip_prefix(*last).is_some_and(|rest| rest.starts_with(b"/"))
            });
            if !is_below {
                topmost.push(path);
            }
        }
        topmost
    }

    /// Returns the changed directories, and those in which entries change.
    fn directories(&self, layer: &Layer<'_>, removed: &[&[u8]]) -> BTreeMap<Vec<u8>, Metadata> {
        let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (number, (key, made)) in layer.made.iter().enumerate() {
            if self.changed.contains(&number) {
                keys.extend(parent(key));
                keys.extend(made.entry.metadata.is_dir().then(|| key.clone()));
            }
        }
        keys.extend(removed.iter().filter_map(|path| parent(&crate::changes::key(path))));
        let found = keys.into_iter().filter_map(|key| {
            let made = layer.made.get(&key).filter(|made| made.entry.metadata.is_dir())?;
            Some((key, made.entry.metadata.clone()))
        });
        found.collect()
    }
}

/// Returns the key of the directory with an entry, unless it is the root.
fn parent(key: &[u8]) -> Option<Vec<u8>> {
    key.iter().rposition(|byte| *byte == 0).map(|end| key[..end].to_vec())
}

/// Returns the order of a record's entry and a key.
fn order(entry: &Recorded, key: &[u8]) -> std::cmp::Ordering {
    let path = entry.path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte });
    path.cmp(key.iter().copied())
}

fn is_before(entry: &Recorded, key: &[u8]) -> bool {
    order(entry, key).is_lt()
}

fn has_key(entry: &Recorded, key: &[u8]) -> bool {
    order(entry, key).is_eq()
}

/// Returns `true` if a copy would create the same entry as the earlier one.
fn is_same(made: &Made, earlier: &Recorded) -> bool {
    let metadata = &made.entry.metadata;
    let has_same_attributes = (metadata.kind, metadata.mode, metadata.owner, metadata.mtime)
        == (earlier.kind, earlier.mode, earlier.owner, earlier.mtime);
    has_same_attributes
        && (metadata.is_dir()
            || metadata.size == earlier.size && earlier.source == Some(Identity::of(metadata)))
}

impl CopyDifference<'_> {
    /// Returns the differences between the tar of the layer and its tree.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Writes the differences into `dest`, which shows the earlier tree on top of the tree below.
    ///
    /// # Errors
    /// Fails if a file can't be read or written.
    pub fn write(self, dest: &Dir) -> Result<()> {
        let files = self.changed.iter().map(|made| &made.entry.metadata);
        dest.take_room(files.filter(|file| file.is_file()).map(|file| file.size).sum())?;
        for path in &self.removed {
            dest.remove_all(path)?;
        }
        // The attributes are set in the reverse order, so those of the root come last.
        let root = self.root_mtime.map(|mtime| Finish {
            path: PathBuf::from("/"),
            attributes: Attributes { mtime: Some(mtime), ..Attributes::default() },
            xattrs: Vec::new(),
        });
        let below = self.directories.iter().map(|(key, metadata)| Finish {
            path: rooted(key),
            attributes: attributes(metadata),
            xattrs: Vec::new(),
        });
        let directories: Vec<Finish> = root.into_iter().chain(below).collect();
        let (jobs, links) = prepare(self.changed, self.dirs.len(), dest)?;
        let options = CopyOptions::default();
        for (dir, jobs) in self.dirs.iter().zip(&jobs) {
            Copier::new(View::of(dir), dest, &options).make_all(jobs, Path::new("/"))?;
        }
        let copier = Copier::new(View::of(dest), dest, &options);
        copier.complete(&links, &directories, Path::new("/"))
    }
}

/// Removes the entries in the way and creates the directories. Returns the files to create from
/// each source, and the further names of files with the first name.
#[expect(clippy::type_complexity, reason = "two lists that are taken apart at once")]
fn prepare(
    changed: Vec<Made>,
    sources: usize,
    dest: &Dir,
) -> Result<(Vec<Vec<Job>>, Vec<(Job, PathBuf)>)> {
    let mut place = Place::new(dest);
    let mut firsts = HashMap::new();
    let mut jobs: Vec<Vec<Job>> = (0..sources).map(|_| Vec::new()).collect();
    let mut links = Vec::new();
    for made in changed {
        let to = names::rooted(&made.entry.path.to_vec());
        let is_dir = made.entry.metadata.is_dir();
        place.replace(&to, is_dir)?;
        if is_dir {
            place.directory(&to)?;
            continue;
        }
        let source = made.origin.as_ref().map_or(0, |origin| origin.dir);
        let inode = made.inode;
        let job = job(made, to.clone());
        if let Some(first) = inode.and_then(|inode| firsts.get(&inode).cloned()) {
            links.push((job, first));
        } else {
            firsts.extend(inode.map(|inode| (inode, to)));
            jobs[source].push(job);
        }
    }
    Ok((jobs, links))
}

/// Returns the task of creating an entry at a path.
fn job(made: Made, to: PathBuf) -> Job {
    let mut entry = made.entry;
    match made.origin {
        Some(origin) => entry.path = origin.path,
        // An empty file needs no source. It is created like the copy of a socket.
        None if entry.metadata.is_file() => entry.metadata.kind = FileKind::Socket,
        None => {}
    }
    let picked = Picked { entry: Entry { xattrs: Vec::new(), ..entry }, above: 0, passed: false };
    Job { picked, occupied: false, to: Some(to) }
}

fn attributes(metadata: &Metadata) -> Attributes {
    Attributes {
        mode: Some(metadata.mode),
        owner: Some(metadata.owner),
        mtime: Some(metadata.mtime),
    }
}

/// Returns the path with a key.
fn rooted(key: &[u8]) -> PathBuf {
    let path: Vec<u8> = key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect();
    names::rooted(&path)
}

#[cfg(test)]
mod tests;
