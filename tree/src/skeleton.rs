//! Skeletons: what layers hold, told from their archives, with nothing unpacked.
//!
//! A copy that goes straight into an archive has to know of the tree that it goes on top of where its
//! destination's path leads, and what of it is there already. A [`Skeleton`] answers that. It is made
//! of the [`Manifest`]s of a chain of layers, base first; a manifest is read from an archive once and
//! kept as bytes.
//!
//! A manifest has no contents. Where those would tell whether a file is there already, the skeleton
//! notes which it was asked for ([`Skeleton::wanted`]); whoever can read the archive once more finds
//! their digests ([`contents`]) and tells it ([`Skeleton::learn`]).
//!
//! What `unpack` would make of the archives is what a skeleton tells: parents that no entry names,
//! deletions, directories that several layers have. Where an archive is unusual, in that an entry lies
//! behind a link or a hard link leads nowhere, or is wrong, there is no skeleton ([`Skeleton::add`] says
//! so), and whoever asks has to unpack.

mod contents;
mod manifest;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use rustix::io::Errno;

use crate::below::Below;
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::names;
pub use contents::contents;
pub use manifest::Manifest;
use manifest::{Attributes, Kind, Record};

/// As many links as BuildKit follows when it asks for a real path.
const LINKS: u32 = 255;
/// What begins the name of a deletion.
const WHITEOUT: &[u8] = b".wh.";
/// The size of what isn't known: no file is as large, so that none is taken for it.
const UNKNOWN: u64 = u64::MAX;
/// Says in a directory that it hides what layers below have in it.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a chain of layers holds.
#[derive(Debug, Default)]
pub struct Skeleton {
    /// By path, with a zero in place of each slash, so that what is below a directory follows it.
    nodes: BTreeMap<Vec<u8>, Node>,
    /// What the last layer has made, with all above it.
    made: BTreeSet<Vec<u8>>,
    /// How many layers there are.
    layers: usize,
    /// Contents that are known, and those that somebody has asked for.
    contents: BTreeMap<Place, Digest>,
    wanted: RefCell<BTreeSet<Place>>,
}

#[derive(Clone, Debug)]
enum Node {
    Directory(Attributes),
    Link(Vec<u8>, Option<Detail>),
    Other(Option<Detail>),
}

/// What tells an entry from others of its kind.
#[derive(Clone, Debug)]
struct Detail {
    kind: FileKind,
    attributes: Attributes,
    size: u64,
    capability: Box<[u8]>,
    place: Place,
}

/// Where the bytes of a file are: the number of the layer, and the name in its archive.
type Place = (usize, Vec<u8>);

impl Skeleton {
    /// Lays a layer on top. Tells whether the skeleton knows what came of it; one that doesn't is of
    /// no use any more.
    #[must_use]
    pub fn add(&mut self, manifest: &Manifest) -> bool {
        self.made.clear();
        self.layers += 1;
        manifest.records().all(|record| record.is_some_and(|record| self.put(&record).is_some()))
    }

    /// `None` where it can't be told what comes of an entry.
    fn put(&mut self, record: &Record<'_>) -> Option<()> {
        let path = names::rooted(record.path);
        let Some((parent, name)) = names::split(&path) else { return Some(()) };
        self.make_parents(names::bytes(parent))?;
        let (name, at) = (names::bytes(name), key(names::bytes(&path)));
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.delete(names::bytes(parent), name, hidden);
        }
        if matches!(record.kind, Kind::Device) && Ids::current().is_namespace() {
            return Some(());
        }
        let stays = matches!(record.kind, Kind::Directory(_))
            && self.nodes.get(&at).is_some_and(Node::is_directory);
        if !stays {
            self.remove(&at);
        }
        let node = match record.kind {
            Kind::Device | Kind::Other => Node::Other(self.detail(record)),
            Kind::Directory(attributes) => Node::Directory(attributes),
            Kind::Symlink => Node::Link(record.target.to_vec(), self.detail(record)),
            Kind::HardLink => self.linked(record.target)?,
        };
        self.nodes.insert(at, node);
        self.made.extend(prefixes(names::bytes(&path)));
        Some(())
    }

    fn detail(&self, record: &Record<'_>) -> Option<Detail> {
        let manifest::Detail { kind, attributes, size, capability } = record.detail?;
        let place = (self.layers - 1, record.path.to_vec());
        Some(Detail { kind, attributes, size, capability: capability.into(), place })
    }

    /// Returns the files whose contents were asked for and aren't known, by the number of the layer
    /// in whose archive they are.
    pub fn wanted(&self) -> BTreeMap<usize, BTreeSet<Vec<u8>>> {
        let mut wanted: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (layer, name) in self.wanted.borrow().iter() {
            wanted.entry(*layer).or_default().insert(name.clone());
        }
        wanted
    }

    /// Takes note of the contents of files of a layer, and forgets what was asked for of it.
    pub fn learn(&mut self, layer: usize, contents: impl IntoIterator<Item = (Vec<u8>, Digest)>) {
        self.wanted.get_mut().retain(|(wanted, _)| *wanted != layer);
        self.contents.extend(contents.into_iter().map(|(name, digest)| ((layer, name), digest)));
    }

    /// Makes the directories of a path that aren't there; `None` where something else is.
    fn make_parents(&mut self, path: &[u8]) -> Option<()> {
        for at in prefixes(path) {
            match self.nodes.get(&at) {
                Some(node) if node.is_directory() => {}
                Some(_) => return None,
                None => {
                    // The layer has made it once there is something in it: a deletion isn't.
                    self.nodes.insert(at, Node::Directory(Attributes::of_parent()));
                }
            }
        }
        Some(())
    }

    /// Returns what another name of a file is.
    fn linked(&self, target: &[u8]) -> Option<Node> {
        let target = names::rooted(target);
        let target = names::bytes(&target);
        let is_directory = |at: &Vec<u8>| self.nodes.get(at).is_some_and(Node::is_directory);
        let way: Vec<_> = prefixes(target).collect();
        let (last, above) = way.split_last()?;
        let found = self.nodes.get(last).filter(|_| above.iter().all(is_directory))?;
        (!found.is_directory()).then(|| found.clone())
    }

    fn delete(&mut self, parent: &[u8], name: &[u8], hidden: &[u8]) -> Option<()> {
        if name == OPAQUE {
            for at in self.below(&key(parent)) {
                if !self.made.contains(&at) {
                    self.nodes.remove(&at);
                }
            }
            return Some(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return None;
        }
        self.remove(&key(&names::join(parent, hidden)));
        Some(())
    }

    /// Removes what is at a path and below it.
    fn remove(&mut self, at: &[u8]) {
        for below in self.below(at) {
            self.nodes.remove(&below);
        }
        self.nodes.remove(at);
    }

    /// Returns the keys of all that is below a directory.
    fn below(&self, at: &[u8]) -> Vec<Vec<u8>> {
        let mut start = at.to_vec();
        if !at.is_empty() {
            start.push(0);
        }
        let below = self.nodes.range(start.clone()..).map(|(at, _)| at);
        below.take_while(|at| at.starts_with(&start)).cloned().collect()
    }
}

impl Node {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    fn metadata(&self) -> Metadata {
        match self {
            Node::Directory(attributes) => metadata(FileKind::Directory, *attributes, 0),
            Node::Link(_, Some(detail)) | Node::Other(Some(detail)) => {
                metadata(detail.kind, detail.attributes, detail.size)
            }
            Node::Link(_, None) => metadata(FileKind::Symlink, Attributes::of_parent(), UNKNOWN),
            Node::Other(None) => metadata(FileKind::File, Attributes::of_parent(), UNKNOWN),
        }
    }

    fn detail(&self) -> Option<&Detail> {
        match self {
            Node::Directory(_) => None,
            Node::Link(_, detail) | Node::Other(detail) => detail.as_ref(),
        }
    }
}

fn metadata(kind: FileKind, attributes: Attributes, size: u64) -> Metadata {
    let Attributes { mode, owner, mtime } = attributes;
    Metadata {
        kind,
        mode,
        owner,
        size,
        mtime,
        ctime: Timestamp::default(),
        device: 0,
        inode: 0,
        links: 1,
        blocks: 0,
    }
}

impl Attributes {
    /// Returns what a directory gets that no entry names.
    fn of_parent() -> Self {
        Self { mode: 0o755, owner: Owner::default(), mtime: Timestamp::default() }
    }
}

impl Below for Skeleton {
    fn entry(&self, path: &Path) -> Result<Option<Metadata>> {
        let path = names::rooted(names::bytes(path));
        let Some((parent, name)) = names::split(&path) else {
            return Ok(Some(metadata(FileKind::Directory, Attributes::of_parent(), 0)));
        };
        match self.resolve(parent) {
            Ok(parent) => {
                let at = key(names::bytes(&parent.join(name)));
                Ok(self.nodes.get(&at).map(Node::metadata))
            }
            Err(Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Error::io("stat", &path, errno)),
        }
    }

    fn capability(&self, path: &Path) -> Result<Vec<u8>> {
        let detail = self.nodes.get(&key(names::bytes(path))).and_then(Node::detail);
        Ok(detail.map(|detail| detail.capability.to_vec()).unwrap_or_default())
    }

    fn content(&self, path: &Path) -> Result<Option<Digest>> {
        let node = self.nodes.get(&key(names::bytes(path)));
        if let Some(Node::Link(target, _)) = node {
            return Ok(Some(Digest::of(target)));
        }
        let Some(Detail { place, .. }) = node.and_then(Node::detail) else { return Ok(None) };
        let known = self.contents.get(place).copied();
        if known.is_none() {
            self.wanted.borrow_mut().insert(place.clone());
        }
        Ok(known)
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf> {
        let path = names::rooted(names::bytes(path));
        self.resolve(&path).map_err(|errno| Error::io("resolve", &path, errno))
    }
}

impl Skeleton {
    /// Does what `resolve::real_path` does in a directory.
    fn resolve(&self, path: &Path) -> Result<PathBuf, Errno> {
        let owned = |name: &[u8]| name.to_vec();
        let mut pending: VecDeque<_> = names::components(names::bytes(path)).map(owned).collect();
        let mut real: Vec<Vec<u8>> = Vec::new();
        // How many names are there, once one was missing.
        let mut there: Option<usize> = None;
        let mut links = LINKS;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                real.pop();
                there = there.filter(|there| real.len() > *there);
                continue;
            }
            real.push(name);
            if there.is_some() {
                continue;
            }
            match self.nodes.get(&real.join(&0)) {
                None => there = Some(real.len() - 1),
                Some(Node::Directory(_)) => {}
                Some(Node::Other(_)) if pending.is_empty() => {}
                Some(Node::Other(_)) => return Err(Errno::NOTDIR),
                Some(Node::Link(target, _)) => {
                    links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                    real.pop();
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    for name in names::components(target).rev() {
                        pending.push_front(name.to_vec());
                    }
                }
            }
        }
        Ok(names::from_components(&real))
    }
}

/// Returns the key of an absolute clean path.
fn key(path: &[u8]) -> Vec<u8> {
    names::components(path).collect::<Vec<_>>().join(&0)
}

/// Returns the keys of an absolute clean path and of those above it but the root, topmost first.
fn prefixes(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let key = key(path);
    let ends: Vec<usize> = key
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == 0)
        .map(|(end, _)| end)
        .chain((!key.is_empty()).then_some(key.len()))
        .collect();
    ends.into_iter().map(move |end| key[..end].to_vec())
}

#[cfg(test)]
mod tests;
